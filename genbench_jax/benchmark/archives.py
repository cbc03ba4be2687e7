"""Read datasets in the form of their delivery: zip, tar or a plain folder, without unpacking.

Nothing is written, and no path from an archive is opened, so that a hostile archive cannot reach outside.
Links are skipped, and names that leave the archive are rejected.
"""

import dataclasses
import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from genbench_jax.errors import RunError
from genbench_jax.store.image_files import is_hidden

# Larger than any image of the 22 datasets.
MAX_IMAGE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Archive:
  """An official file of a dataset.

  Attributes:
    filename: official name, which the file has in the manual folder.
    url: download location; empty if a click or a login is required.
    md5: published checksum; empty if there is none.
  """

  filename: str
  url: str = ""
  md5: str = ""


def members(
  path: Path, wanted: Callable[[PurePosixPath], bool], max_bytes: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[PurePosixPath, bytes]]:
  """Yield the wanted files of a zip, a tar (of any compression) or a folder, in order.

  Args:
    path: archive or folder.
    wanted: whether to yield a file, by its name inside the archive.
    max_bytes: maximum size of a file.

  Yields:
    The name inside the archive and the content.

  Raises:
    RunError: the archive is damaged or of another format, or a wanted file is larger than `max_bytes` or has
      a name that leaves the archive.
  """
  read = (
    _folder_members if path.is_dir() else _zip_members if zipfile.is_zipfile(path) else _tar_members
  )
  try:
    for name, content in read(path, wanted, max_bytes + 1):
      if name.is_absolute() or ".." in name.parts:
        raise RunError(
          f"{path} contains '{name}', which leaves the archive: it is not the official archive."
        )
      if is_hidden(name):  # such as `__MACOSX/._a.jpg`, added when it was packed again
        continue
      if len(content) > max_bytes:
        raise RunError(
          f"'{name}' in {path} is larger than {max_bytes >> 20} MiB: it is not the official file."
        )
      yield name, content
  except (RunError, FileNotFoundError, PermissionError):
    raise
  # Besides their own errors, readers raise others for invalid headers: a gzip of three bytes is a TypeError.
  except Exception as error:
    raise RunError(f"{path} is damaged ({error}). Delete it and download it again.") from error


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
  # Streaming mode reads the file once, sequentially, for any compression.
  with tarfile.open(path, "r|*") as archive:
    for info in archive:
      name = PurePosixPath(info.name)
      if info.isreg() and wanted(name):
        handle = archive.extractfile(info)
        assert handle is not None
        yield name, handle.read(limit)


def check_md5(path: Path, md5: str) -> None:
  """Compare a file with its published checksum, if there is one.

  Raises:
    RunError: they differ.
  """
  if not md5:
    return
  with path.open("rb") as handle:
    found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
  if found != md5:
    raise RunError(
      f"{path} is not the official file (md5 {found}, published {md5}). Delete it and download it again."
    )
