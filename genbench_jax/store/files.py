"""Files that are either whole or absent, whenever the process dies."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
  """A temporary path to write to; on success it is flushed to disk and takes the real name.

  Raises:
    RunError: the disk is full or the folder can't be written to. What stood there stays.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.part")
  try:
    yield temporary
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
      raise RunError(f"can't write {path}: {error.strerror}. Complete files are intact.") from error
    raise


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
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
  """The value in a JSON file.

  Raises:
    RunError: it is not JSON.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error


def write_json_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
  write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_csv(path: Path, values: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
  buffer = io.StringIO(newline="")
  writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
  writer.writeheader()
  writer.writerows(values)
  write_text(path, buffer.getvalue())


def sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
  """Twelve hexadecimal digits that stand for a JSON value, the same for the same value."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
  return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
