"""Record files prepared by TFDS (ArrayRecord or TFRecord), read without TensorFlow.

A record is a `tf.Example`. Records of TFDS's `laion400m/images` hold an encoded image and its
caption; those of `laion400m/embeddings` hold the features of both.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.store.image_files import visible

INFO = "dataset_info.json"
_ARRAY_RECORD, _TFRECORD = ".array_record-", ".tfrecord-"
# Layout of a TFRecord: length (8 bytes), its checksum, the record, its checksum.
_LENGTH, _CHECKSUM = 8, 4

Record = dict[str, Any]


def record_files(folder: Path) -> list[Path]:
  """Return the record files that TFDS prepared in a folder, in name order; empty if none."""
  if not (folder / INFO).is_file():
    return []
  return [path for path in visible(folder, "*") if holds_records(path) and path.is_file()]


def holds_records(path: Path) -> bool:
  """Return whether a file has the name of a record file."""
  return _ARRAY_RECORD in path.name or _TFRECORD in path.name


class RecordFile:
  """Random access to the records of a file.

  Args:
    path: path of the file.

  Raises:
    RunError: the file cannot be read or is truncated.
  """

  def __init__(self, path: Path) -> None:
    self.path = path
    self._in_array = _ARRAY_RECORD in path.name
    self._starts = () if self._in_array else _starts(path)
    self._reader = _array_reader(path) if self._in_array else None

  def __len__(self) -> int:
    return len(self._starts) if self._reader is None else self._reader.num_records()

  def read(self, numbers: Sequence[int]) -> list[Record]:
    """Return the features of each requested record, by name.

    Raises:
      RunError: a record cannot be parsed.
    """
    return [self._parsed(content) for content in self._contents(list(numbers))]

  def _contents(self, numbers: list[int]) -> list[bytes]:
    if self._reader is None:
      with self.path.open("rb") as file:
        return [_tfrecord(file, self._starts[number]) for number in numbers]
    try:
      return self._reader.read(numbers) if numbers else []
    except (RuntimeError, ValueError, IndexError) as error:
      raise _unreadable(self.path, error) from error

  def _parsed(self, content: bytes) -> Record:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
      features = tf_example_pb2.Example.FromString(content).features.feature
    except DecodeError as error:
      raise _unreadable(self.path, error) from error
    kinds = ((name, feature, feature.WhichOneof("kind")) for name, feature in features.items())
    return {name: getattr(feature, kind).value for name, feature, kind in kinds if kind}


def text_of(record: Record, name: str) -> str:
  """Return a text feature of a record; empty if it has none."""
  values = record.get(name) or [b""]
  return bytes(values[0]).decode("utf-8", errors="replace")


def image_of(path: Path, number: int) -> bytes:
  """Return the encoded image of a record.

  Raises:
    OSError: the record has no image or cannot be read.
  """
  try:
    (record,) = _opened(path).read([number])
    return bytes(record["image"][0])
  except (RunError, LookupError) as error:
    raise OSError(f"record {number} of {path} has no image") from error


@functools.lru_cache(maxsize=16)
def _opened(path: Path) -> RecordFile:
  return RecordFile(path)


def _array_reader(path: Path) -> Any:
  from array_record.python.array_record_module import ArrayRecordReader

  reader = ArrayRecordReader(str(path))
  if not reader.ok():
    raise _unreadable(path, "damaged, or not an ArrayRecord")
  return reader


def _starts(path: Path) -> tuple[int, ...]:
  """Return the offsets of the records of a TFRecord file."""
  size, starts, at = path.stat().st_size, [], 0
  with path.open("rb") as file:
    while at < size:
      starts.append(at)
      file.seek(at)
      at += _LENGTH + _CHECKSUM + int.from_bytes(file.read(_LENGTH), "little") + _CHECKSUM
  if at > size:
    raise RunError(f"{path} is cut short, or not a TFRecord file.")
  return tuple(starts)


def _tfrecord(file: Any, start: int) -> bytes:
  file.seek(start)
  length = int.from_bytes(file.read(_LENGTH), "little")
  file.seek(_CHECKSUM, 1)
  return file.read(length)


def _unreadable(path: Path, error: object) -> RunError:
  return RunError(f"{path} can't be read as a record file: {' '.join(str(error).split())}.")
