"""What every form of input gives: images in an order, each with the class that its owner wrote."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.store import files


@dataclasses.dataclass(frozen=True)
class ImageList:
  """The images of an input before any is decoded or any class is matched.

  Attributes:
    root: what was opened.
    ids: a name for each image: its path inside of the root, or its place.
    classes: the names that each image's class is given. Names of several classes are a contradiction.
    identities: for each image what changes when the image does.
    read: index -> the encoded image.
    notes: what was left out, or where the images were found, a sentence each.
    named: classes that are there by name without an image, such as empty folders.
  """

  root: Path
  ids: Sequence[str]
  classes: Sequence[tuple[str, ...]]
  identities: Sequence[Sequence[Any]]
  read: Callable[[int], bytes]
  notes: tuple[str, ...] = ()
  named: tuple[str, ...] = ()


class Spool:
  """Images that can't be read in place, copied one behind the other into one file, so that memory stays small.

  Args:
    path: of the file; beside it lies an index. What is there already is used again.
  """

  def __init__(self, path: Path) -> None:
    self.path = path
    self._index = path.with_suffix(".json")
    self._lock = threading.Lock()
    self._descriptor: int | None = None
    self.rows: list[list[Any]] = []

  def fill(self, images: Callable[[], Iterable[tuple[str, tuple[str, ...], bytes]]]) -> "Spool":
    """Copy (id, classes, content) of every image, unless that has been done."""
    if not self._index.exists():
      rows, begin = [], 0
      with files.atomic_path(self.path) as temporary, temporary.open("wb") as out:
        for name, classes, content in images():
          out.write(content)
          rows.append([name, list(classes), begin, len(content)])
          begin += len(content)
      files.write_json(self._index, rows)
    self.rows = files.read_json(self._index)
    return self

  def read(self, index: int) -> bytes:
    """Return an image.

    Raises:
      RunError: the file has gone.
    """
    _, _, begin, size = self.rows[index]
    with self._lock:
      if self._descriptor is None:
        try:
          self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
          raise RunError(
            f"{self.path} can't be read ({error.strerror}). Delete {self._index}, then run again."
          ) from error
    return os.pread(self._descriptor, size, begin)

  def __del__(self) -> None:
    if self._descriptor is not None:
      os.close(self._descriptor)

  def image_list(self, root: Path, identity: Sequence[Any], notes: Sequence[str]) -> ImageList:
    """Return the images as a list; each is known by the identity of the file and its place in it."""
    return ImageList(
      root,
      [row[0] for row in self.rows],
      [tuple(row[1]) for row in self.rows],
      [[*identity, row[2], row[3]] for row in self.rows],
      self.read,
      tuple(notes),
    )


def identity_of(path: Path) -> list[int]:
  """Return size and time of modification of a file."""
  about = path.stat()
  return [about.st_size, about.st_mtime_ns]


def spool_for(cache: Path, kind: str, paths: Sequence[Path]) -> Spool:
  """Return the spool of some files; changed files have another."""
  name = files.digest([kind, *([str(path.resolve()), *identity_of(path)] for path in paths)])
  return Spool(cache / f"{kind}-{name}.images")
