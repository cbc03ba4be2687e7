"""Where the image of a pool's row is on this machine."""

import functools
from pathlib import Path
from typing import Any

from genbench_jax.retrieval.collection import Place, places_by_key
from genbench_jax.retrieval.pool import Pool


class ImageFinder:
  """Finds images by the metadata of their rows, inside one folder only.

  Args:
    pool: whose rows they are.
    image_root: the folder or folder of tars that the metadata's paths, keys and urls are looked up in; empty for a pool
      by `genbench_jax.embed`, which knows where its images came from.
  """

  def __init__(self, pool: Pool, image_root: str) -> None:
    given = image_root or pool.manifest.get("collection", "")
    self.root = Path(given).expanduser().resolve() if given else None

  def place(self, line: dict[str, Any]) -> Place | None:
    """Where the image is; None where it isn't on this machine or the metadata point outside of the folder."""
    if self.root is None:
      return None
    path, tar = str(line.get("image_path") or ""), str(line.get("tar") or "")
    if tar:
      inside = self._inside(tar)
      return Place(inside, int(line["offset"]), int(line["size"])) if inside else None
    if path and (inside := self._inside(path)):
      return Place(inside)
    keys = (path, str(line.get("key") or ""), str(line.get("url") or ""))
    return next((self._in_tars[key] for key in keys if key in self._in_tars), None)

  def _inside(self, name: str) -> Path | None:
    """The file of that name in the folder, if it is there and really inside."""
    assert self.root is not None
    try:
      path = (self.root / name).resolve()
      return path if path.is_relative_to(self.root) and path.is_file() else None
    except (OSError, ValueError):  # a name too long, or with a zero byte
      return None

  @functools.cached_property
  def _in_tars(self) -> dict[str, Place]:
    assert self.root is not None
    return places_by_key(sorted(self.root.glob("*.tar")))


def origin(line: dict[str, Any]) -> str:
  """Where an image came from, for people: its url, or else its path."""
  path = "/".join(str(line[key]) for key in ("tar", "image_path") if line.get(key))
  return str(line.get("url") or path or line.get("key") or "")
