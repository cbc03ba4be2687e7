"""Features shard by shard: what is whole is kept, what is damaged is made again."""

import numpy as np

from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.embedding_shards import EmbeddingShards


def embeddings(begin, count):
  ids = np.arange(begin, begin + count, dtype=np.int64)
  features = np.outer(ids, [1, 2]).astype(np.float32)
  return EmbeddingSet(features, (ids % 3).astype(np.int32), ids, np.ones(count, np.uint8))


def test_shards_are_joined_in_their_order_and_removed(tmp_path):
  path = tmp_path / "features.safetensors"
  shards = EmbeddingShards(path, 3, {"clip": "x"})
  assert shards.missing() == [0, 1, 2]
  for shard, (begin, count) in ((2, (8, 2)), (0, (0, 4)), (1, (4, 4))):
    shards.write(shard, embeddings(begin, count))
  shards.join()
  np.testing.assert_array_equal(embedding_set.load(path).ids, np.arange(10))
  np.testing.assert_array_equal(embedding_set.load(path).features[:, 1], 2 * np.arange(10))
  assert [p.name for p in tmp_path.iterdir()] == [path.name]
  assert shards.missing() == []
  before = path.read_bytes()
  shards.join()
  assert path.read_bytes() == before


def test_damaged_shards_are_missing(tmp_path):
  shards = EmbeddingShards(tmp_path / "features.safetensors", 2, {})
  for shard in range(2):
    shards.write(shard, embeddings(4 * shard, 4))
  assert shards.missing() == []
  file = sorted(tmp_path.rglob("*-of-*"))[1]
  file.write_bytes(file.read_bytes()[:-1] + b"!")
  assert shards.missing() == [1]
