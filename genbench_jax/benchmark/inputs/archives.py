"""Read archives in place: zip and tar files of class folders or with a list of labels, and webdataset shards.

Compressed tar files are decompressed once to a cache. Nothing is extracted by name: members are read by their
position, so that a name such as `../../x` has no effect. Links, devices, hidden members and oversized ones are
skipped.
"""

import bz2
import functools
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from genbench_jax.benchmark.inputs import label_list
from genbench_jax.benchmark.inputs.image_list import ImageList
from genbench_jax.benchmark.inputs.members import Member, PassedOver, notes_on
from genbench_jax.benchmark.inputs.spool import copy_name, ensure_copy
from genbench_jax.benchmark.inputs.tree import Place, class_place
from genbench_jax.benchmark.inputs.webdataset import is_webdataset, webdataset_images
from genbench_jax.errors import RunError, UsageError
from genbench_jax.store.image_files import LINKS, MOST_BYTES, image_suffixes, is_hidden

TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
_IS_UTF_8 = 0x800  # bit of a zip member's flags
_COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
  b"\x1f\x8b": gzip.open,  # an overloaded function
  b"BZh": bz2.open,
  b"\xfd7zXZ\0": lzma.open,
}


def is_tar(path: Path) -> bool:
  """Return whether a file name is that of a tar file, compressed or not."""
  return path.name.lower().endswith(TAR_SUFFIXES)


def zip_images(path: Path, is_class: Callable[[str], bool]) -> ImageList:
  """Return the images of a zip file with class folders.

  Raises:
    UsageError: the file is not a zip, or has no class folders.
  """
  try:
    archive = zipfile.ZipFile(path)
  except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    raise UsageError(f"{path} can't be read as zip: {error}.") from error
  lock = threading.Lock()  # reads share the archive's file position

  def content(info: zipfile.ZipInfo) -> bytes:
    with lock, archive.open(info) as file:
      return file.read(MOST_BYTES + 1)

  passed: PassedOver = defaultdict(list)
  members = []
  for info in archive.infolist():
    if stat.S_ISLNK(info.external_attr >> 16):
      passed[LINKS].append(_zip_name(info))
    elif not info.is_dir():
      read = functools.partial(content, info)
      members.append(Member(_zip_name(info), path, info.file_size, read))
  return _tree(path, members, is_class, passed)


def _zip_name(info: zipfile.ZipInfo) -> str:
  """Return the name of a member. Some programs write UTF-8 without saying so, and zipfile takes it for cp437."""
  name = info.filename.replace("\\", "/")
  try:
    return name if info.flag_bits & _IS_UTF_8 else name.encode("cp437").decode("utf-8")
  except UnicodeError:
    return name


def tar_images(paths: Sequence[Path], is_class: Callable[[str], bool], cache: Path) -> ImageList:
  """Return the images of tar files: webdataset shards, or one tar of class folders.

  Args:
    paths: the files, in order.
    is_class: whether a folder name may be that of a class.
    cache: folder for decompressed copies.

  Raises:
    UsageError: a file is not a tar, or there are no class folders.
  """
  passed: PassedOver = defaultdict(list)
  members = [
    member for path in paths for member in _tar_members(path, _uncompressed(path, cache), passed)
  ]
  root = paths[0] if len(paths) == 1 else paths[0].parent
  if is_webdataset(members):
    return webdataset_images(root, members, passed)
  return _tree(root, members, is_class, passed)


def _uncompressed(path: Path, cache: Path) -> Path:
  """Return an uncompressed tar, a copy if necessary, whose members can be read by position."""
  try:
    with path.open("rb") as file:
      start = file.read(8)
    opened = next(
      (open_ for magic, open_ in _COMPRESSIONS.items() if start.startswith(magic)), None
    )
    if opened is None:
      return path
    copy = cache / f"tar-{copy_name(path)}.tar"
    ensure_copy(copy, functools.partial(_decompress, path, opened))
    return copy
  except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
    raise UsageError(f"{path} can't be read as tar: {error}.") from error


def _decompress(path: Path, opened: Callable[..., Any], out: IO[bytes]) -> list[Any]:
  with opened(path) as compressed:
    shutil.copyfileobj(compressed, out, 1 << 20)
  return []


def _tar_members(named: Path, path: Path, passed: PassedOver) -> Iterator[Member]:
  """Yield the files of an uncompressed tar; `named` is its path in messages. Record what is skipped."""

  def content(begin: int, size: int) -> bytes:
    try:
      with path.open("rb") as file:
        file.seek(begin)
        return file.read(size)
    except OSError as error:
      raise RunError(f"{named} can't be read any more ({error.strerror}).") from error

  try:
    with tarfile.open(path, "r:") as tar:
      for info in tar:
        if info.isfile() and not info.issparse():
          read = functools.partial(content, info.offset_data, info.size)
          yield Member(info.name, named, info.size, read)
        elif not info.isdir() and not is_hidden(info.name):
          passed["links, devices or sparse files"].append(info.name)
  except (OSError, tarfile.TarError, EOFError, ValueError) as error:
    raise UsageError(f"{named} can't be read as tar: {error}.") from error


