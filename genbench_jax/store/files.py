"""Atomic writes and checked reads: a file is either complete or absent, even if the process is killed."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.disk import disk_reason
from genbench_jax.store.reading import read_file, regular

# Format version of all files that a run writes. Increment it if older code would misread a changed file.
FORMAT = 1
ABOUT = "genbench_jax"
_SEAL, _SECONDS = "sha256", "seconds"
_PART = ".part"
_LONGEST_STEM = 100
# No JSON file of ours is larger.
_MOST_BYTES = 1 << 31
# Spreadsheets interpret cells that begin with these as formulas.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
  """Yield a temporary path to write to; on success, flush it to disk and rename it.

  The temporary file is created under an unpredictable name, so that a planted link is never followed. If
  `path` is a link, the link itself is replaced.

  Raises:
    RunError: the disk is full or the folder is not writable. An existing file stays as it was.
  """
  temporary = path.with_name(f".{_short(path.name)}.{secrets.token_hex(6)}{_PART}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    yield temporary
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)
  except BaseException as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    if reason := disk_reason(error):
      raise RunError(f"can't write {path}: {reason}. Complete files are intact.") from error
    raise


def _short(name: str) -> str:
  """Truncate a name, so that a prefix and suffix fit into the limit of 255 bytes for file names."""
  return name.encode("utf-8", "surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")


def is_part(name: str) -> bool:
  """Return whether a file name is that of a temporary file of `atomic_path`."""
  return name.startswith(".") and name.endswith(_PART)


def remove_parts(folder: Path) -> None:
  """Remove temporary files of killed processes. The caller must have exclusive access to the folder."""
  for place, _, names in os.walk(folder):
    for name in filter(is_part, names):
      with contextlib.suppress(OSError):
        Path(place, name).unlink()


def flush(path: Path) -> None:
  """Wait until a file or folder is on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
  """Write a file atomically, see `atomic_path`."""
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)


def write_array(path: Path, array: np.ndarray) -> None:
  """Write a .npy file."""
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=False)
  write_bytes(path, buffer.getvalue())


