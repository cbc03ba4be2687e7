"""Read .npz files within bounds: a small file may claim, or decompress to, any size."""

import io
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

_STEP = 1 << 20
# What zipfile raises for damaged, encrypted or unknown content; OSError for offsets outside the file.
_DAMAGE = (
  OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError,
)  # fmt: skip

# A member of an archive, or bytes in memory, are no `IO` for checkers of types at run time.
NpzFile: TypeAlias = IO[bytes] | io.BufferedIOBase
# What NumPy raises for damaged .npy files: it parses their headers as Python.
NPY_DAMAGE = (
  OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, tokenize.TokenError, zipfile.BadZipFile,
)  # fmt: skip


class ArrayHeader(NamedTuple):
  """The description of an array in a file."""

  shape: tuple[int, ...]
  is_fortran: bool
  dtype: np.dtype

  @property
  def bytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


def npz_names(path: Path) -> list[str]:
  """Return the names of the arrays in an .npz.

  Raises:
    OSError: there is no such regular file.
    ValueError: it is not an .npz.
  """
  with opened_npz(path) as archive:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(
  path: Path, most_bytes: int, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
  """Return arrays of an .npz, without pickle.

  Args:
    path: the file.
    most_bytes: maximum size of the arrays together, in memory.
    names: names of the arrays; None for all. Missing ones are left out.

  Raises:
    OSError: there is no such regular file.
    ValueError: it is not an .npz, or its arrays are larger.
  """
  found: dict[str, np.ndarray] = {}
  with opened_npz(path) as archive:
    for info in archive.infolist():
      name = info.filename.removesuffix(".npy")
      if names is None or name in names:
        left = most_bytes - sum(array.nbytes for array in found.values())
        with archive.open(info) as file:
          found[name] = _array(file, name, left)
  return found


@contextmanager
def opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
  """Yield the archive of an .npz; damage found in the block is a ValueError.

  Raises:
    OSError: there is no such regular file.
    ValueError: it is not an .npz.
  """
  # Opening a pipe without O_NONBLOCK would wait for a writer.
  with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
      raise OSError(0, "not a regular file", str(path))
    try:
      with zipfile.ZipFile(stream) as archive:
        yield archive
    except _DAMAGE as error:
      raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def read_header(file: NpzFile) -> ArrayHeader:
  """Read the header of an array; the file is then at its content.

  Raises:
    ValueError: there is none, or the array contains Python objects.
  """
  try:
    version = np.lib.format.read_magic(file)
    read = (
      np.lib.format.read_array_header_1_0
      if version == (1, 0)
      else np.lib.format.read_array_header_2_0
    )
    header = ArrayHeader(*read(file))
  except NPY_DAMAGE as error:
    raise ValueError(f"its header is damaged ({type(error).__name__})") from error
  if header.dtype.hasobject:
    raise ValueError("it contains pickled objects, which could run code")
  if any(size < 0 for size in header.shape):
    raise ValueError(f"it has the shape {list(header.shape)}")
  return header


def _array(file: NpzFile, name: str, most_bytes: int) -> np.ndarray:
  header = read_header(file)
  if header.bytes > most_bytes:
    raise ValueError(
      f"the array {name!r} takes {header.bytes} bytes, at most {most_bytes} are read"
    )
  content: UInt8[np.ndarray, "n"] = np.empty(header.bytes, np.uint8)
  for start in range(0, header.bytes, _STEP):
    piece = file.read(min(_STEP, header.bytes - start))
    if len(piece) < min(_STEP, header.bytes - start):
      raise ValueError(f"the file ends within the array {name!r}")
    content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
  order: Literal["C", "F"] = "F" if header.is_fortran else "C"
  return content.view(header.dtype).reshape(header.shape, order=order)
