"""Inception-v3 agrees with torch-fidelity on random weights, also as an encoder and from the original archive."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import genbench_jax as gb
from genbench_jax.embedding.fid_resize import clean, legacy
from genbench_jax.embedding.preprocess import pixels_of
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import image_encoder, weights
from genbench_jax.models.image_input import ImageInput
from genbench_jax.models.inception import INPUT, load_inception, parameter_shapes
from genbench_jax.zoo.tiny import inception_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_inception")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  """Random weights with the published names, including counters as in the published file."""
  state = inception_weights(weights.torch_shapes(parameter_shapes()))
  state["Conv2d_1a_3x3.bn.num_batches_tracked"] = np.array(0)
  file = tmp_path_factory.mktemp("inception") / "weights.safetensors"
  save_file(state, file)
  return file


@pytest.fixture(scope="module")
def encoder(path):
  return load_inception(path)


@pytest.fixture(scope="module")
def images():
  images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), np.uint8)
  images[1] = np.linspace(0, 255, 299, dtype=np.uint8)[:, None, None]
  return images


@pytest.mark.slow
def test_features_and_logits_match_torch_fidelity(encoder, golden, images):
  """Random weights give features of several hundred, so the tolerance of 1e-5 is relative to them."""
  import jax

  pixels = np.stack([pixels_of(Image.fromarray(image), encoder.input) for image in images])
  found = jax.jit(encoder.outputs)(encoder.params, pixels)
  for name, array in (("features", found.features), ("logits", found.logits)):
    assert np.abs(array - golden[name]).max() < 1e-5 * np.abs(golden[name]).max(), name


@pytest.mark.parametrize("size", ["32x32", "299x299", "300x200", "640x480"])
def test_resizing_matches_clean_fid_and_tensorflow(golden, size):
  height, width = map(int, size.split("x"))
  pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
  image = Image.fromarray(pixels)
  for name, resize in (("clean", clean), ("legacy", legacy)):
    found = resize(image, 299)
    assert found.dtype == np.float32 and found.shape == (299, 299, 3)
    np.testing.assert_allclose(found[::7, ::7], golden[f"{name}/{size}"], atol=1e-3)


def test_the_name_refers_to_the_hubs_file(path, monkeypatch):
  asked = []

  def locate(name, revision, patterns):
    asked.append((name, patterns))
    return path.parent

  monkeypatch.setattr(image_encoder.checkpoints, "locate", locate)
  loaded = image_encoder.load_image_encoder("inception")
  ((hub, patterns),) = asked
  assert hub.count("/") == 1 and all(pattern.endswith(".safetensors") for pattern in patterns)
  assert loaded.fingerprint == image_encoder.load_image_encoder(f"inception:{path}").fingerprint
  assert not isinstance(loaded, image_encoder.TextEncoder)


@dataclasses.dataclass(frozen=True, eq=False)
class Corner:
  """An encoder with Inception's preprocessing and no computation."""

  input: ImageInput = INPUT
  params: dict = dataclasses.field(default_factory=dict)
  fingerprint: str = "corner"
  width: int = 12

  def embed_pixels(self, params, pixels):
    return pixels[:, 10:12, 10:12].reshape(len(pixels), -1)


def test_images_are_resized_as_requested(monkeypatch):
  monkeypatch.setitem(
    image_encoder.ENCODERS, "corner", image_encoder.Registration(lambda *_: Corner(), "zoo/clip")
  )
  image = np.random.default_rng(1).integers(0, 256, (64, 48, 3), np.uint8)
  plain, cleaned, old = (
    gb.embed_images(image, "corner", resize=way) for way in (None, "clean", "legacy")
  )
  np.testing.assert_array_equal(plain, cleaned)
  for found, resize in ((cleaned, clean), (old, legacy)):
    wanted = (resize(Image.fromarray(image), 299)[10:12, 10:12] - 128) / 128
    np.testing.assert_allclose(found[0], wanted.reshape(-1), atol=1e-5)
  with pytest.raises(UsageError, match="unknown resize method for this encoder 'crop'"):
    gb.embed_images(image, "corner", resize="crop")
  with pytest.raises(UsageError, match=r"unknown resize method .* 'clean'"):
    gb.embed_images(image, "zoo/clip", resize="clean")
  with pytest.raises(RunError, match="embeds images only"):
    gb.embed_texts("a text", "corner")


def test_other_files_are_rejected(tmp_path, path):
  (tmp_path / "weights.pth").write_bytes(b"PK")
  with pytest.raises(RunError, match="pickles are never opened: convert it with tools/convert_"):
    load_inception(tmp_path / "weights.pth")
  with pytest.raises(RunError, match="has 0 safetensors files, expected one"):
    load_inception(tmp_path)
  state = load_file(path)
  del state["fc.bias"]
  save_file(state, tmp_path / "cut.safetensors")
  with pytest.raises(RunError, match=r"lacks fc\.bias"):
    load_inception(tmp_path / "cut.safetensors")


def test_the_tool_rejects_other_files_and_networks(tmp_path):
  tool = [sys.executable, str(ROOT / "tools" / "convert_inception.py")]
  other = str(ROOT / "tests" / "data" / "torch_archive_zip.pth")
  for words, message in (
    ([], "the published file 6726825d0af5"),
    (["--any"], "is not the Inception-v3 of FID"),
  ):
    done = subprocess.run(
      [*tool, other, str(tmp_path / "out.safetensors"), *words],
      capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and message in done.stderr
  assert not (tmp_path / "out.safetensors").exists()
