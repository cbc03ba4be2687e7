"""An embedding set in the making: fixed ranges of its rows, each a file, joined to the one file when all are there.

The parts do not depend on how many processes there are: those of a run that was stopped are taken over by any number
of others. A set of a single part is written as the one file at once.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet

# Seconds of work on an accelerator, and what is lost at most when a run is stopped.
PART_ROWS = 16384


class EmbeddingParts:
  """The parts of one embedding set.

  Args:
    path: of the one file.
    size: rows of the set.
    made_from: what is stored beside the arrays.
  """

  def __init__(self, path: Path, size: int, made_from: Mapping[str, str], rows: int = PART_ROWS):
    self.path, self.made_from = path, made_from
    self.ranges = [range(start, min(start + rows, size)) for start in range(0, max(size, 1), rows)]
    self.folder = path.with_name(f".{path.name}.parts")

  def __len__(self) -> int:
    return len(self.ranges)

  def is_missing(self, part: int) -> bool:
    """Whether a part is not there."""
    return not self._path(part).exists()

  def is_whole(self) -> bool:
    """Whether all parts are there."""
    return not any(self.is_missing(part) for part in range(len(self)))

  def write(self, part: int, embeddings: EmbeddingSet) -> None:
    """Writes one part."""
    embedding_set.save(self._path(part), embeddings, self.made_from)

  def join(self) -> None:
    """Writes the one file. Every part must be there.

    Raises:
      RunError: a part is damaged; it is named.
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
