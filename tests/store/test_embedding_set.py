"""Embedding files are read exactly as written, or rejected."""

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet


@pytest.fixture
def embeddings():
  rng = np.random.default_rng(0)
  return EmbeddingSet(
    rng.normal(size=(5, 4)).astype(np.float32),
    np.array([0, 1, 2, 0, 1], np.int32),
    np.arange(5),
    np.array([1, 1, 0, 1, 1], np.uint8),
  )


def test_round_trip_without_unreadable_rows(embeddings, tmp_path):
  path = tmp_path / "e.safetensors"
  embedding_set.save(path, embeddings, {"clip": "x"})
  loaded = embedding_set.load(path)
  np.testing.assert_array_equal(loaded.features, embeddings.features)
  np.testing.assert_array_equal(loaded.readable().ids, [0, 1, 3, 4])
  np.testing.assert_array_equal(loaded.readable().labels, [0, 1, 0, 1])


def test_the_same_features_give_the_same_bytes(embeddings, tmp_path):
  for name in "ab":
    embedding_set.save(tmp_path / name, embeddings, {"clip": "x", "more": "y"})
  assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_is_detected(embeddings, tmp_path, damage):
  path = tmp_path / "e.safetensors"
  embedding_set.save(path, embeddings, {})
  data = bytearray(path.read_bytes())
  if damage == "flip":
    data[-3] ^= 1
  path.write_bytes(bytes(data[:-20] if damage == "cut" else data))
  with pytest.raises(RunError, match=r"damaged.*Delete it, then run again"):
    embedding_set.load(path)


def test_a_kill_before_the_parts_are_deleted_leaves_the_joined_file(embeddings, tmp_path):
  from genbench_jax.store.embedding_parts import EmbeddingParts

  parts = EmbeddingParts(tmp_path / "e.safetensors", 10, {"clip": "x"}, rows=5)
  for part in range(2):
    parts.write(part, embeddings)
  parts.join()
  joined = parts.path.read_bytes()
  assert not parts.folder.exists()
  parts.write(0, embeddings)  # one part, as if the folder was only partly deleted
  parts.join()
  assert parts.path.read_bytes() == joined
  assert not parts.folder.exists()
