"""Read a file that maps the user's own names to classes: CSV, JSON or YAML."""

import csv
import io
import json
from pathlib import Path

from genbench_jax.benchmark.inputs.pairs import once_each
from genbench_jax.errors import UsageError
from genbench_jax.store.reading import read_file
from genbench_jax.store.yaml_files import read_yaml

_MOST_BYTES = 1 << 26


def read_class_map(file: Path) -> dict[str, str]:
  """Return name -> class. An empty class excludes the images of that name.

  Args:
    file: two columns of CSV, with or without the header `name,class`, or a mapping in JSON or YAML.

  Raises:
    UsageError: the file can't be read, or has other content.
  """
  try:
    text = read_file(file.expanduser(), _MOST_BYTES, follow=True).decode("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f"the class map {str(file)!r} can't be read: {error}.") from error
  is_table = file.suffix.lower() in (".csv", ".tsv", ".txt")
  try:
    value = _csv(text) if is_table else _mapping(file, text)
  except (csv.Error, OSError, ValueError, RecursionError) as error:
    reason = " ".join(str(error).split())
    raise UsageError(f"the class map {file} can't be read: {reason}.") from error
  if not isinstance(value, dict) or not value:
    raise UsageError(f"the class map {file} must map each name to a class, as CSV, JSON or YAML.")
  return {str(name): "" if label is None else str(label) for name, label in value.items()}


def _csv(text: str) -> dict[str, str] | None:
  delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
  rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
  if rows and [cell.strip().casefold() for cell in rows[0][:2]] in _HEADERS:
    rows = rows[1:]
  if not all(len(row) > 1 for row in rows):
    return None
  return once_each((row[0], row[1].strip()) for row in rows)


_HEADERS = [
  [first, second]
  for first in ("name", "folder", "from", "label")
  for second in ("class", "class_name", "to")
]


def _mapping(file: Path, text: str) -> object:
  if file.suffix.lower() == ".json":
    return json.loads(text, object_pairs_hook=once_each)
  return read_yaml(file, follow=True)
