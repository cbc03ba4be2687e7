"""Preprocessing settings are applied as transformers' processors do, or rejected."""

import json

import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding.preprocess import pixels_of
from genbench_jax.errors import RunError
from genbench_jax.models.image_input import (
  FILTERS,
  HALF,
  OPENAI_MEAN,
  OPENAI_STD,
  ImageInput,
  read_image_input,
)

CLIP = ImageInput(32)
SIGLIP = ImageInput(32, keep_aspect=False, mean=HALF, std=HALF)
PLAIN = {"image_mean": list(OPENAI_MEAN), "image_std": list(OPENAI_STD), "resample": 3}
CROPPED = PLAIN | {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def written(folder, settings):
  (folder / "preprocessor_config.json").write_text(json.dumps(settings))
  return folder


@pytest.fixture(scope="module")
def image():
  return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))


@pytest.mark.parametrize(
  "change",
  [
    {},
    *({"resample": number} for number in range(len(FILTERS))),
    {"size": {"shortest_edge": 48}},
    {"size": {"height": 40, "width": 40}},
    {"do_center_crop": False, "size": {"height": 32, "width": 32}},
    {"do_normalize": False},
    {"do_rescale": False},
    {"rescale_factor": 1 / 127.5},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
    {"image_mean": 0.5, "image_std": 0.5},
  ],
  ids=str,
)
def test_settings_match_transformers(tmp_path, image, change):
  from transformers import CLIPImageProcessor

  settings = CROPPED | change
  how = read_image_input(written(tmp_path, settings), CLIP)
  wanted = CLIPImageProcessor(**settings)(image, return_tensors="np")["pixel_values"][0]
  wanted = np.asarray(wanted, np.float32).transpose(1, 2, 0)
  found = pixels_of(image, how)
  assert found.shape == wanted.shape
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_siglip_squashes_by_default(tmp_path, image):
  how = read_image_input(written(tmp_path, {"size": {"height": 32, "width": 32}}), SIGLIP)
  wanted = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1
  np.testing.assert_allclose(pixels_of(image, how), wanted, atol=1e-5)


def test_missing_settings_use_the_defaults(tmp_path):
  assert read_image_input(tmp_path, CLIP) == CLIP
  assert read_image_input(written(tmp_path, {}), CLIP) == CLIP
  assert read_image_input(written(tmp_path, {"size": 32, "crop_size": 32}), CLIP) == CLIP
  old = read_image_input(written(tmp_path, {"size": 48, "feature_extractor_type": "X"}), CLIP)
  assert (old.size, old.before_crop, old.keep_aspect) == (32, 48, True)


@pytest.mark.parametrize(
  "change,message",
  [
    ({"do_resize": False}, "do_resize is False; only True is supported"),
    ({"do_center_crop": False}, "do_center_crop is False; without a center crop, images"),
    ({"do_pad": True}, "do_pad is True; only resizing, cropping, scaling and normalization"),
    ({"size": {"longest_edge": 32}}, "size is {'longest_edge': 32}; expected shortest_edge"),
    ({"size": {"height": 32, "width": 48}}, "equal height and width"),
    ({"size": {"shortest_edge": 16}}, "at least the crop, 32, because images are not padded"),
    (
      {"crop_size": {"height": 32, "width": 16}},
      "crop_size is .*; expected equal height and width",
    ),
    ({"crop_size": 10**9}, "crop_size is 1000000000; expected pixels, from 1 to 4096"),
    ({"size": "large"}, "size is 'large'"),
    ({"resample": 9}, "resample is 9; expected a whole number from 0 to 5"),
    ({"resample": "bicubic"}, "resample is 'bicubic'"),
    ({"rescale_factor": 0}, "rescale_factor is 0"),
    ({"image_std": [0, 0, 0]}, r"image_std is \[0, 0, 0\]; expected three numbers"),
    ({"image_mean": [1e308] * 3}, "image_mean is"),
    ({"image_mean": [0.5, 0.5]}, "image_mean is"),
    ({"image_std": [True, 1, 1]}, "image_std is"),
    ({"do_normalize": "yes"}, "do_normalize is 'yes'; expected true or false"),
  ],
  ids=str,
)
def test_unsupported_settings_are_rejected(tmp_path, change, message):
  with pytest.raises(RunError, match=message):
    read_image_input(written(tmp_path, CROPPED | change), CLIP)
