"""Images to make a pool from: a folder with captions beside the images, or tars of a webdataset, read in place.

Nothing is unpacked and no path inside a tar is ever opened, so that a hostile tar can't reach outside itself. Links and names
that climb out are left out and counted.
"""

import contextlib
import dataclasses
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from genbench_jax.benchmark.archives import MAX_IMAGE_BYTES
from genbench_jax.benchmark.reader import IMAGE_SUFFIXES
from genbench_jax.errors import RunError, UsageError
from genbench_jax.store import files

CAPTION_SUFFIXES = (".txt", ".caption", ".json")
_MAX_CAPTION_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the bytes of an image are: a whole file, or `size` bytes of a tar from `offset` on."""

  path: Path
  offset: int = 0
  size: int = -1

  def read(self) -> bytes:
    """The bytes, at most `MAX_IMAGE_BYTES`.

    Raises:
      OSError: they can't be read, or are too many.
    """
    with self.path.open("rb") as file:
      file.seek(self.offset)
      content = file.read(MAX_IMAGE_BYTES + 1 if self.size < 0 else self.size)
    if len(content) > MAX_IMAGE_BYTES or (self.size >= 0 and len(content) < self.size):
      raise OSError(f"{self.path} holds an image that is cut short or above the limit")
    return content


@dataclasses.dataclass(frozen=True)
class Entry:
  """An image of a collection.

  Attributes:
    name: its path in the folder or tar.
    place: where its bytes are.
    caption: what stands beside it; empty where nothing does.
    url: where it came from, if the caption's JSON says so.
  """

  name: str
  place: Place
  caption: str = ""
  url: str = ""


class Listing(NamedTuple):
  """The images of a part, and how many were left out: links, names that climb out, doubles, too large ones."""

  entries: list[Entry]
  left_out: int


@dataclasses.dataclass(frozen=True)
class Part:
  """Some images of a collection that become one shard: a tar, or a stretch of a folder. Listed when it is needed.

  Attributes:
    root: the folder of the collection.
    files: one tar, or images.
    is_tar: which of the two.
  """

  root: Path
  files: tuple[Path, ...]
  is_tar: bool

  @property
  def name(self) -> str:
    first = self.files[0].relative_to(self.root).as_posix()
    return first if self.is_tar else f"{first} and {len(self.files) - 1} more"

  def fingerprint(self) -> str:
    """Identity of the files, from names, sizes and times."""
    about = [(p.relative_to(self.root).as_posix(), p.stat()) for p in self.files]
    return files.digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in about])

  def listing(self) -> Listing:
    """The images.

    Raises:
      RunError: a tar is damaged or compressed.
    """
    return _tar_listing(self.files[0]) if self.is_tar else _folder_listing(self.root, self.files)


def open_collection(path: Path, per_part: int) -> list[Part]:
  """The parts of a folder of images, of a folder of tars, or of a tar, in name order.

  Args:
    path: the folder or tar.
    per_part: images of a folder that make a part. A tar is one part, however large.

  Raises:
    UsageError: there are no images.
  """
  if path.is_file() and path.suffix == ".tar":
    return [Part(path.parent, (path,), is_tar=True)]
  if not path.is_dir():
    raise UsageError(f"{str(path)!r} is neither a folder nor a .tar.")
  if tars := sorted(path.glob("*.tar")):
    return [Part(path, (tar,), is_tar=True) for tar in tars]
  images = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
  if not images:
    raise UsageError(
      f"{path} holds neither .tar files nor images ({', '.join(sorted(IMAGE_SUFFIXES))})."
    )
  starts = range(0, len(images), per_part)
  return [Part(path, tuple(images[start : start + per_part]), is_tar=False) for start in starts]


def _folder_listing(root: Path, paths: Sequence[Path]) -> Listing:
  inside = [p for p in paths if p.is_file() and p.resolve().is_relative_to(root.resolve())]
  entries = [Entry(p.relative_to(root).as_posix(), Place(p), *_caption_beside(p)) for p in inside]
  return Listing(entries, len(paths) - len(inside))


def _caption_beside(image: Path) -> tuple[str, str]:
  found = {
    suffix: path.read_bytes()[:_MAX_CAPTION_BYTES]
    for suffix in CAPTION_SUFFIXES
    if (path := image.with_suffix(suffix)).is_file()
  }
  return caption_of(found)


def caption_of(beside: dict[str, bytes]) -> tuple[str, str]:
  """Caption and url from the files beside an image, by suffix; plain text before JSON."""
  texts = [_decoded(beside[suffix]).strip() for suffix in CAPTION_SUFFIXES[:2] if suffix in beside]
  about: object = {}
  with contextlib.suppress(ValueError):
    about = json.loads(_decoded(beside.get(".json", b"{}")))
  if not isinstance(about, dict):
    about = {}
  from_json = (str(about[key]).strip() for key in ("caption", "text") if about.get(key))
  return next(filter(None, (*texts, *from_json)), ""), str(about.get("url") or "")


def _decoded(content: bytes) -> str:
  return content.decode("utf-8", errors="replace")


def _tar_listing(path: Path) -> Listing:
  """The images of a tar with what stands beside them under the same key, as webdataset has it."""
  images: dict[str, Entry] = {}
  beside: dict[str, dict[str, bytes]] = {}
  left_out = 0
  for info, tar in _members(path):
    if info.isdir():
      continue
    name = PurePosixPath(info.name)
    key, suffix = _key_and_suffix(name)
    if not info.isreg() or info.issparse() or name.is_absolute() or ".." in name.parts:
      left_out += 1
    elif suffix in IMAGE_SUFFIXES:
      if key in images or info.size > MAX_IMAGE_BYTES:
        left_out += 1
      else:
        images[key] = Entry(name.as_posix(), Place(path, info.offset_data, info.size))
    elif suffix in CAPTION_SUFFIXES and info.size <= _MAX_CAPTION_BYTES:
      handle = tar.extractfile(info)
      assert handle is not None
      beside.setdefault(key, {}).setdefault(suffix, handle.read())
  entries = []
  for key, entry in images.items():
    caption, url = caption_of(beside.get(key, {}))
    entries.append(dataclasses.replace(entry, caption=caption, url=url))
  return Listing(entries, left_out)


def _key_and_suffix(name: PurePosixPath) -> tuple[str, str]:
  """A member's key, its path up to the first dot of the file name, and what follows."""
  stem, _, extension = name.name.partition(".")
  return (name.parent / stem).as_posix(), f".{extension.lower()}"


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
  """The members of an uncompressed tar, whose images can be read in place.

  Raises:
    RunError: the tar is damaged or compressed.
  """
  try:
    with tarfile.open(path, "r:") as tar:
      for info in tar:
        yield info, tar
  except (tarfile.TarError, EOFError, OSError) as error:
    raise RunError(
      f"{path} can't be read as an uncompressed tar ({error}). Unpack its compression first."
    ) from error


def places_by_key(tars: Sequence[Path]) -> dict[str, Place]:
  """Where the images of tars are, by key and by member name; of equals the first."""
  found: dict[str, Place] = {}
  for path in tars:
    for entry in _tar_listing(path).entries:
      for known in (entry.name, _key_and_suffix(PurePosixPath(entry.name))[0]):
        found.setdefault(known, entry.place)
  return found
