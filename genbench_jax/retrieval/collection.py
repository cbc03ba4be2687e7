"""Images to make a pool from: a folder with captions beside them, tars of a webdataset, or what TFDS prepared, read in place.

Nothing is unpacked and no path inside a tar is ever opened, so that a hostile tar can't reach outside itself. Links and names
that climb out are left out and counted.
"""

import contextlib
import dataclasses
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from genbench_jax.benchmark.archives import MAX_IMAGE_BYTES
from genbench_jax.benchmark.reader import IMAGE_SUFFIXES
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.records import (
  INFO,
  RecordFile,
  holds_records,
  image_of,
  record_files,
  text_of,
)
from genbench_jax.store import files

Kind = Literal["images", "tar", "records", "features"]
# Of TFDS's laion400m/embeddings.
IMAGE_FEATURES, TEXT_FEATURES = "image_embedding", "text_embedding"
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
_MAX_CAPTION_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the bytes of an image are: a whole file, `size` bytes of a tar from `offset` on, or record number `offset`."""

  path: Path
  offset: int = 0
  size: int = -1

  def read(self) -> bytes:
    """The bytes, at most `MAX_IMAGE_BYTES`.

    Raises:
      OSError: they can't be read, or are too many.
    """
    if holds_records(self.path):
      content = image_of(self.path, self.offset)
    else:
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
    name: its path in the folder or tar, or the number of its record.
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
  """Some images of a collection that become one shard: a stretch of a folder, or one file. Listed when it is needed.

  Attributes:
    root: the folder of the collection.
    files: images, or one file of many images.
    kind: `images`, a `tar`, `records` with an image each, or records with `features` alone.
  """

  root: Path
  files: tuple[Path, ...]
  kind: Kind

  @property
  def name(self) -> str:
    first = self.files[0].relative_to(self.root).as_posix()
    return f"{first} and {len(self.files) - 1} more" if self.kind == "images" else first

  def fingerprint(self) -> str:
    """Identity of the files, from names, sizes and times."""
    about = [(p.relative_to(self.root).as_posix(), p.stat()) for p in self.files]
    return files.digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in about])

  def listing(self) -> Listing:
    """The images.

    Raises:
      RunError: a tar is damaged or compressed, or a file of records can't be read.
    """
    if self.kind == "images":
      return _folder_listing(self.root, self.files)
    return (_tar_listing if self.kind == "tar" else _record_listing)(self.files[0])


def open_collection(path: Path, per_part: int) -> list[Part]:
  """The parts of a folder of images, of tars, or of a dataset by TFDS, or of a tar, in name order.

  Args:
    path: the folder or tar.
    per_part: images of a folder that make a part. A tar or a file of records is one part, however large.

  Raises:
    UsageError: there are no images.
    RunError: a file of records can't be read.
  """
  if path.is_file() and path.suffix == ".tar":
    return [Part(path.parent, (path,), "tar")]
  if not path.is_dir():
    raise UsageError(f"{str(path)!r} is neither a folder nor a .tar.")
  if tars := sorted(path.glob("*.tar")):
    return [Part(path, (tar,), "tar") for tar in tars]
  if (path / INFO).exists():
    return _prepared_parts(path)
  images = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
  if not images:
    raise UsageError(
      f"{path} holds neither .tar files nor images ({', '.join(sorted(IMAGE_SUFFIXES))})."
    )
  starts = range(0, len(images), per_part)
  return [Part(path, tuple(images[start : start + per_part]), "images") for start in starts]


def _prepared_parts(folder: Path) -> list[Part]:
  """The parts of a dataset as TFDS prepared it; the first record says what is in it."""
  paths = record_files(folder)
  files_of_some = (file for path in paths if len(file := RecordFile(path)))
  names = next((file.read([0])[0] for file in files_of_some), {})
  kind: Kind
  if {IMAGE_FEATURES, TEXT_FEATURES} <= set(names):
    kind = "features"
  elif "image" in names:
    kind = "records"
  else:
    raise UsageError(
      f"{folder} holds no records with an 'image', nor with '{IMAGE_FEATURES}' and '{TEXT_FEATURES}':"
      f" wanted a dataset such as TFDS's laion400m as ArrayRecord or TFRecord; found {sorted(names) or 'none'}."
    )
  return [Part(folder, (path,), kind) for path in paths]


def _record_listing(path: Path) -> Listing:
  file = RecordFile(path)
  entries = []
  for number in range(len(file)):
    (record,) = file.read([number])
    place, caption = Place(path, number), text_of(record, "caption")
    entries.append(Entry(f"{number:08d}", place, caption, text_of(record, "url")))
  return Listing(entries, 0)


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
  """Where the images of tars are, by key, by member name, and by url; of equals the first."""
  found: dict[str, Place] = {}
  for path in tars:
    for entry in _tar_listing(path).entries:
      for known in (entry.name, _key_and_suffix(PurePosixPath(entry.name))[0], entry.url):
        if known:
          found.setdefault(known, entry.place)
  return found
