"""Decide which files of a folder are images. All readers of folders use this module.

- Names that begin with a dot and system leftovers (`__MACOSX`, `@eaDir` ...) are never data.
- A file is an image if its suffix is one of Pillow's or, for any other suffix or none, if its first bytes are
  those of an image.
- Links to files or folders are not followed, except for the given folder itself.
- Everything else is skipped, counted and reported.
"""

import functools
import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath, PurePosixPath

from genbench_jax.runtime.printable import listed, printable, storable
from genbench_jax.store.reading import opened_beneath, read_beneath

# Why links are skipped, in messages.
LINKS = "symbolic links"
# Larger files are not treated as images of a training set.
MOST_BYTES = 1 << 28
# Left by macOS, Synology, Windows and file systems.
_SYSTEM_NAMES = frozenset({
  "__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found",
})  # fmt: skip
# Pillow passes PostScript to another program, and cannot decode the other formats.
_UNREADABLE_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_USUAL_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Common files in folders of images, not worth opening.
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
_BUFFER = re.compile(r" <_io\.BytesIO object at 0x\w+>")
_LONGEST_FAULT = 200


@functools.cache
def image_formats() -> tuple[str, ...]:
  """Return the formats that Pillow decodes itself, for `Image.open(..., formats=)`."""
  from PIL import Image

  Image.init()
  # Pillow tries formats in this order, so common ones come first.
  usual = [form for form in _USUAL_FORMATS if form in Image.OPEN]
  return (*usual, *sorted(set(Image.OPEN) - _UNREADABLE_FORMATS - set(usual)))


@functools.cache
def image_suffixes() -> frozenset[str]:
  """Return the suffixes of image files, in lower case and with a dot."""
  from PIL import Image

  formats = set(image_formats())
  return frozenset(s for s, form in Image.registered_extensions().items() if form in formats)


def is_hidden(path: str | PurePath) -> bool:
  """Return whether a component of a relative path is hidden or a system leftover."""
  parts = PurePath(path).parts
  return any((p.startswith(".") and p != "..") or p in _SYSTEM_NAMES for p in parts)


def first_key(name: str) -> str:
  """Return the key of a member of a tar by webdataset's rule: its path up to the name's first dot."""
  path = PurePosixPath(name)
  return (path.parent / path.name.partition(".")[0]).as_posix()


def key_and_suffix(name: str, beside: Collection[str]) -> tuple[str, str]:
  """Split the name of a tar's member into key and suffix, in lower case.

  By webdataset's rule, a key ends at the first dot. If only a split at the last dot gives a known suffix, as
  for `photo.v2.png`, the key ends there.

  Args:
    name: path inside the tar.
    beside: suffixes of files that describe an image.
  """
  path = PurePosixPath(name)
  _, dot, extension = path.name.partition(".")
  suffix = f"{dot}{extension.lower()}"
  if suffix in image_suffixes() or suffix in beside or not path.suffix:
    return first_key(name), suffix
  stem = path.name.removesuffix(path.suffix)
  return (path.parent / stem).as_posix(), path.suffix.lower()


def decoding_fault(error: BaseException) -> str:
  """Return why an image cannot be decoded, in one line, without the buffer that Pillow names."""
  text = _BUFFER.sub("", " ".join(str(error).split()))
  return printable(text)[:_LONGEST_FAULT] or type(error).__name__


def visible(folder: Path, pattern: str) -> list[Path]:
  """Return the paths in a folder that match a pattern, sorted, without hidden names and leftovers."""
  return sorted(path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder)))


def begins_like_image(start: bytes) -> bool:
  """Return whether the first bytes of a file are those of a common image format."""
  is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
  return is_webp or start.startswith(_SIGNATURES) or start[4:].startswith(_AT_4)


class ImageWalk:
  """A walk through a folder that follows no links and records what it skips.

  Args:
    root: the folder; it may itself be a link.
    beside: suffixes of expected files that are not images, such as captions. They are not recorded.

  Attributes:
    passed: reason -> skipped paths.
  """

  def __init__(self, root: Path, beside: Collection[str] = ()) -> None:
    self.root, self._beside = root, beside
    self.passed: dict[str, list[str]] = defaultdict(list)

  def folders(self, folder: str = "") -> list[str]:
    """Return the paths of subfolders; images next to them are recorded as skipped."""
    names = []
    for path, entry in self._entries(folder):
      if entry.is_dir(follow_symlinks=False):
        names.append(path)
      elif PurePath(path).suffix.lower() in image_suffixes():
        self.leave_out("not in a class folder", path)
    return names

  def images(self, folder: str = "") -> Iterator[str]:
    """Yield the paths of all images below a folder, sorted by name at each level.

    Uses an explicit stack instead of recursion, so that nesting may be arbitrarily deep.
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
    """Return whether a listed path is an image; record it as skipped if not."""
    if is_hidden(path):
      return self.leave_out("hidden", path)
    if link := self._link_on_the_way(path):
      return self.leave_out(LINKS, link)
    return self._is_image(path)

  def notes(self) -> list[str]:
    """Return a sentence for each reason for skipping files."""
    return [f"{len(paths)} left out, {why}: {listed(paths)}." for why, paths in self.passed.items()]

  def read(self, path: str) -> bytes:
    """Read an image of the walk; see `reading.read_beneath`."""
    return read_beneath(self.root, path, MOST_BYTES)

  def leave_out(self, why: str, path: str) -> bool:
    """Record a skipped path. Returns False, for use in a return statement."""
    self.passed[why].append(storable(path))
    return False

  def _is_image(self, path: str) -> bool:
    try:
      about = (self.root / path).lstat()
    except (OSError, ValueError) as error:
      return self.leave_out(f"can't be found ({getattr(error, 'strerror', error)})", path)
    if stat.S_ISLNK(about.st_mode):
      return self.leave_out(LINKS, path)
    if PurePath(path).suffix.lower() in self._beside:
      return False
    if not stat.S_ISREG(about.st_mode) or not self._looks_like_image(path):
      return self.leave_out("not images", path)
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
    """Return the first prefix of a path that is a link; empty if there is none."""
    at = ""
    for part in PurePath(path).parts:
      at = os.path.join(at, part)  # noqa: PTH118  names of any bytes, not normalized
      if os.path.islink(self.root / at):  # noqa: PTH114  a zero byte is not an error here
        return at
    return ""

  def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the entries of a folder, sorted; links are recorded as skipped, hidden entries are ignored."""
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
        self.leave_out(LINKS, path)
      else:
        yield path, entry
