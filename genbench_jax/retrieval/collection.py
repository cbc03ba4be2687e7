"""Collections of images to build pools from: folders with captions, webdataset tars, TFDS.

They are read in place. Nothing is unpacked and no path inside a tar is opened, so a malicious tar
cannot reach outside itself. Links and names that climb out are skipped and counted.
"""

import contextlib
import dataclasses
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from genbench_jax.benchmark.archives import MAX_IMAGE_BYTES
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.records import (
  INFO,
  RecordFile,
  holds_records,
  image_of,
  record_files,
  text_of,
)
from genbench_jax.runtime.printable import listed, printable
from genbench_jax.runtime.progress import say
from genbench_jax.store import files
from genbench_jax.store.digests import identity
from genbench_jax.store.image_files import (
  SIGNATURE_BYTES,
  ImageWalk,
  begins_like_image,
  image_suffixes,
  is_hidden,
  visible,
)
from genbench_jax.store.reading import opened_beneath, read_beneath

Kind = Literal["images", "tar", "records", "features"]
# Feature names in TFDS's laion400m/embeddings.
IMAGE_FEATURES, TEXT_FEATURES = "image_embedding", "text_embedding"
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
_MAX_CAPTION_BYTES = 2**20


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
    except OverflowError as error:
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


@dataclasses.dataclass(frozen=True)
class Part:
  """Images of a collection that become one shard: a run of a folder, or one file. Listed on demand.

  Attributes:
    root: folder of the collection.
    files: images, or one file of many images.
    kind: `images`, a `tar`, `records` with one image each, or records with only `features`.
    left_out: files of the folder that are in no part; counted by the first part.
  """

  root: Path
  files: tuple[Path, ...]
  kind: Kind
  left_out: int = 0

  @property
  def name(self) -> str:
    first = printable(self.files[0].relative_to(self.root).as_posix())
    return f"{first} and {len(self.files) - 1} more" if self.kind == "images" else first

  def fingerprint(self) -> str:
    """Return a digest of the files' names and identities, see `store.digests`."""
    about = [(p.relative_to(self.root).as_posix(), identity(p.stat())) for p in self.files]
    return files.digest(about)

  def listing(self) -> Listing:
    """List the images.

    Raises:
      RunError: a tar is damaged or compressed, or a record file cannot be read.
    """
    if self.kind == "images":
      return _folder_listing(self.root, self.files)._replace(left_out=self.left_out)
    return (_tar_listing if self.kind == "tar" else _record_listing)(self.files[0])


def open_collection(path: Path, per_part: int) -> list[Part]:
  """Split a collection into parts, in name order.

  Args:
    path: a folder of images, tars or TFDS records, or a single tar.
    per_part: images per part of a folder. A tar or record file is one part, whatever its size.

  Raises:
    UsageError: there are no images.
    RunError: a record file cannot be read.
  """
  if path.is_file() and path.suffix == ".tar":
    return [Part(path.parent, (path,), "tar")]
  if not path.is_dir():
    raise UsageError(f"{str(path)!r} is neither a folder nor a .tar.")
  if tars := visible(path, "*.tar"):
    return [Part(path, (tar,), "tar") for tar in tars]
  if (path / INFO).exists():
    return _prepared_parts(path)
  return _folder_parts(path, per_part)


def _folder_parts(path: Path, per_part: int) -> list[Part]:
  """Return the parts of a folder of images; files that are not images are reported."""
  walk = ImageWalk(path, beside=CAPTION_SUFFIXES)
  images = [path / name for name in walk.images()]
  for note in walk.notes():
    say(f"{path}: {note}")
  if not images:
    raise UsageError(
      f"{path} holds neither .tar files nor images ({', '.join(sorted(image_suffixes()))})."
    )
  starts = range(0, len(images), per_part)
  left_out = sum(map(len, walk.passed.values()))
  return [
    Part(path, tuple(images[start : start + per_part]), "images", 0 if start else left_out)
    for start in starts
  ]


def _prepared_parts(folder: Path) -> list[Part]:
  """Return the parts of a TFDS dataset; its first record decides the kind."""
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
  entries, passed = [], []
  for path in paths:
    name = path.relative_to(root).as_posix()
    beside, odd = _captions_beside(root, name)
    passed += odd
    entries.append(Entry(name, Place(path, root=root), *caption_of(beside)))
  if passed:
    say(
      f"{root}: {len(passed)} caption files left out, links, pipes or too large: {listed(passed)}."
    )
  return Listing(entries, 0)


def _captions_beside(root: Path, image: str) -> tuple[dict[str, bytes], list[str]]:
  """Return the caption files of an image by suffix, and those that must not be read."""
  stem, suffix = posixpath.splitext(image)
  stem = stem if suffix.lower() in image_suffixes() else image
  found, passed = {}, []
  for ending in CAPTION_SUFFIXES:
    try:
      found[ending] = read_beneath(root, stem + ending, _MAX_CAPTION_BYTES)
    except FileNotFoundError:
      continue
    except OSError:
      passed.append(stem + ending)
  return found, passed


def caption_of(beside: dict[str, bytes]) -> tuple[str, str]:
  """Return caption and url from the files next to an image, by suffix; plain text precedes JSON."""
  texts = [_decoded(beside[suffix]).strip() for suffix in CAPTION_SUFFIXES[:2] if suffix in beside]
  about: object = {}
  with contextlib.suppress(ValueError, RecursionError):
    about = json.loads(_decoded(beside.get(".json", b"{}")))
  if not isinstance(about, dict):
    about = {}
  from_json = (str(about[key]).strip() for key in ("caption", "text") if about.get(key))
  return next(filter(None, (*texts, *from_json)), ""), str(about.get("url") or "")


