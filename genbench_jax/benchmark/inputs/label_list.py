"""Read lists of images and labels: CSV, TSV, JSON lines or JSON, such as `labels.csv` or Hugging Face's `metadata.csv`.

The file column is named `file_name`, `path` etc., the class column `class_name`, `label` etc. In `labels.csv`,
any other column may contain the class.
"""

import collections
import csv
import functools
import io
import json
import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from genbench_jax.benchmark.inputs.image_list import (
  CLASS_COLUMNS,
  ImageList,
  column_among,
  reader_of,
)
from genbench_jax.benchmark.inputs.pairs import delimiter_of, once_each
from genbench_jax.benchmark.inputs.tree import Place
from genbench_jax.errors import UsageError
from genbench_jax.runtime.printable import listed
from genbench_jax.store.files import plain_cell
from genbench_jax.store.image_files import ImageWalk
from genbench_jax.store.reading import read_beneath

NAMES = ("labels.csv", "metadata.csv", "metadata.jsonl")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
MOST_BYTES = 1 << 28
_FILE_COLUMNS = (
  "file_name", "file", "file_path", "path", "image", "image_path", "image_file", "image_name", "img",
  "img_path", "name", "image_id", "id",
)  # fmt: skip

Rows = list[dict[str, Any]]


def list_in(folder: Path) -> Path | None:
  """Return the list of labels in a folder; None if there is none, or one without classes."""
  for name in NAMES:
    file = folder / name
    if os.path.lexists(file) and has_classes(name, functools.partial(_rows, file)):
      return file
  return None


def has_classes(name: str, rows: Callable[[], Rows]) -> bool:
  """Return whether a list names classes; Hugging Face's `metadata` may contain only captions."""
  return name == NAMES[0] or _class_column(rows()) is not None


def open_list(file: Path) -> ImageList:
  """Return the images named by a list, which are next to it or below."""
  return listed_images(file, ImageWalk(file.parent.resolve()), Place("", ()))


def listed_images(file: Path, walk: ImageWalk, place: Place) -> ImageList:
  """Return the images named by a list.

  Args:
    file: the list.
    walk: walk through the folder with the images.
    place: the list's place inside that folder; listed files are next to it or below.

  Raises:
    UsageError: the list can't be read, lacks the columns, or names files outside its folder.
  """
  classes, notes = classes_of(file, _rows(file))
  paths = {posixpath.join(place.folder, path): names for path, names in classes.items()}
  found = [path for path in paths if walk.is_image(path)]
  if paths and not found:
    raise UsageError(
      f"{file} names no image that can be used. {' '.join(walk.notes())} Paths are relative to the list's folder."
    )
  return ImageList(
    walk.root,
    found,
    [tuple(paths[path]) for path in found],
    [(walk.root, path) for path in found],
    [None] * len(found),
    reader_of(walk.root, found),
    (*place.notes, *notes, *walk.notes()),
    tuple(dict.fromkeys(name for names in paths.values() for name in names)),
  )


def classes_of(file: Path, rows: Rows) -> tuple[dict[str, list[str]], list[str]]:
  """Return file -> class names, and notes. Paths are normalized: `./a.png` is `a.png`.

  Raises:
    UsageError: the list lacks the columns, or names files outside its folder.
  """
  path_column, class_column = _columns(file, rows)
  found: dict[str, list[str]] = defaultdict(list)
  outside, several = [], 0
  for number, row in enumerate(rows, 1):
    if row.get(path_column) is None:  # only JSON can lack it, or have null
      raise UsageError(
        f"{file}: entry {number} has no {path_column!r}. Name the file of each image."
      )
    path, names = _inside(file, str(row[path_column])), _names(row.get(class_column))
    several += len(names) > 1
    if path is None:
      outside.append(str(row[path_column]))
    elif names and names[0] not in found[path]:
      found[path].append(names[0])
  if outside:
    raise UsageError(
      f"{file} names files outside its folder: {listed(outside)}. Move the list to the folder of the"
      " images or a folder above it."
    )
  notes = [f"{several} images have several classes; the first one is used."] if several else []
  return {path: names for path, names in found.items() if names}, notes


