"""Copies of images that can't be read in place, each kept in one file with a seal beside it."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from genbench_jax.benchmark.inputs.image_list import ImageList
from genbench_jax.errors import RunError
from genbench_jax.runtime.printable import listed
from genbench_jax.store import files
from genbench_jax.store.digests import FileDigests, identity


class Spool:
  """Images that can't be read in place, concatenated in one file to save memory.

  Args:
    path: the file, see `ensure_copy`.
  """

  def __init__(self, path: Path) -> None:
    self.path = path
    self._lock = threading.Lock()
    self._descriptor: int | None = None
    self.rows: list[list[Any]] = []

  def fill(self, images: Callable[[], Iterable[tuple[str, tuple[str, ...], bytes]]]) -> "Spool":
    """Copy (id, classes, content) of every image, unless that was done before."""

    def write(out: IO[bytes]) -> list[list[Any]]:
      rows, begin = [], 0
      for name, classes, content in images():
        out.write(content)
        rows.append([name, list(classes), begin, len(content)])
        begin += len(content)
      return rows

    self.rows = ensure_copy(self.path, write)
    return self

  def read(self, index: int) -> bytes:
    """Return an image.

    Raises:
      RunError: the file no longer exists.
    """
    _, _, begin, size = self.rows[index]
    with self._lock:
      if self._descriptor is None:
        try:
          self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
          raise RunError(
            f"{self.path} can't be read ({error.strerror}). Run the same command again."
          ) from error
    return os.pread(self._descriptor, size, begin)

  def __del__(self) -> None:
    if self._descriptor is not None:
      os.close(self._descriptor)

  def image_list(self, root: Path, paths: Sequence[Path]) -> ImageList:
    """Return the images as a list; rows without content or class are left out, with a note.

    Args:
      root: input that the images came from, for messages.
      paths: files that they were copied from; with several, an image is named `FILE/ROW`.
    """
    place_of = {path.name: (path.parent, path.name) for path in paths}
    first = (paths[0].parent, paths[0].name)
    kept = [index for index, row in enumerate(self.rows) if row[1] and row[3]]
    rows = [self.rows[index] for index in kept]
    without = [row[0] for row in self.rows if not (row[1] and row[3])]
    note = f"{len(without)} left out, without image bytes or class: {listed(without)}."
    return ImageList(
      root,
      [row[0] for row in rows],
      [tuple(row[1]) for row in rows],
      [place_of.get(row[0].partition("/")[0], first) for row in rows],
      [row[2:] for row in rows],
      lambda index: self.read(kept[index]),
      (note,) if without else (),
    )


def ensure_copy(path: Path, write: Callable[[IO[bytes]], list[Any]]) -> list[Any]:
  """Write a copy and its seal, unless the copy is there and intact; return what `write` returned.

  The digest of an input is that of the user's file. Without the seal, a damaged copy would be read
  as that file.

  Args:
    path: the copy; the seal is next to it. Their folder remembers the digests of all copies.
    write: writes the content to a file and returns JSON values to store in the seal.
  """
  seal = path.with_suffix(".json")
  known = FileDigests(path.parent / "copies.json")
  found = _sealed(seal)
  if found is None or [found["files"].get(path.name)] != known.of([(path.parent, path.name)]):
    with files.atomic_path(path) as temporary, temporary.open("wb") as out:
      rows = write(out)
    files.write_json(seal, {"files": {path.name: files.sha256(path)}, "rows": rows})
    return rows
  return list(found["rows"])


def _sealed(seal: Path) -> dict[str, Any] | None:
  """Return a copy's checksum and rows; None if there is no intact seal."""
  try:
    found = files.read_json(seal)
  except (FileNotFoundError, RunError):
    return None
  return found if isinstance(found, dict) and {"files", "rows"} <= found.keys() else None


def spool_for(cache: Path, kind: str, paths: Sequence[Path]) -> Spool:
  """Return the spool for some files; changed files get a new one.

  Args:
    cache: folder of all spools.
    kind: format of the input; part of the name.
    paths: files that the images come from. Their size and times are part of the name.
  """
  name = files.digest([kind, *map(copy_name, paths)])
  return Spool(cache / f"{kind}-{name}.images")


def copy_name(path: Path) -> str:
  """Return a name for a copy of a file; a changed file gets a new name."""
  return files.digest([str(path.resolve()), *identity(path.stat())])
