"""Where an image's bytes are: a file, a part of a tar, or a record."""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from genbench_jax.benchmark.archives import MAX_IMAGE_BYTES
from genbench_jax.retrieval.records import holds_records, image_of
from genbench_jax.runtime.printable import printable
from genbench_jax.store.reading import opened_beneath


@dataclasses.dataclass(frozen=True)
class Place:
  """Location of an image's bytes: a file, `size` bytes of a tar, or a record.

  Attributes:
    path: the file.
    offset: first byte, or number of the record.
    size: number of bytes; -1 for the whole file.
    root: folder above `path` below which no link is followed; None for the parent folder.
  """

  path: Path
  offset: int = 0
  size: int = -1
  root: Path | None = None

  def read(self) -> bytes:
    """Return the bytes, at most `MAX_IMAGE_BYTES`.

    Raises:
      OSError: they cannot be read, or are too many.
    """
    if holds_records(self.path):
      content = image_of(self.path, self.offset)
    else:
      root = self.root or self.path.parent
      content = _slice(root, str(self.path.relative_to(root)), self.offset, self.size)
    if len(content) > MAX_IMAGE_BYTES or (self.size >= 0 and len(content) < self.size):
      raise OSError(f"{self.path} holds an image that is cut short or exceeds the limit")
    return content


def _slice(root: Path, name: str, offset: int, size: int) -> bytes:
  """Return bytes of a file below a folder: at most the limit plus one, all if `size` < 0."""
  # One byte more than allowed, so that the caller can tell an oversized image from a full one.
  wanted = MAX_IMAGE_BYTES + 1 if size < 0 else min(size, MAX_IMAGE_BYTES + 1)
  if offset < 0:
    raise OSError(f"{printable(name)} has no byte {offset}")
  with opened_beneath(root, name) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
    try:
      file.seek(offset)
    except (OverflowError, ValueError) as error:  # by its size, one or the other
      raise OSError(f"{printable(name)} has no byte {offset}") from error
    return file.read(wanted)


@dataclasses.dataclass(frozen=True)
class Entry:
  """An image of a collection.

  Attributes:
    name: its path in the folder or tar, or the number of its record.
    place: location of its bytes.
    caption: its caption; empty if there is none.
    url: its url, if the caption's JSON has one.
  """

  name: str
  place: Place
  caption: str = ""
  url: str = ""


class Listing(NamedTuple):
  """Images of a part, and how many were skipped: links, climbing names, duplicates, too large."""

  entries: list[Entry]
  left_out: int
