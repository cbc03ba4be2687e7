"""Read a file that maps the user's own names to classes: CSV, JSON or YAML."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.inputs.pairs import delimiter_of, once_each
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
  found = _mapping_of(file, "class map", "each name to a class", 2)
  return {name: "" if label is None else str(label) for name, label in found.items()}


def read_class_words(file: Path) -> dict[str, list[str]]:
  """Return label -> its words: a list, or a text with commas. In CSV, each further column is another word.

  Args:
    file: as for `read_class_map`.

  Raises:
    UsageError: the file can't be read, or has other content.
  """
  found = _mapping_of(file, "file of class names", "each label to its words", None)
  return {
    label: [str(word) for word in words] if isinstance(words, list) else _split(words)
    for label, words in found.items()
  }


def _split(words: object) -> list[str]:
  return [word.strip() for word in str("" if words is None else words).split(",")]


def _mapping_of(file: Path, what: str, content: str, columns: int | None) -> dict[str, Any]:
  """Return a mapping from a file.

  Args:
    file: the file.
    what: its name in messages.
    content: what it maps, in messages.
    columns: number of columns of CSV that are used; None for all.
  """
  try:
    text = read_file(file.expanduser(), _MOST_BYTES, follow=True).decode("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UsageError(f"the {what} {str(file)!r} can't be read: {reason}.") from error
  is_table = file.suffix.lower() in (".csv", ".tsv", ".txt")
  try:
    value = _csv(text, columns) if is_table else _mapping(file, text)
  except (csv.Error, OSError, ValueError, RecursionError) as error:
    reason = " ".join(str(error).split())
    raise UsageError(f"the {what} {file} can't be read: {reason}.") from error
  if not isinstance(value, dict) or not value:
    raise UsageError(f"the {what} {file} must map {content}, as CSV, JSON or YAML.")
  return {str(name): label for name, label in value.items()}


def _csv(text: str, columns: int | None) -> dict[str, str] | None:
  lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
  rows = [row for row in lines if row]
  if rows and [cell.strip().casefold() for cell in rows[0][:2]] in _HEADERS:
    rows = rows[1:]
  if not all(len(row) > 1 for row in rows):
    return None
  return once_each((row[0], ",".join(filter(None, map(str.strip, row[1:columns])))) for row in rows)


_HEADERS = [
  [first, second]
  for first in ("name", "folder", "from", "label")
  for second in ("class", "class_name", "to")
]


def _mapping(file: Path, text: str) -> object:
  if file.suffix.lower() == ".json":
    return json.loads(text, object_pairs_hook=once_each)
  return read_yaml(file, follow=True)