def is_image_name(name: str) -> bool:
  """Return whether a member is an image, by its suffix."""
  return PurePosixPath(name).suffix.lower() in image_suffixes()


def _tree(
  root: Path, members: Sequence[Member], is_class: Callable[[str], bool], passed: PassedOver
) -> ImageList:
  """Return the images of a tree of class folders inside an archive, or those that a list in it names."""
  lists = _lists(members)
  used = [member.name for member in lists.values()]
  images = _last_of_each(
    [m for m in members if m.name not in used and _is_taken(m, passed)], passed
  )
  below: dict[str, dict[str, None]] = defaultdict(dict)
  for member in images:
    parts = member.name.strip("/").split("/")
    for depth in range(len(parts) - 1):
      below["/".join(parts[:depth])][parts[depth]] = None
  place = class_place(lambda folder: list(below[folder]), is_class, lists.__contains__)
  if place.folder in lists:
    found, notes = _listed(root, images, lists[place.folder], place, passed)
  else:
    found, notes = _in_class_folders(images, place, passed), []
  if not found:
    raise UsageError(
      f"{root} has no class folders: expected CLASS/*.png, with class names or indices."
      f" {' '.join(notes_on(passed))}".rstrip()
    )
  return _image_list(root, found, (*place.notes, *notes, *notes_on(passed)))


def _last_of_each(members: Sequence[Member], passed: PassedOver) -> list[Member]:
  """Return the last member of each name: `tar --append` replaces a file by adding it again."""
  found: dict[tuple[Path, str], Member] = {}
  for member in members:
    key = member.archive, member.name
    if earlier := found.pop(key, None):
      passed["replaced by a later file of the same name"].append(earlier.name)
    found[key] = member
  return list(found.values())


def _lists(members: Sequence[Member]) -> dict[str, Member]:
  """Return folder -> its list of labels."""
  found: dict[str, Member] = {}
  for wanted in label_list.NAMES:
    for member in members:
      folder, name = posixpath.split(member.name.strip("/"))
      if name == wanted and not is_hidden(member.name) and member.size <= label_list.MOST_BYTES:
        path = member.archive / member.name
        if label_list.has_classes(name, functools.partial(_rows, path, member)):
          found.setdefault(folder, member)
  return found


def _rows(path: Path, member: Member) -> label_list.Rows:
  try:
    return label_list.rows_in(path, member.read())
  except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UsageError(f"{path} can't be read: {error}.") from error


def _listed(
  root: Path,
  images: Sequence[Member],
  member: Member,
  place: Place,
  passed: PassedOver,
) -> tuple[list[tuple[str, tuple[str, ...], Member]], list[str]]:
  """Return the images that a list names, and notes.

  Args:
    root: the archive.
    images: its images.
    member: the list.
    place: folder of the list.
    passed: reason -> skipped paths, extended here.
  """
  path = root / member.name
  classes, notes = label_list.classes_of(path, _rows(path, member))
  image_of = {posixpath.normpath(image.name): image for image in images}
  names = {posixpath.normpath(posixpath.join(place.folder, n)): n for n in classes}
  if gone := [name for name in names if name not in image_of]:
    passed["can't be found"] = gone
  found = [
    (image_of[name].name, tuple(classes[given]), image_of[name])
    for name, given in names.items()
    if name in image_of
  ]
  return found, notes


def _in_class_folders(
  images: Sequence[Member], place: Place, passed: PassedOver
) -> list[tuple[str, tuple[str, ...], Member]]:
  start = f"{place.folder}/" if place.folder else ""
  found, loose = [], []
  for member in images:
    path = member.name.strip("/")
    rest = path.removeprefix(start)
    if path.startswith(start) and "/" in rest:
      found.append((member.name, (rest.partition("/")[0],), member))
    elif path.startswith(start):
      loose.append(member.name)
  if loose:
    passed["not in a class folder"] = loose
  return sorted(found, key=lambda image: image[0])


def _image_list(
  root: Path, found: Sequence[tuple[str, tuple[str, ...], Member]], notes: tuple[str, ...]
) -> ImageList:
  return ImageList(
    root,
    [name for name, _, _ in found],
    [classes for _, classes, _ in found],
    [(member.archive.parent, member.archive.name) for *_, member in found],
    list(range(len(found))),
    lambda index: found[index][2].read(),
    notes,
    tuple(dict.fromkeys(name for _, classes, _ in found for name in classes)),
  )


def _is_taken(member: Member, passed: PassedOver) -> bool:
  if is_hidden(member.name):
    return False
  if not is_image_name(member.name):
    passed["not images"].append(member.name)
    return False
  if not 0 < member.size <= MOST_BYTES:
    passed[f"empty or above {MOST_BYTES >> 20} MB"].append(member.name)
    return False
  return True
