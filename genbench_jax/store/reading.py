"""Reading files that others have written: regular files only, not through links, and no more than a bound.

What is checked is what is read: a file is opened first, without following a link, and looked at through its
descriptor. A file that is swapped for a link or a pipe between two looks is refused.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genbench_jax.runtime.printable import printable

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STEP = 1 << 20


def read_beneath(root: Path, name: str, limit: int) -> bytes:
  """Read a file below a folder; no link between the folder and the file is followed.

  Args:
    root: the folder, which may be reached by links.
    name: the file's path inside the folder.
    limit: the most bytes that are taken.

  Raises:
    OSError: there is no such regular file, a link is in the way, or it is larger than the limit.
  """
  with opened_beneath(root, name) as descriptor:
    return _content(descriptor, name, limit)


def read_file(path: Path, limit: int, follow: bool = False) -> bytes:
  """Read one file; a link is followed only where `follow` says so, as for a file that the user named.

  Args:
    path: of the file.
    limit: the most bytes that are taken.
    follow: whether the file itself may be a link.

  Raises:
    OSError: there is no such regular file, it is a link, or it is larger than the limit.
  """
  with _closing(_opened(os.fspath(path), follow)) as descriptor:
    return _content(descriptor, str(path), limit)


@contextmanager
def opened_beneath(root: Path, name: str) -> Iterator[int]:
  """The descriptor of a regular file below a folder, opened for reading; see `read_beneath`."""
  parts = [part for part in name.split("/") if part not in ("", ".")]
  if not parts or ".." in parts:
    raise OSError(errno.EINVAL, f"{printable(name)!r} is not a path inside a folder")
  folder = os.open(root, _FLAGS | os.O_DIRECTORY)
  try:
    for part in parts[:-1]:
      below = _opened(part, follow=False, flags=os.O_DIRECTORY, folder=folder)
      os.close(folder)
      folder = below
    descriptor = _opened(parts[-1], follow=False, folder=folder)
  finally:
    os.close(folder)
  with _closing(descriptor):
    _refuse_irregular(descriptor, name)
    yield descriptor


def _opened(path: str, follow: bool, flags: int = 0, folder: int | None = None) -> int:
  link = 0 if follow else os.O_NOFOLLOW
  try:
    return os.open(path, _FLAGS | flags | link, dir_fd=folder)
  except OSError as error:
    # Of a link Linux says ELOOP, and ENOTDIR where a folder was wanted; FreeBSD says EMLINK.
    if not follow and error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
      raise OSError(error.errno, "a symbolic link, or not a folder, is in the way") from error
    if error.errno == errno.ENXIO:  # a socket
      raise OSError(errno.ENXIO, "not a regular file") from error
    raise
  except ValueError as error:  # a zero byte
    raise OSError(errno.EINVAL, "the name holds a zero byte") from error


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
  try:
    yield descriptor
  finally:
    os.close(descriptor)


def _refuse_irregular(descriptor: int, name: str) -> None:
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    raise OSError(errno.EINVAL, "not a regular file", printable(name))


def _content(descriptor: int, name: str, limit: int) -> bytes:
  _refuse_irregular(descriptor, name)
  pieces, left = [], limit + 1
  while left > 0 and (piece := os.read(descriptor, min(left, _STEP))):
    pieces.append(piece)
    left -= len(piece)
  if left <= 0:
    raise OSError(errno.EFBIG, f"larger than {limit} bytes", printable(name))
  return b"".join(pieces)