def _inside(file: Path, path: str) -> str | None:
  """Return the path relative to the list's folder; None if it is outside. Lists from Windows have `\\`."""
  path = path.replace("\\", "/")
  if PurePath(path).is_absolute():
    try:
      path = str(PurePath(path).relative_to(file.parent.absolute()))
    except ValueError:
      return None
  return None if ".." in PurePath(path).parts else posixpath.normpath(path)


def _names(value: Any) -> list[str]:
  """Return the class names of an image; an empty list if none is given."""
  if isinstance(value, str) and value[:2] in ("['", '["') and value[-1] == "]":
    value = [part.strip(" '\"") for part in value[1:-1].split(",")]  # a list as written by pandas
  values = value if isinstance(value, list) else [value]
  return [str(name).strip() for name in values if name is not None and str(name).strip()]


def _columns(file: Path, rows: Rows) -> tuple[str, str]:
  if not rows:
    raise UsageError(f"{file} must have the columns file,label and one line per image.")
  columns = [column for column in rows[0] if column is not None]
  path_column = column_among(columns, _FILE_COLUMNS)
  if path_column is None:
    raise UsageError(
      f"{file} has no header: its first line is {','.join(columns[:2])!r}, expected 'file,label'. Insert"
      " that line at the top."
    )
  class_column = _class_column(rows, path_column)
  if class_column is None and file.name == NAMES[0]:
    class_column = next((c for c in columns if c != path_column), None)
  if class_column is None:
    raise UsageError(
      f"{file} has no class column among {listed(columns)}; name it one of"
      f" {', '.join(CLASS_COLUMNS)}."
    )
  return path_column, class_column


def _class_column(rows: Rows, path_column: str | None = None) -> str | None:
  columns = [c for c in (rows[0] if rows else ()) if c is not None and c != path_column]
  return column_among(columns, CLASS_COLUMNS)


def _rows(file: Path) -> Rows:
  """Return the rows of a list as dictionaries.

  Raises:
    UsageError: the list can't be read.
  """
  try:
    return rows_in(file, read_beneath(file.parent, file.name, MOST_BYTES))
  except OSError as error:
    raise UsageError(f"{file} can't be read: {error}.") from error


def rows_in(file: Path, content: bytes) -> Rows:
  """Return the rows of a list as dictionaries.

  Args:
    file: path of the list, for its suffix and messages.
    content: its content.

  Raises:
    UsageError: the list can't be read.
  """
  suffix = file.suffix.lower()
  form = "JSON" if "json" in suffix else "CSV"
  try:
    text = content.decode("utf-8-sig")
    if suffix == ".json":
      return _json_rows(_parsed(text))
    if form == "JSON":
      return _json_rows([_parsed(line) for line in text.split("\n") if line.strip()])
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    _refuse_same_columns(rows.fieldnames or ())
    found = [row for row in rows if any(row.values())]
  except (UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
    raise UsageError(f"{file} can't be read as {form}: {error}.") from error
  if any(None in row or None in row.values() for row in found):
    raise UsageError(f"{file} must have the columns file,label and one line per image.")
  return [{column: plain_cell(value) for column, value in row.items()} for row in found]


def _refuse_same_columns(columns: Sequence[str]) -> None:
  """Reject a header that names a column twice; the reader would silently take the last.

  Raises:
    ValueError: it does.
  """
  counts = collections.Counter(name for name in columns if name.strip())
  if several := [name for name, count in counts.items() if count > 1]:
    raise ValueError(f"several columns are named {several[0][:80]!r}; keep one of them")


def _parsed(text: str) -> Any:
  return json.loads(text, object_pairs_hook=once_each)


def _json_rows(value: Any) -> Rows:
  """Return the rows of a list of objects, or of a mapping from file to class."""
  if isinstance(value, Mapping):
    value = [{"file": path, "label": name} for path, name in value.items()]
  if not isinstance(value, Sequence) or not all(isinstance(row, dict) for row in value):
    raise ValueError("expected one object per image, or a mapping from file to class")
  return list(value)
