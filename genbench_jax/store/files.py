"""Files that are either whole or absent, whenever the process dies."""

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.disk import disk_reason
from genbench_jax.store.reading import read_file

# The version of all files that a run writes. Raise it when one changes so that older code would misread it.
FORMAT = 1
ABOUT = "genbench_jax"
_SEAL, _SECONDS = "sha256", "seconds"
_PART = ".part"
_LONGEST_STEM = 100
# Larger files of JSON are none of ours.
_MOST_BYTES = 1 << 31
# Spreadsheets take a cell that begins so for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
  """A temporary path to write to; on success it is flushed to disk and takes the real name.

  The file is made anew under a name that nobody can foresee: a link that was planted is not followed, and where one
  stands under the real name, the link itself is replaced.

  Raises:
    RunError: the disk is full or the folder can't be written to. What stood there stays.
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
  """The beginning of a name, so that what is put around it fits into a file name of 255 bytes."""
  return name.encode("utf-8", "surrogateescape")[:_LONGEST_STEM].decode("utf-8", "ignore")


def is_part(name: str) -> bool:
  """Whether a file's name is that of a file in the making, or of what a killed process has left of one."""
  return name.startswith(".") and name.endswith(_PART)


def remove_parts(folder: Path) -> None:
  """Remove what killed processes have left half written. Only for whoever has the folder to himself."""
  for place, _, names in os.walk(folder):
    for name in filter(is_part, names):
      with contextlib.suppress(OSError):
        Path(place, name).unlink()


def flush(path: Path) -> None:
  """Waits until a file or folder is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)


def write_array(path: Path, array: np.ndarray) -> None:
  """Writes a .npy file, which `numpy.load` reads."""
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=False)
  write_bytes(path, buffer.getvalue())


def write_text(path: Path, text: str) -> None:
  write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
  """Write a JSON file. An object gets the version of the format and its checksum in the key `genbench_jax`."""
  if isinstance(value, dict):
    value = json.loads(json.dumps(value))  # as it will be read: keys are text, tuples are lists
    value[ABOUT] = {"format": FORMAT, _SEAL: _json_checksum(value)}
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _json_checksum(value: Any) -> str:
  """The checksum of a JSON value but for its times, so that the same work has the same seal."""
  return hashlib.sha256(json.dumps(_timeless(value), sort_keys=True).encode()).hexdigest()


def _timeless(value: Any) -> Any:
  if isinstance(value, list):
    return [_timeless(inner) for inner in value]
  if not isinstance(value, dict):
    return value
  return {key: _timeless(inner) for key, inner in value.items() if key != _SECONDS}


def check_format(path: Path, version: object) -> None:
  """Refuse a file of a later format than this version knows.

  Raises:
    RunError: it is of a later format, or says no number.
  """
  if not isinstance(version, int) or version > FORMAT:
    raise RunError(
      f"{path} is of format {version!r}, and this version of genbench_jax knows up to {FORMAT}. Upgrade, or give another"
      " --workdir."
    )


@contextlib.contextmanager
def reading(path: Path, advice: str = "Delete it, then run again.") -> Iterator[None]:
  """Have whatever goes wrong inside end in a line that names the file: it does not hold what it should.

  For files whose reader raises whatever it likes, and for values that are used as if they were as they were written.

  Raises:
    RunError: something went wrong. A file that is not there is `FileNotFoundError`, as ever.
  """
  try:
    yield
  except (RunError, UsageError, FileNotFoundError):
    raise
  except (
    Exception
  ) as error:  # zipfile's, protobuf's, ArrayRecord's, KeyError of what is missing ...
    told = " ".join(str(error).split())[:160]
    raise RunError(f"{path} is damaged ({type(error).__name__}: {told}). {advice}") from error


def read_json(path: Path) -> Any:
  """The value in a JSON file. An object that `write_json` wrote is checked; others are taken as they are.

  Raises:
    RunError: it is not JSON, not what was written, or of a later format.
  """
  try:
    value = json.loads(_text(path))
  except (
    ValueError,
    RecursionError,
  ) as error:  # no JSON, no UTF-8, a number of 5,000 digits, too deep
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error
  about = value.pop(ABOUT, None) if isinstance(value, dict) else None
  if isinstance(about, dict):
    check_format(path, about.get("format"))
    if about.get(_SEAL) != _json_checksum(value):
      raise RunError(f"{path} is damaged (its checksum differs). Delete it, then run again.")
  return value


def _text(path: Path) -> str:
  """The text of a file; a pipe or a device is none.

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
  """One value a line; sealed, with the version of the format and their checksum in two last lines."""
  text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
  if sealed:
    text += json.dumps({"format": FORMAT}) + "\n"
    text += json.dumps({_SEAL: hashlib.sha256(text.encode()).hexdigest()}) + "\n"
  write_text(path, text)


def read_json_lines(path: Path, sealed: bool = False) -> list[dict[str, Any]]:
  """The objects in a file of JSON lines.

  Raises:
    RunError: it holds something else, or not what was sealed.
  """
  try:
    # By line feeds alone: `splitlines` also cuts at letters that a name may hold, such as U+2028.
    lines = [line + "\n" for line in _text(path).split("\n")]
    lines = lines[:-1] if lines[-1] == "\n" else [*lines[:-1], lines[-1][:-1]]
    values = [json.loads(line) for line in lines]
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error
  if not all(isinstance(value, dict) for value in values):
    raise RunError(f"{path} is damaged: a line holds no JSON object. Delete it, then run again.")
  if sealed:
    seal = values.pop().get(_SEAL) if values else None
    if seal != hashlib.sha256("".join(lines[:-1]).encode()).hexdigest():
      raise RunError(f"{path} is damaged (its checksum differs). Delete it, then run again.")
    if values and set(values[-1]) == {"format"}:  # files of the first versions have no such line
      check_format(path, values.pop()["format"])
  return values


def write_csv(path: Path, values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
  write_text(path, csv_text(values, columns))


def csv_text(values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
  """Return rows as CSV with a header; keys that are no columns are left out."""
  buffer = io.StringIO(newline="")
  writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
  writer.writeheader()
  writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in values)
  return buffer.getvalue()


def csv_cell(value: Any) -> Any:
  """Return a value as a cell of CSV: a text that a spreadsheet would take for a formula gets an apostrophe before it."""
  if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
    return f"'{value}"
  return value


def checksums(folder: Path) -> dict[str, str]:
  """Return the SHA-256 of every file in a folder and below it, by its path there."""
  paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_part(path.name))
  return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
  """Twelve hexadecimal digits that stand for a JSON value, the same for the same value."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
  return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
