"""The features of an image set while it is being made: a file a shard, joined to one when all are there."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from genbench_jax.errors import RunError
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet


class EmbeddingShards:
  """Shards beside the file that they will make.

  Args:
    path: of the joined file.
    count: of shards.
    made_from: kept in the joined file.
  """

  def __init__(self, path: Path, count: int, made_from: Mapping[str, str]) -> None:
    self.path, self.count, self.made_from = path, count, made_from
    self._folder = path.with_suffix(".shards")

  def missing(self) -> list[int]:
    """The shards that are not there whole; none where they have been joined."""
    if self.path.exists():
      return []
    return [shard for shard in range(self.count) if not self._is_whole(shard)]

  def write(self, shard: int, embeddings: EmbeddingSet) -> None:
    """Writes one shard, whole or not at all."""
    embedding_set.save(self._shard_path(shard), embeddings, {})

  def join(self) -> None:
    """Makes one file of all shards, in their order, and removes them."""
    if not self.path.exists():
      shards = [embedding_set.load(self._shard_path(shard)) for shard in range(self.count)]
      embedding_set.save(self.path, embedding_set.concatenate(shards), self.made_from)
    shutil.rmtree(self._folder, ignore_errors=True)

  def _is_whole(self, shard: int) -> bool:
    path = self._shard_path(shard)
    try:
      return path.exists() and len(embedding_set.load(path)) > 0
    except RunError:
      return False

  def _shard_path(self, shard: int) -> Path:
    return self._folder / f"{shard:05d}-of-{self.count:05d}.safetensors"
