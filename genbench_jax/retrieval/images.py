"""Where the image of a pool's row is on this machine."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.collection import Place, TarIndex, tar_index
from genbench_jax.retrieval.pool import Pool
from genbench_jax.store import files
from genbench_jax.store.reading import opened_beneath

# Which pools were made on this machine, and from which folders.
KNOWN = Path("~/.cache/genbench_jax/pools")

# What a line of metadata may say of where its image is.
PLACED_BY = ("tar", "offset", "size", "image_path", "key", "url")


class ImageFinder:
  """Finds images by the metadata of their rows, inside one folder only.

  Args:
    pool: whose rows they are.
    image_root: the folder or folder of tars that the metadata's paths, keys and urls are looked up in. A pool may
      name one itself inside its own folder, and the one that `genbench embed` made it from on this machine: a pool from
      elsewhere must not choose what is read.

  Raises:
    UsageError: no folder is given, and the pool names one outside of itself that it was not made from here.
  """

  def __init__(self, pool: Pool, image_root: str) -> None:
    root = Path(image_root).expanduser() if image_root else _own_images(pool)
    self.root = root.resolve() if root else None

  def place(self, line: dict[str, Any]) -> Place | None:
    """Where the image is; None where it isn't on this machine or the metadata point outside of the folder."""
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
    """The file of that name in the folder, if it is there, a regular file, and no link leads to it."""
    assert self.root is not None
    try:
      path = Path(name)
      relative = path.relative_to(self.root) if path.is_absolute() else path
      with opened_beneath(self.root, relative.as_posix()):
        return self.root / relative
    except (OSError, ValueError):  # another folder, a name too long, or with a zero byte
      return None

  @functools.cached_property
  def tars(self) -> list[str]:
    """The names of the tars in the folder."""
    return sorted(path.name for path in self.root.glob("*.tar")) if self.root else []

  @functools.cached_property
  def _in_tars(self) -> TarIndex:
    assert self.root is not None
    return tar_index([self.root / name for name in self.tars])


def remember_collection(pool: Path, collection: Path) -> None:
  """Note on this machine, outside of the pool, that its user has made a pool from a folder of images.

  The command line of `genbench embed` named the folder: that is the user's word that images may be read from there.
  """
  note = {"pool": str(pool.resolve()), "collection": str(collection.resolve())}
  with contextlib.suppress(
    RunError
  ):  # a home that can't be written to: then the user has to say it again
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
  """The folder of images that a pool names, which must be inside the pool; None where it names none."""
  given = pool.manifest.get("collection")
  if not isinstance(given, str) or not given:
    return None
  folder = (pool.folder / given).resolve()
  if folder.is_relative_to(pool.folder.resolve()) or _made_here(pool.folder, given):
    return folder
  raise UsageError(
    f"the pool {pool.folder} says that its images lie in {given!r}, outside of the pool. If that is right, say so"
    f" yourself: --config.retrieval.image_root={given}"
  )


def origin(line: dict[str, Any]) -> str:
  """Where an image came from, for people: its url, or else its path."""
  path = "/".join(str(line[key]) for key in ("tar", "image_path") if line.get(key))
  return str(line.get("url") or path or line.get("key") or "")
