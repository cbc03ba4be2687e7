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
    places: for each image the file that it is in, a folder and a path below it.
    marks: for each image what tells it from the others in that file.
    read: index -> the encoded image.
    notes: what was left out, or where the images were found, a sentence each.
    named: classes that are there by name without an image, such as empty folders.
  """

  root: Path
  ids: Sequence[str]
  classes: Sequence[tuple[str, ...]]
  places: Sequence[tuple[Path, str]]
  marks: Sequence[Any]
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

  def image_list(self, root: Path, paths: Sequence[Path]) -> ImageList:
    """Return the images as a list.

    Args:
      root: what the images are said to be from.
      paths: the files that they were copied from; an image is named `FILE/ROW` if there are several.
    """
    place_of = {path.name: (path.parent, path.name) for path in paths}
    first = (paths[0].parent, paths[0].name)
    return ImageList(
      root,
      [row[0] for row in self.rows],
      [tuple(row[1]) for row in self.rows],
      [place_of.get(row[0].partition("/")[0], first) for row in self.rows],
      [row[2:] for row in self.rows],
      self.read,
    )


def spool_for(cache: Path, kind: str, paths: Sequence[Path]) -> Spool:
  """Return the spool of some files; changed files have another."""
  name = files.digest([kind, *([str(path.resolve()), *_identity(path)] for path in paths)])
  return Spool(cache / f"{kind}-{name}.images")


def _identity(path: Path) -> list[int]:
  about = path.stat()
  return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def copy_name(path: Path) -> str:
  """Return a name for what is copied from a file; a changed file has another."""
  return files.digest([str(path.resolve()), *_identity(path)])
