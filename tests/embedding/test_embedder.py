"""Features do not depend on batch, padding or devices; prototypes are the mean over templates."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from genbench_jax.embedding import embedder as feature_module
from genbench_jax.embedding.embedder import (
  ImageEmbedder,
  fitting_batch,
  image_features,
  text_features,
  text_prototypes,
)
from genbench_jax.errors import RunError, UsageError


@pytest.fixture(scope="module")
def pixels():
  return np.random.default_rng(0).normal(size=(37, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def embedder(tiny_clip, mesh):
  return ImageEmbedder(tiny_clip, mesh, batch_per_device=2)


def test_batches_devices_and_padding_change_nothing(tiny_clip, embedder, one_device_mesh, pixels):
  features = embedder(pixels)
  assert features.shape == (37, 16) and features.dtype == np.float32
  one = ImageEmbedder(tiny_clip, one_device_mesh, batch_per_device=5)
  np.testing.assert_allclose(features, one(pixels), atol=2e-5)
  np.testing.assert_allclose(features[:3], embedder(pixels[:3]), atol=2e-5)


def test_stream_takes_the_next_batch_before_it_gives_the_last(embedder, pixels):
  taken = []

  def batches():
    for start in range(0, 37, 8):
      taken.append(start)
      yield pixels[start : start + 8]

  stream = embedder.stream(batches())
  first = next(stream)
  assert len(taken) == 1 + feature_module.IN_FLIGHT
  np.testing.assert_allclose(np.concatenate([first, *stream]), embedder(pixels), atol=2e-5)


def test_features_are_not_normalized(tiny_clip, mesh, pixels):
  norms = np.linalg.norm(image_features(tiny_clip, pixels[:8], mesh, batch_per_device=2), axis=-1)
  assert np.abs(norms - 1).min() > 0.1


def test_one_program_and_one_copy_of_the_parameters(tiny_clip, mesh, pixels):
  first, second = (ImageEmbedder(tiny_clip, mesh, 2) for _ in range(2))
  first(pixels)
  traced = first._program._cache_size()
  second(pixels[:9])
  assert second._program._cache_size() == traced
  assert first._params is second._params


def test_nothing_gives_nothing(tiny_clip, embedder, mesh, pixels):
  assert embedder(pixels[:0]).shape == (0, 16)
  assert text_features(tiny_clip, [], mesh).shape == (0, 16)


def test_wrong_shapes_are_named(embedder, pixels):
  with pytest.raises(
    UsageError, match=r"\(37, 32, 32, 3\), expected \[n, 32, 32, 3\], n at most 16"
  ):
    embedder.dispatch(pixels)


def test_text_features_do_not_depend_on_the_batch(tiny_clip, mesh, one_device_mesh):
  texts = [f"a photo of {index}" for index in range(9)]
  together = text_features(tiny_clip, texts, mesh)
  alone = np.concatenate([text_features(tiny_clip, [text], one_device_mesh) for text in texts])
  np.testing.assert_allclose(together, alone, atol=2e-5)


def test_prototypes_are_unit_norm_means_of_unit_norm_features(tiny_clip, mesh):
  names, templates = ["cat", "{dog}"], ["a photo of a {}", "{}", "a bad {}"]
  prototypes = text_prototypes(tiny_clip, names, templates, mesh)
  texts = ["a photo of a cat", "cat", "a bad cat", "a photo of a {dog}", "{dog}", "a bad {dog}"]
  features = text_features(tiny_clip, texts, mesh).astype(np.float64)
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  means = features.reshape(2, 3, 16).mean(1)
  wanted = means / np.linalg.norm(means, axis=1, keepdims=True)
  np.testing.assert_allclose(prototypes, wanted, atol=1e-5)


def test_classes_that_read_alike_are_told_of(tiny_clip, one_device_mesh, caplog):
  """ImageNet has two classes `missile`; long names are cut to the same tokens."""
  long = "very " * 30
  names = ["missile", "cat", "missile", f"{long}long", f"{long}short"]
  prototypes = text_prototypes(tiny_clip, names, ["a {}"], one_device_mesh)
  np.testing.assert_array_equal(prototypes[0], prototypes[2])
  assert "2 classes read like an earlier one" in caplog.text
  assert "0 and 2 ('missile')" in caplog.text and "3 and 4" in caplog.text


def test_a_text_tower_that_tells_no_tokens_apart_is_refused(tiny_clip, one_device_mesh):
  """A tokenizer of another checkpoint gives tokens that the tower has never seen: all classes look alike."""
  blind = jax.tree.map(lambda leaf: leaf, tiny_clip.params)
  table = blind["text_model"]["embeddings.token_embedding"]
  table["weight"] = np.ones_like(table["weight"])
  clip = dataclasses.replace(tiny_clip, params=blind)
  with pytest.raises(RunError, match="'cat' and 'dog' have the same text feature"):
    text_prototypes(clip, ["cat", "dog"], ["a {}"], one_device_mesh)


@pytest.mark.parametrize("rows,batch", [(0, 8), (1, 8), (8, 8), (9, 16), (17, 32), (1000, 128)])
def test_batches_are_powers_of_two_up_to_the_limit(rows, batch):
  assert fitting_batch(rows, devices=8, per_device=16) == batch


def test_batches_are_per_device(tiny_clip, one_device_mesh):
  assert ImageEmbedder(tiny_clip, one_device_mesh).batch_size == 32
  assert ImageEmbedder(tiny_clip, batch_per_device=3).batch_size == 3 * jax.local_device_count()


@pytest.mark.unchecked
@pytest.mark.parametrize(("pairs", "end"), [(1, "."), (5, "."), (6, "; ....")])
def test_five_classes_that_read_alike_are_named(caplog, pairs, end):
  """Features that differ in the sixth digit are equal up to rounding."""
  encoder = SimpleNamespace(tokenize=lambda texts: np.zeros((len(texts), 3), int))
  prototypes = np.tile([0.6, 0.8], (pairs + 1, 1)) + np.array([[2e-6, -2e-6]])
  prototypes[0] = 0.6, 0.8
  names = [f"class {number}" for number in range(pairs + 1)]
  feature_module._look_at_equal(encoder, prototypes, names, ["a {}"])
  (record,) = caplog.records
  message = record.getMessage()
  assert message.startswith(f"{pairs} classes read like") and message.endswith(end)
  assert message.count("0 and ") == min(pairs, 5)
