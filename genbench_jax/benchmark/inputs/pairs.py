"""What lists and mappings share: the delimiter of a CSV file, and files that contradict themselves."""

from collections.abc import Iterable
from typing import Any


def delimiter_of(text: str) -> str:
  """Return the delimiter of a CSV file, the most frequent one of its first line; a comma if there is none.

  Spreadsheets write a semicolon where the comma is the decimal separator.
  """
  return max(",;\t", key=text.partition("\n")[0].count)


def once_each(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
  """Return a mapping; with `json.loads(..., object_pairs_hook=once_each)`, of each object.

  Raises:
    ValueError: a key has two different values; Python would silently take the last.
  """
  found: dict[str, Any] = {}
  for key, value in pairs:
    if found.setdefault(key, value) != value:
      raise ValueError(
        f"{key[:80]!r} has two values, {str(found[key])[:80]!r} and {str(value)[:80]!r}"
      )
  return found
