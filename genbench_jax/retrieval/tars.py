"""Images in tars by webdataset's rules. Nothing is unpacked and no path inside a tar is opened."""

import dataclasses
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from genbench_jax.benchmark.archives import MAX_IMAGE_BYTES
from genbench_jax.errors import RunError
from genbench_jax.retrieval.captions import CAPTION_SUFFIXES, MAX_CAPTION_BYTES, caption_of
from genbench_jax.retrieval.place import Entry, Listing, Place
from genbench_jax.runtime.printable import is_text, listed
from genbench_jax.runtime.progress import say
from genbench_jax.store.image_files import (
  SIGNATURE_BYTES,
  begins_like_image,
  first_key,
  image_suffixes,
  is_hidden,
  key_and_suffix,
)


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


def tar_listing(path: Path) -> Listing:
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
    if first_key(info.name) in found.images:
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
  key, suffix = key_and_suffix(info.name, CAPTION_SUFFIXES)
  is_inside = not name.is_absolute() and ".." not in name.parts
  if not info.isreg() or info.issparse() or not is_inside or not is_text(info.name):
    found.passed.append(info.name)
  elif suffix in image_suffixes():
    if key == first_key(info.name):
      found.add_image(key, info)
    else:
      found.components.append((key, info))
  elif suffix in CAPTION_SUFFIXES and info.size <= MAX_CAPTION_BYTES:
    handle = tar.extractfile(info)
    assert handle is not None
    found.beside.setdefault(key, {}).setdefault(suffix, handle.read())
  elif not suffix and info.size and begins_like_image(_start(info, tar)):
    found.add_image(key, info)


def _start(info: tarfile.TarInfo, tar: tarfile.TarFile) -> bytes:
  handle = tar.extractfile(info)
  assert handle is not None
  return handle.read(SIGNATURE_BYTES)


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
    key, _ = key_and_suffix(entry.name, CAPTION_SUFFIXES)
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
    for entry in tar_listing(path).entries:
      index.add(entry)
  return index
