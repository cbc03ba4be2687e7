"""Reading what datasets are delivered in: zip, tar or a plain folder, without unpacking anything.

Nothing is written and no path from an archive is ever opened, so that a hostile archive can't reach
outside itself; links are skipped, and names that climb out are refused.
"""

import dataclasses
import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from genbench_jax.errors import RunError

# Larger than any image of the 22 datasets.
MAX_IMAGE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Archive:
  """An official file of a dataset.

  Attributes:
    filename: its official name; under this name it may lie in the manual folder.
    url: where to get it, empty if that takes a click or a login.
    md5: its published checksum, empty where none is published.
  """

  filename: str
  url: str = ""
  md5: str = ""


def members(
  path: Path, wanted: Callable[[PurePosixPath], bool], max_bytes: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[PurePosixPath, bytes]]:
  """The wanted files of a zip, a tar (of any compression) or a folder, in their order there.

  Yields:
    The name inside the archive and the content.

  Raises:
    RunError: if the archive is damaged or is none of these, or a wanted file is larger than
      `max_bytes` or has a name that climbs out.
  """
  read = (
    _folder_members if path.is_dir() else _zip_members if zipfile.is_zipfile(path) else _tar_members
  )
  try:
    for name, content in read(path, wanted, max_bytes + 1):
      if name.is_absolute() or ".." in name.parts:
        raise RunError(f"{path} holds '{name}', outside of itself: it is not the official archive.")
      if len(content) > max_bytes:
        raise RunError(
          f"'{name}' in {path} is larger than {max_bytes >> 20} MiB: it is not official."
        )
      yield name, content
  except (RunError, FileNotFoundError, PermissionError):
    raise
  # The readers' own errors and, at headers that lie, any other: a gzip of three bytes is a TypeError.
  except Exception as error:
    raise RunError(f"{path} is damaged ({error}): delete it and fetch it again.") from error


def _folder_members(
  path: Path, wanted: Callable[[PurePosixPath], bool], limit: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
  for file in sorted(path.rglob("*")):
    name = PurePosixPath(file.relative_to(path).as_posix())
    if file.is_file() and wanted(name):
      with file.open("rb") as handle:
        content = handle.read(limit)
      yield name, content


def _zip_members(
  path: Path, wanted: Callable[[PurePosixPath], bool], limit: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      name = PurePosixPath(info.filename)
      if not info.is_dir() and wanted(name):
        with archive.open(info) as handle:
          content = handle.read(limit)
        yield name, content


def _tar_members(
  path: Path, wanted: Callable[[PurePosixPath], bool], limit: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
  # The streaming mode reads the file once, forwards, whatever its compression.
  with tarfile.open(path, "r|*") as archive:
    for info in archive:
      name = PurePosixPath(info.name)
      if info.isreg() and wanted(name):
        handle = archive.extractfile(info)
        assert handle is not None
        yield name, handle.read(limit)


def check_md5(path: Path, md5: str) -> None:
  """Compares a file with its published checksum, where there is one.

  Raises:
    RunError: if they differ.
  """
  if not md5:
    return
  with path.open("rb") as handle:
    found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
  if found != md5:
    raise RunError(
      f"{path} is not the official file (md5 {found}, published {md5}): delete it and fetch it again."
    )
