"""Location of a pool's images on this machine."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.place import Place
from genbench_jax.retrieval.pool import Pool
from genbench_jax.retrieval.tars import TarIndex, tar_index
from genbench_jax.store import files
from genbench_jax.store.image_files import visible
from genbench_jax.store.reading import opened_beneath

# Registry of the pools that were built on this machine, with the folders of their images.
KNOWN = Path("~/.cache/genbench_jax/pools")

# Metadata keys that say where an image is.
PLACED_BY = ("tar", "offset", "size", "image_path", "key", "url")


class ImageFinder:
  """Finds images by the metadata of their rows, inside a single folder.

  A downloaded pool must not decide which files are read. A pool may therefore name only a folder
  inside its own, or the one from which `genbench embed` built it on this machine.

  Args:
    pool: the pool.
    image_root: folder, or folder of tar files, in which the metadata's paths, keys and urls are
      looked up; empty for the folder that the pool names.

  Raises:
    UsageError: no folder is given, and the pool names one outside itself from which it was not
      built here.
  """

  def __init__(self, pool: Pool, image_root: str) -> None:
    root = Path(image_root).expanduser() if image_root else _own_images(pool)
    self.root = root.resolve() if root else None

  def place(self, line: dict[str, Any]) -> Place | None:
    """Return the place of an image; None if it is not on this machine or outside the folder."""
    if self.root is None:
      return None
    path, tar = str(line.get("image_path") or ""), str(line.get("tar") or "")
    if tar:
      inside = self._inside(tar)
      offset, size = line.get("offset"), line.get("size")
      if not (inside and isinstance(offset, int) and isinstance(size, int)):
        return None
      return Place(inside, offset, size, root=self.root) if offset >= 0 and size >= -1 else None
    if path and (inside := self._inside(path)):
      return Place(inside, root=self.root)
    names = (path, str(line.get("key") or ""))
    return self._in_tars.find(str(line.get("url") or ""), [name for name in names if name])

  def _inside(self, name: str) -> Path | None:
    """Return the named file if it is a regular file in the folder, reached without links."""
    assert self.root is not None
    try:
      path = Path(name)
      relative = path.relative_to(self.root) if path.is_absolute() else path
      # Opening beneath the root rejects links and `..` on the whole path.
      with opened_beneath(self.root, relative.as_posix()):
        return self.root / relative
    except (OSError, ValueError):  # in another folder, name too long, or with a null byte
      return None

  @functools.cached_property
  def tars(self) -> list[str]:
    """Names of the tar files in the folder."""
    return [path.name for path in visible(self.root, "*.tar")] if self.root else []

  @functools.cached_property
  def _in_tars(self) -> TarIndex:
    assert self.root is not None
    return tar_index([self.root / name for name in self.tars])


def remember_collection(pool: Path, collection: Path) -> None:
  """Record on this machine, outside the pool, from which folder its user built a pool.

  The user named the folder on the command line of `genbench embed` and thereby allowed reading
  images from it.
  """
  note = {"pool": str(pool.resolve()), "collection": str(collection.resolve())}
  # Without a writable home, the user has to give the folder again later.
  with contextlib.suppress(RunError):
    files.write_json(_note_path(pool), note)


def _made_here(pool: Path, collection: str) -> bool:
  try:
    note = files.read_json(_note_path(pool))
  except (FileNotFoundError, RunError):
    return False
  return note == {"pool": str(pool.resolve()), "collection": collection}


def _note_path(pool: Path) -> Path:
  return KNOWN.expanduser() / f"{files.digest(str(pool.resolve()))}.json"


def _own_images(pool: Pool) -> Path | None:
  """Return the image folder that a pool names, checked; None if it names none."""
  given = pool.manifest.get("collection")
  if not isinstance(given, str) or not given:
    return None
  folder = (pool.folder / given).resolve()
  if folder.is_relative_to(pool.folder.resolve()) or _made_here(pool.folder, given):
    return folder
  raise UsageError(
    f"the pool {pool.folder} says that its images are in {given!r}, outside of the pool. If that is correct, set"
    f" --config.retrieval.image_root={given}"
  )


def origin(line: dict[str, Any]) -> str:
  """Return where an image came from, for display: its url or its path."""
  path = "/".join(str(line[key]) for key in ("tar", "image_path") if line.get(key))
  return str(line.get("url") or path or line.get("key") or "")
