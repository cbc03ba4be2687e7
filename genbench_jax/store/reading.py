"""Read untrusted files: regular files only, without following links, up to a size limit.

A file is opened first, without following a link, and then checked through its descriptor, so that the
checked file is the one that is read. A file swapped for a link or pipe in between is rejected.
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
  """Read a file below a folder without following links in between.

  Args:
    root: the folder, which may be a link.
    name: path of the file inside the folder.
    limit: maximum size in bytes.

  Raises:
    OSError: there is no such regular file, a link is in the way, or the file is larger than the limit.
  """
  with opened_beneath(root, name) as descriptor:
    return _content(descriptor, name, limit)


def read_file(path: Path, limit: int, follow: bool = False) -> bytes:
  """Read one file; by default, without following a link.

  Args:
    path: path of the file.
    limit: maximum size in bytes.
    follow: whether the file may be a link, as for files that the user named.

  Raises:
    OSError: there is no such regular file, it is a link, or it is larger than the limit.
  """
  with _closing(_opened(os.fspath(path), follow)) as descriptor:
    return _content(descriptor, str(path), limit)


def regular(path: Path) -> Path:
  """Return the path of a regular file, for libraries that open it themselves: a pipe would block them.

  Raises:
    OSError: there is no such regular file.
  """
  if not stat.S_ISREG(path.stat().st_mode):
    raise OSError(errno.EINVAL, "not a regular file", printable(str(path)))
  return path


@contextmanager
def opened_beneath(root: Path, name: str) -> Iterator[int]:
  """Yield the descriptor of a regular file below a folder, opened for reading; see `read_beneath`.

  Raises:
    OSError: see `read_beneath`.
  """
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
    # For a link, Linux gives ELOOP, or ENOTDIR if a folder was expected; FreeBSD gives EMLINK.
    if not follow and error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
      raise OSError(error.errno, "a symbolic link, or not a folder, is in the way") from error
    if error.errno == errno.ENXIO:  # a socket
      raise OSError(errno.ENXIO, "not a regular file") from error
    raise
  except ValueError as error:  # a zero byte
    raise OSError(errno.EINVAL, "the name contains a zero byte") from error


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
