"""Embedding files are read exactly as written, or rejected."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_parts import EmbeddingParts
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


@pytest.mark.parametrize(
  ("size", "rows", "cuts"),
  [(10, 4, [0, 4, 8, 10]), (8, 4, [0, 4, 8]), (4, 4, [0, 4]), (1, 4, [0, 1]), (1, 1, [0, 1]), (0, 4, [0, 0]),
   (16_385, None, [0, 16_384, 16_385])],
)  # fmt: skip
def test_parts_cover_the_rows_in_order(tmp_path, size, rows, cuts):
  parts = EmbeddingParts(tmp_path / "e", size, {}, *([rows] if rows else []))
  assert parts.ranges == [range(*ends) for ends in itertools.pairwise(cuts)]
  assert len(parts) == len(cuts) - 1


def test_parts_are_joined_when_all_are_written(embeddings, tmp_path):
  parts = EmbeddingParts(tmp_path / "e.safetensors", 10, {"clip": "x"}, rows=5)
  parts.write(1, embeddings.take(np.arange(5)[::-1]))
  assert [parts.is_missing(part) for part in range(2)] == [True, False]
  assert not parts.is_whole() and not parts.path.exists()
  parts.write(0, embeddings)
  assert parts.is_whole()
  parts.join()
  found = embedding_set.load_embeddings(parts.path)
  assert found.ids.tolist() == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
  np.testing.assert_array_equal(found.features[5:], embeddings.features[::-1])


def test_a_single_part_is_the_file_itself(embeddings, tmp_path):
  parts = EmbeddingParts(tmp_path / "e.safetensors", 5, {}, rows=5)
  assert parts.is_missing(0)
  parts.write(0, embeddings)
  assert parts.is_whole() and parts.path.exists()
  parts.join()
  assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]


def test_images_of_several_classes_are_read_as_truth_values(embeddings, tmp_path):
  hot = np.eye(5, 3, dtype=np.uint8)
  embedding_set.save(tmp_path / "e", dataclasses.replace(embeddings, labels=hot), {})
  labels = embedding_set.load(tmp_path / "e").labels
  assert labels.dtype == bool and np.array_equal(labels, hot)


def test_bytes_do_not_depend_on_the_order_of_the_metadata(embeddings, tmp_path):
  embedding_set.save(tmp_path / "a", embeddings, {"clip": "x", "about": "y"})
  embedding_set.save(tmp_path / "b", embeddings, {"about": "y", "clip": "x"})
  assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_features_name_the_stage_that_makes_them(tmp_path):
  with pytest.raises(RunError, match="Run the stage `embed` first"):
    embedding_set.load_embeddings(tmp_path / "none")


@pytest.mark.parametrize("version", [None, 1, 2])
def test_files_of_the_first_version_do_not_state_their_format(embeddings, tmp_path, version):
  from safetensors.numpy import save

  arrays = {name: getattr(embeddings, name) for name in ("features", "labels", "ids", "valid")}
  about = {"clip": "x", "checksum": embedding_set._checksum(arrays, {"clip": "x"})}
  about |= {} if version is None else {"format": version}
  (tmp_path / "e").write_bytes(save(arrays, metadata={"genbench_jax": json.dumps(about)}))
  if version == 2:
    with pytest.raises(RunError, match="has format 2"):
      embedding_set.load(tmp_path / "e")
  else:
    assert embedding_set.load(tmp_path / "e").ids.tolist() == [0, 1, 2, 3, 4]
