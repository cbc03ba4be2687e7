"""Read Parquet files with embedded images, as Hugging Face writes them, with columns `image` and `label`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.inputs.image_list import CLASS_COLUMNS, ImageList, column_among
from genbench_jax.benchmark.inputs.spool import spool_for
from genbench_jax.errors import UsageError
from genbench_jax.runtime.printable import listed

_IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png", "webp", "bytes", "image_bytes", "picture")
_ROWS = 64


def is_parquet(path: Path) -> bool:
  """Return whether a file name is that of a Parquet file."""
  return path.suffix.lower() == ".parquet"


def parquet_images(paths: Sequence[Path], cache: Path) -> ImageList:
  """Return the images of Parquet files.

  Images are copied out once, a few rows at a time, because a row group may be larger than the memory.

  Args:
    paths: the files, in order.
    cache: folder for the copy.

  Raises:
    UsageError: a file can't be read, or has no image or class column.
  """

  def images() -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    for path in paths:
      yield from _images(path)

  root = paths[0] if len(paths) == 1 else paths[0].parent
  return spool_for(cache, "parquet-2", paths).fill(images).image_list(root, paths)


def _images(path: Path) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    with pq.ParquetFile(path) as file:
      image_column, class_column = _columns(path, file.schema_arrow.names)
      names = class_labels(file.schema_arrow.metadata or {}, class_column)
      row = 0
      for batch in file.iter_batches(_ROWS, columns=[image_column, class_column]):
        images, labels = (batch.column(c).to_pylist() for c in (image_column, class_column))
        for image, label in zip(images, labels, strict=True):
          content = image.get("bytes") if isinstance(image, dict) else image
          classes = () if label in (None, []) else (_named(label, names),)
          yield f"{path.name}/{row}", classes, content if isinstance(content, bytes) else b""
          row += 1
  except (OSError, pa.ArrowException, ValueError) as error:
    if isinstance(error, UsageError):
      raise
    raise UsageError(f"{path} can't be read as Parquet: {error}.") from error


def _named(label: Any, names: Sequence[str]) -> str:
  label = label[0] if isinstance(label, list) else label
  is_index = isinstance(label, int) and 0 <= label < len(names)
  return names[label] if is_index else str(label)


def _columns(path: Path, columns: Sequence[str]) -> tuple[str, str]:
  wanted_columns = (_IMAGE_COLUMNS, CLASS_COLUMNS)
  found = [column_among(columns, wanted) for wanted in wanted_columns]
  for column, what, wanted in zip(found, ("images", "classes"), wanted_columns, strict=True):
    if column is None:
      raise UsageError(
        f"{path} has no column of {what} among {listed(columns)}; name it one of {', '.join(wanted)}."
      )
  return str(found[0]), str(found[1])


def class_labels(metadata: dict[bytes, bytes], column: str) -> list[str]:
  """Return a column's class names from the schema metadata of Hugging Face datasets; empty if missing."""
  try:
    feature = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][column]
    feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    names = feature.get("names")
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    return []
  return [str(name) for name in names] if isinstance(names, list) else []
