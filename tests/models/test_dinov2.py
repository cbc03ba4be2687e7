"""DINOv2 agrees with PyTorch, from safetensors, and serves as features of image sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genbench_jax as gb
from genbench_jax.embedding.embedder import image_features
from genbench_jax.embedding.preprocess import pixels_of
from genbench_jax.errors import RunError
from genbench_jax.models.clip import Clip
from genbench_jax.models.dinov2 import load_dinov2
from genbench_jax.models.image_encoder import load_image_encoder
from genbench_jax.models.positions import resampled
from genbench_jax.zoo.tiny import write_tiny_dinov2

DATA = Path(__file__).parent.parent / "data" / "golden_dinov2.npz"


@pytest.fixture(scope="module")
def golden():
  with np.load(DATA) as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return write_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.mark.parametrize("name,config", [("mlp", {}), ("swiglu", {"use_swiglu_ffn": True})])
def test_features_match_pytorch(golden, one_device_mesh, tmp_path, name, config):
  """Positions are resampled from 7 x 7 to 4 x 4, and a layer scale is applied."""
  encoder = load_dinov2(write_tiny_dinov2(tmp_path, **config))
  found = image_features(encoder, golden["pixels"], one_device_mesh)
  np.testing.assert_allclose(found, golden[name], atol=1e-5)


def test_preprocessing_matches_transformers(golden, folder):
  encoder = load_dinov2(folder)
  image = Image.fromarray(golden["image"])
  found = pixels_of(image, encoder.input)
  np.testing.assert_allclose(found, golden["processed"], atol=1e-6)


def test_positions_of_the_right_number_are_unchanged():
  positions = np.arange(2 * 5, dtype=np.float32).reshape(1, 5, 2)
  assert resampled(positions, 2) is positions
  flat = np.ones((1, 10, 2), np.float32)
  np.testing.assert_allclose(resampled(flat, 5), np.ones((1, 26, 2)), rtol=1e-6)


def test_distance_between_image_sets(folder):
  """Use the library for distances in this space: embed both sets, then measure."""
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (24, 20, 20, 3), np.uint8)
  darker = (images * 0.5).astype(np.uint8)
  features, others = (gb.embed_images(batch, str(folder)) for batch in (images, darker))
  assert features.shape == (24, 32)
  assert gb.kernel_distance(features, others) > gb.kernel_distance(features[::2], features[1::2])
  assert gb.frechet_distance(features, features) == pytest.approx(0, abs=1e-4)


def test_the_configuration_determines_the_kind(folder, tiny_clip_folder, tmp_path):
  assert load_image_encoder(folder).width == 32
  clip = load_image_encoder(tiny_clip_folder)
  assert isinstance(clip, Clip)
  assert (clip.width, clip.input.before_crop) == (16, 32)
  write_tiny_dinov2(tmp_path)
  (tmp_path / "config.json").write_text('{"model_type": "vit"}')
  with pytest.raises(RunError, match="type 'vit'; known are clip, dinov2"):
    load_image_encoder(str(tmp_path))
  with pytest.raises(RunError, match="embeds images only"):
    gb.embed_texts(["a dog"], str(folder))


def test_a_crop_that_patches_do_not_divide_is_rejected(tmp_path):
  write_tiny_dinov2(tmp_path)
  (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 18, "size": 20}')
  with pytest.raises(RunError, match="cuts 18 pixels: expected a multiple of the patch, 4"):
    load_dinov2(tmp_path)
