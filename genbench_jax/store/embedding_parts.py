"""Embedding sets under construction: fixed ranges of rows, one file each, joined when all are complete.

The ranges do not depend on the number of processes, so that any number of processes can continue a stopped
run. A set with a single part is written directly as the final file.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet

# A few seconds of work on an accelerator, which is what a stopped run loses at most.
PART_ROWS = 16384


class EmbeddingParts:
  """The parts of an embedding set.

  Args:
    path: the final file.
    size: number of rows of the set.
    made_from: metadata to store with the arrays.
    rows: rows per part.
  """

  def __init__(self, path: Path, size: int, made_from: Mapping[str, str], rows: int = PART_ROWS):
    self.path, self.made_from = path, made_from
    self.ranges = [range(start, min(start + rows, size)) for start in range(0, max(size, 1), rows)]
    self.folder = path.with_name(f".{path.name}.parts")

  def __len__(self) -> int:
    return len(self.ranges)

  def is_missing(self, part: int) -> bool:
    """Return whether a part has not been written."""
    return not self._path(part).exists()

  def is_whole(self) -> bool:
    """Return whether all parts have been written."""
    return not any(self.is_missing(part) for part in range(len(self)))

  def write(self, part: int, embeddings: EmbeddingSet) -> None:
    """Write one part."""
    embedding_set.save(self._path(part), embeddings, self.made_from)

  def join(self) -> None:
    """Join the parts to the final file. Every part must have been written.

    Raises:
      RunError: a part is damaged.
    """
    if len(self) > 1 and not self.path.exists():
      parts = [embedding_set.load(self._path(part)) for part in range(len(self))]
      embedding_set.save(self.path, embedding_set.concatenated(parts), self.made_from)
    with contextlib.suppress(FileNotFoundError):
      shutil.rmtree(self.folder)

  def _path(self, part: int) -> Path:
    if len(self) == 1:
      return self.path
    return self.folder / f"{part:05d}-of-{len(self):05d}.safetensors"
