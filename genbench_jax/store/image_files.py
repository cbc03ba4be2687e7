"""Which files of a folder are images. Every reader of folders asks here, so that all take the same files.

- Names that begin with a dot, and what systems leave behind (`__MACOSX`, `@eaDir` ...), are never data.
- A file is an image by its suffix, one of those that Pillow reads, or, with any other suffix or none, by its first bytes.
- Below the folder that is named no link is followed, neither to a file nor to a folder.
- Whatever else is there is left out, counted and named.
"""

import functools
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath

from genbench_jax.runtime.printable import listed, storable
from genbench_jax.store.reading import opened_beneath, read_beneath

# A larger file is not an image of a training set.
MOST_BYTES = 1 << 28
# Left behind by macOS, Synology, Windows and file systems.
_SYSTEM_NAMES = frozenset(
  {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
# Pillow hands PostScript to another program, and only recognizes the others.
_UNREADABLE_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_USUAL_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Beside images, never one: not worth opening.
_TEXT_SUFFIXES = frozenset({".caption", ".csv", ".json", ".jsonl", ".md", ".txt", ".yaml", ".yml"})
_SIGNATURES = (
  b"\x89PNG\r\n\x1a\n",
  b"\xff\xd8\xff",
  b"GIF87a",
  b"GIF89a",
  b"BM",
  b"II*\0",
  b"MM\0*",
  b"qoif",
  b"8BPS",
)
_AT_4 = (b"ftypavif", b"ftypavis", b"jP  \r\n\x87\n")
SIGNATURE_BYTES = 16


@functools.cache
def image_formats() -> tuple[str, ...]:
  """Return the formats that Pillow reads by itself, for `Image.open(..., formats=)`."""
  from PIL import Image

  Image.init()
  # Tried in this order: the usual ones first.
  usual = [form for form in _USUAL_FORMATS if form in Image.OPEN]
  return (*usual, *sorted(set(Image.OPEN) - _UNREADABLE_FORMATS - set(usual)))


@functools.cache
def image_suffixes() -> frozenset[str]:
  """Return the suffixes of image files, in lower case, each with its dot."""
  from PIL import Image

  formats = set(image_formats())
  return frozenset(s for s, form in Image.registered_extensions().items() if form in formats)


def is_hidden(path: str | PurePath) -> bool:
  """Whether a part of a path inside a folder or an archive is hidden or left behind by a system."""
  parts = PurePath(path).parts
  return any((p.startswith(".") and p != "..") or p in _SYSTEM_NAMES for p in parts)


def begins_like_image(start: bytes) -> bool:
  """Whether the first bytes of a file are those of a common image format."""
  is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
  return is_webp or start.startswith(_SIGNATURES) or start[4:].startswith(_AT_4)


class ImageWalk:
  """A walk through a folder that follows no link and remembers what it passed by.

  Args:
    root: the folder. It may itself be reached by links.
    beside: suffixes of files that are no images and are wanted where they are, such as captions.

  Attributes:
    passed: why -> the paths that were left out for it.
  """

  def __init__(self, root: Path, beside: Collection[str] = ()) -> None:
    self.root, self._beside = root, beside
    self.passed: dict[str, list[str]] = defaultdict(list)

  def folders(self, folder: str = "") -> list[str]:
    """Return the paths of the folders in a folder; images beside them are noted as outside of one."""
    names = []
    for path, entry in self._entries(folder):
      if entry.is_dir(follow_symlinks=False):
        names.append(path)
      elif PurePath(path).suffix.lower() in image_suffixes():
        self.leave_out("not in a class folder", path)
    return names

  def images(self, folder: str = "") -> Iterator[str]:
    """Yield the paths of all images below a folder, in the order of their names.

    Folders may be nested to any depth: what is open is a list, not a stack of calls.
    """
    waiting = [self._entries(folder)]
    while waiting:
      path, entry = next(waiting[-1], ("", None))
      if entry is None:
        waiting.pop()
      elif entry.is_dir(follow_symlinks=False):
        waiting.append(self._entries(path))
      elif self._is_image(path):
        yield path

  def is_image(self, path: str) -> bool:
    """Whether a path that a list names is an image; notes it if not."""
    if is_hidden(path):
      return self.leave_out("hidden", path)
    if link := self._link_on_the_way(path):
      return self.leave_out("symbolic links", link)
    return self._is_image(path)

  def notes(self) -> list[str]:
    """Return a sentence for each reason why something was left out."""
    return [f"{len(paths)} left out, {why}: {listed(paths)}." for why, paths in self.passed.items()]

  def read(self, path: str) -> bytes:
    """Read an image of the walk; see `reading.read_beneath`."""
    return read_beneath(self.root, path, MOST_BYTES)

  def leave_out(self, why: str, path: str) -> bool:
    """Note a path that is left out. Returns False."""
    self.passed[why].append(storable(path))
    return False

  def _is_image(self, path: str) -> bool:
    try:
      about = (self.root / path).lstat()
    except (OSError, ValueError) as error:
      return self.leave_out(f"can't be found ({getattr(error, 'strerror', error)})", path)
    if stat.S_ISLNK(about.st_mode):
      return self.leave_out("symbolic links", path)
    if PurePath(path).suffix.lower() in self._beside:
      return False
    if not stat.S_ISREG(about.st_mode) or not self._looks_like_image(path):
      return self.leave_out("no images", path)
    if not 0 < about.st_size <= MOST_BYTES:
      return self.leave_out(f"empty or above {MOST_BYTES >> 20} MB", path)
    return True

  def _looks_like_image(self, path: str) -> bool:
    suffix = PurePath(path).suffix.lower()
    if suffix in image_suffixes():
      return True
    if suffix in _TEXT_SUFFIXES:
      return False
    try:
      with opened_beneath(self.root, path) as descriptor:
        return begins_like_image(os.read(descriptor, SIGNATURE_BYTES))
    except OSError:
      return False

  def _link_on_the_way(self, path: str) -> str:
    """The first part of a path that is a link; empty if none is."""
    at = ""
    for part in PurePath(path).parts:
      at = os.path.join(at, part)  # noqa: PTH118  names of any bytes, not normalized
      if os.path.islink(self.root / at):  # noqa: PTH114  a zero byte is not an error here
        return at
    return ""

  def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in a folder, in order; links to folders are noted, hidden entries are not."""
    try:
      with os.scandir(self.root / folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:  # a class may have no folder in one of the splits
      return
    except OSError as error:
      self.leave_out(f"can't be listed ({error.strerror})", folder)
      return
    for entry in found:
      path = os.path.join(folder, entry.name)  # noqa: PTH118  names of any bytes, not normalized
      if is_hidden(entry.name):
        continue
      if entry.is_symlink():
        self.leave_out("symbolic links", path)
      else:
        yield path, entry