def _decoded(content: bytes) -> str:
  return content.decode("utf-8", errors="replace")


@dataclasses.dataclass
class _TarContents:
  """Content of a tar by key: images, caption files, and names of skipped members."""

  path: Path
  images: dict[str, Entry] = dataclasses.field(default_factory=dict)
  beside: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
  components: list[tuple[str, tarfile.TarInfo]] = dataclasses.field(default_factory=list)
  passed: list[str] = dataclasses.field(default_factory=list)

  def add_image(self, key: str, info: tarfile.TarInfo) -> None:
    if key in self.images or info.size > MAX_IMAGE_BYTES:
      self.passed.append(info.name)
      return
    name = PurePosixPath(info.name).as_posix()
    self.images[key] = Entry(name, Place(self.path, info.offset_data, info.size))


def _tar_listing(path: Path) -> Listing:
  """List the images of a tar with the caption files of the same key, by webdataset's rules.

  A key ends at the first dot of a file name. If more than a suffix follows (`photo.v2.png`), the
  file is an image of its own unless the key already has an image; then it is a component of that
  image, such as a mask, and is skipped.
  """
  found = _TarContents(path)
  for info, tar in _members(path):
    if not info.isdir() and not is_hidden(info.name):
      _take_member(found, info, tar)
  # Only now are all keys of the tar known.
  for key, info in found.components:
    if _first_key(info.name) in found.images:
      found.passed.append(info.name)
    else:
      found.add_image(key, info)
  if found.passed:
    say(f"{path}: {len(found.passed)} left out: {listed(found.passed)}.")
  entries = []
  for key, entry in found.images.items():
    caption, url = caption_of(found.beside.get(key, {}))
    entries.append(dataclasses.replace(entry, caption=caption, url=url))
  return Listing(entries, len(found.passed))


def _take_member(found: _TarContents, info: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
  name = PurePosixPath(info.name)
  key, suffix = _key_and_suffix(name)
  if not info.isreg() or info.issparse() or name.is_absolute() or ".." in name.parts:
    found.passed.append(info.name)
  elif suffix in image_suffixes():
    if key == _first_key(info.name):
      found.add_image(key, info)
    else:
      found.components.append((key, info))
  elif suffix in CAPTION_SUFFIXES and info.size <= _MAX_CAPTION_BYTES:
    handle = tar.extractfile(info)
    assert handle is not None
    found.beside.setdefault(key, {}).setdefault(suffix, handle.read())
  elif not suffix and info.size and begins_like_image(_start(info, tar)):
    found.add_image(key, info)


def _start(info: tarfile.TarInfo, tar: tarfile.TarFile) -> bytes:
  handle = tar.extractfile(info)
  assert handle is not None
  return handle.read(SIGNATURE_BYTES)


def _first_key(name: str) -> str:
  """Return a member's key and suffix; split at the last dot if only that gives a known suffix."""
  path = PurePosixPath(name)
  return (path.parent / path.name.partition(".")[0]).as_posix()


def _key_and_suffix(name: PurePosixPath) -> tuple[str, str]:
  """Return a key and a suffix; split at the last dot if only that gives a known suffix."""
  stem, dot, extension = name.name.partition(".")
  suffix = f"{dot}{extension.lower()}"
  if suffix not in image_suffixes() and suffix not in CAPTION_SUFFIXES and name.suffix:
    stem, suffix = name.name[: -len(name.suffix)], name.suffix.lower()
  return (name.parent / stem).as_posix(), suffix


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
  """Yield the members of an uncompressed tar, whose images can be read in place.

  Raises:
    RunError: the tar is damaged or compressed.
  """
  if not path.is_file():  # opening a pipe would block forever
    raise RunError(f"{path} is not a regular file.")
  try:
    with tarfile.open(path, "r:") as tar:
      for info in tar:
        yield info, tar
  except (tarfile.TarError, EOFError, OSError) as error:
    raise RunError(
      f"{path} can't be read as an uncompressed tar ({error}). Decompress it first."
    ) from error


@dataclasses.dataclass
class TarIndex:
  """Locations of the images in several tars: by url, and by name or key if it is unique.

  Tars of different downloads often number their images alike; ambiguous names are not used.
  """

  by_url: dict[str, Place] = dataclasses.field(default_factory=dict)
  by_name: dict[str, Entry | None] = dataclasses.field(default_factory=dict)

  def add(self, entry: Entry) -> None:
    """Add an image."""
    if entry.url:
      self.by_url.setdefault(entry.url, entry.place)
    key, _ = _key_and_suffix(PurePosixPath(entry.name))
    for name in dict.fromkeys((entry.name, key)):
      self.by_name[name] = None if name in self.by_name else entry

  def find(self, url: str, names: Sequence[str]) -> Place | None:
    """Return the place of an image by its url, else by one of its names; None if there is none.

    An image with a different known url is not used.
    """
    if url in self.by_url:
      return self.by_url[url]
    entries = (self.by_name.get(name) for name in names)
    fitting = (entry for entry in entries if entry and (not url or entry.url in ("", url)))
    return next((entry.place for entry in fitting), None)


def tar_index(tars: Sequence[Path]) -> TarIndex:
  """Return the locations of the images in tars."""
  index = TarIndex()
  for path in tars:
    for entry in _tar_listing(path).entries:
      index.add(entry)
  return index
