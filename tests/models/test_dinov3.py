"""DINOv3 from its folder: features agree with PyTorch, and images are preprocessed as configured."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from genbench_jax.embedding.embedder import image_features
from genbench_jax.embedding.preprocess import pixels_of
from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.dinov3 import load_dinov3, parameter_shapes
from genbench_jax.models.image_encoder import load_image_encoder
from genbench_jax.models.image_input import IMAGENET_MEAN, IMAGENET_STD
from genbench_jax.zoo.tiny import random_weights


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_encoders")


@pytest.fixture
def folder(golden, tmp_path):
  (tmp_path / "config.json").write_text(str(golden["dinov3/config"]))
  state = random_weights(weights.torch_shapes(parameter_shapes(tmp_path)))
  save_file(state, tmp_path / "model.safetensors")
  return tmp_path


def test_features_from_a_folder_match_pytorch(golden, folder, one_device_mesh):
  encoder = load_image_encoder(folder)
  found = image_features(encoder, golden["dinov3/pixels"], one_device_mesh)
  wanted = golden["dinov3/features"]
  assert encoder.width == wanted.shape[1]
  assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_images_are_squashed_bilinearly_by_default(folder):
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
  square = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)) / 255
  found = pixels_of(image, load_dinov3(folder).input)
  np.testing.assert_allclose(found, (square - IMAGENET_MEAN) / IMAGENET_STD, atol=1e-5)
  size = {"height": 20, "width": 20}
  (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "resample": 3}))
  assert load_dinov3(folder).input.size == 20


def test_other_sizes_and_models_are_rejected(folder):
  (folder / "preprocessor_config.json").write_text('{"size": {"height": 18, "width": 18}}')
  with pytest.raises(RunError, match="cuts 18 pixels: expected a multiple of the patch, 4"):
    load_dinov3(folder)
  (folder / "config.json").write_text('{"model_type": "dinov2"}')
  with pytest.raises(RunError, match="type 'dinov2', not 'dinov3_vit'"):
    load_dinov3(folder)