def scratch_array(folder: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
  """Return an array in a file without a name: its pages can leave memory, and it is gone with the process.

  Args:
    folder: folder with the room for it.
    shape: shape of the array.

  Raises:
    RunError: there is no room.
  """
  size = math.prod(shape)
  try:
    with tempfile.TemporaryFile(dir=folder) as file:
      # Without reserved blocks, writing to the mapping on a full disk would end the process by SIGBUS.
      os.posix_fallocate(file.fileno(), 0, size)
      return np.memmap(file, np.uint8, "r+", shape=shape)
  except OSError as error:
    reason = disk_reason(error) or error.strerror
    raise RunError(f"can't keep {size >> 20} MiB in {folder}: {reason}. Make room.") from error


def write_arrays(path: Path, compressed: bool = False, **arrays: np.ndarray) -> None:
  """Write an .npz file, which `numpy.load` reads; the array `format` contains the format's version."""
  save = np.savez_compressed if compressed else np.savez
  with atomic_path(path) as temporary, temporary.open("wb") as file:
    save(file, **arrays, format=np.asarray(FORMAT))  # type: ignore[arg-type]


def check_arrays_format(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Check that this version can read the format of an .npz file. The oldest files do not state one.

  Raises:
    RunError: the file has a later format.
  """
  if "format" in arrays:
    check_format(path, arrays["format"].item())


def write_text(path: Path, text: str) -> None:
  """Write a UTF-8 file atomically."""
  write_bytes(path, _encoded(text))


def _encoded(text: str) -> bytes:
  """Return text as UTF-8. Surrogates, as in paths of other bytes, become escapes, which JSON reads back."""
  return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, value: Any) -> None:
  """Write a JSON file. An object gets the format version and its checksum under the key `genbench_jax`."""
  if isinstance(value, dict):
    value = json.loads(json.dumps(value))  # normalize: keys become strings, tuples become lists
    value[ABOUT] = {"format": FORMAT, _SEAL: _json_checksum(value)}
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _json_checksum(value: Any) -> str:
  """Return the checksum of a JSON value without its `seconds`, so that equal work has an equal checksum."""
  return hashlib.sha256(json.dumps(_timeless(value), sort_keys=True).encode()).hexdigest()


def _timeless(value: Any) -> Any:
  if isinstance(value, list):
    return [_timeless(inner) for inner in value]
  if not isinstance(value, dict):
    return value
  return {key: _timeless(inner) for key, inner in value.items() if key != _SECONDS}


def check_format(path: Path, version: object) -> None:
  """Check that this version can read a file's format.

  Raises:
    RunError: the format is newer, or not a number.
  """
  if not isinstance(version, int) or version > FORMAT:
    raise RunError(
      f"{path} has format {version!r}, but this version of genbench_jax reads up to {FORMAT}. Upgrade, or give another"
      " --workdir."
    )


@contextlib.contextmanager
def reading(path: Path, advice: str = "Delete it, then run again.") -> Iterator[None]:
  """Turn any error in the block into a message that names the file as damaged.

  For readers that raise arbitrary types, and for code that relies on the file's content being valid.

  Raises:
    RunError: an error occurred. A missing file still raises `FileNotFoundError`.
  """
  try:
    yield
  except (RunError, UsageError, FileNotFoundError):
    raise
  except Exception as error:  # from zipfile, protobuf, ArrayRecord, or a missing key
    told = " ".join(str(error).split())[:160]
    raise RunError(f"{path} is damaged ({type(error).__name__}: {told}). {advice}") from error


def read_json(path: Path) -> Any:
  """Return the value in a JSON file. The checksum of an object that `write_json` wrote is verified.

  Raises:
    RunError: the file is damaged, or of a newer format.
  """
  try:
    value = json.loads(read_text(path))
  except (
    ValueError,
    RecursionError,
  ) as error:  # not JSON, not UTF-8, a number of 5,000 digits, or nested too deeply
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error
  about = value.pop(ABOUT, None) if isinstance(value, dict) else None
  if isinstance(about, dict):
    check_format(path, about.get("format"))
    if about.get(_SEAL) != _json_checksum(value):
      raise RunError(f"{path} is damaged (its checksum differs). Delete it, then run again.")
  return value


def read_text(path: Path) -> str:
  """Return the text of a regular file.

  Raises:
    FileNotFoundError: there is no such file.
    RunError: it can't be read.
  """
  try:
    return read_file(path, _MOST_BYTES, follow=True).decode("utf-8")
  except FileNotFoundError:
    raise
  except OSError as error:
    raise RunError(f"{path} can't be read: {error.strerror or error}.") from error


def write_json_lines(path: Path, values: Sequence[Mapping[str, Any]], sealed: bool = False) -> None:
  """Write one JSON object per line, atomically.

  Args:
    path: the file.
    values: one JSON object per line.
    sealed: whether to append the format version and a checksum, one line each.
  """
  text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
  if sealed:
    text += json.dumps({"format": FORMAT}) + "\n"
    text += json.dumps({_SEAL: hashlib.sha256(_encoded(text)).hexdigest()}) + "\n"
  write_text(path, text)


def read_json_lines(path: Path, sealed: bool = False) -> list[dict[str, Any]]:
  """Return the objects in a file of JSON lines.

  Raises:
    RunError: the file is damaged.
  """
  try:
    # Split at "\n" only: `splitlines` also splits at characters that names may contain, such as U+2028.
    lines = [line + "\n" for line in read_text(path).split("\n")]
    lines = lines[:-1] if lines[-1] == "\n" else [*lines[:-1], lines[-1][:-1]]
    values = [json.loads(line) for line in lines]
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error
  if not all(isinstance(value, dict) for value in values):
    raise RunError(f"{path} is damaged: a line is not a JSON object. Delete it, then run again.")
  if sealed:
    seal = values.pop().get(_SEAL) if values else None
    if seal != hashlib.sha256("".join(lines[:-1]).encode()).hexdigest():
      raise RunError(f"{path} is damaged (its checksum differs). Delete it, then run again.")
    if values and set(values[-1]) == {"format"}:  # files of the first version have no such line
      check_format(path, values.pop()["format"])
  return values


def write_csv(path: Path, values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
  """Write rows as CSV with a header, atomically.

  Args:
    path: the file.
    values: rows.
    columns: columns of the file; other keys are ignored.
  """
  write_text(path, csv_text(values, columns))


def csv_text(values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
  """Return rows as CSV with a header; keys that are not columns are ignored."""
  lines = [csv_line(columns), *(csv_line([row.get(name) for name in columns]) for row in values)]
  return "".join(lines)


def csv_line(cells: Iterable[Any]) -> str:
  """Return a line of CSV. A carriage return in a cell is quoted, too: readers take it for the end of a line."""
  buffer = io.StringIO(newline="")
  # Python quotes the characters of the line's end, and with "\n" alone not the carriage return.
  csv.writer(buffer, lineterminator="\r\n").writerow(map(csv_cell, cells))
  return buffer.getvalue().removesuffix("\r\n") + "\n"


def csv_cell(value: Any) -> Any:
  """Return a value as a CSV cell; an apostrophe protects text that a spreadsheet would run as a formula."""
  if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
    return f"'{value}"
  return value


def plain_cell(cell: str | None) -> str | None:
  """Return the value of a cell that `csv_cell` may have protected."""
  return cell[1:] if cell and cell[0] == "'" and cell[1:].startswith(_FORMULA_STARTS) else cell


def checksums(folder: Path) -> dict[str, str]:
  """Return a map from relative path to SHA-256 for all files below a folder."""
  paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_part(path.name))
  return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def sha256(path: Path) -> str:
  """Return the SHA-256 of a regular file as hexadecimal digits.

  Raises:
    OSError: there is no such regular file.
  """
  with regular(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
  """Return twelve hexadecimal digits that identify a JSON value."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
  return hashlib.sha256(_encoded(text)).hexdigest()[:12]
