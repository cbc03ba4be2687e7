"""Values of a row's single classes: one JSON line per cell and quantity, next to the cell's rows.

Classes for which the quantity is undefined (no test or external images) are omitted. Names shared by
several classes are numbered, as in image sets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from genbench_jax.store import files, rows
from genbench_jax.store.image_set import distinct_names
from genbench_jax.store.rows import Row

KEYS = (*rows.KEYS, "quantity")
# Most values are ratios of counts of test images, so further digits are meaningless.
DIGITS = 6


class ClassValues(TypedDict):
  """Values of a row's classes: `values` maps class name to value, the other keys are the row's."""

  dataset: str
  source: str
  generator: str
  strategy: str
  shots: int
  seed: int
  protocol: str
  encoder: str
  quantity: str
  values: Mapping[str, float]


def of_row(row: Row, by_class: Mapping[int, float], class_names: Sequence[str]) -> ClassValues:
  """Return the values of the classes behind a row.

  Args:
    row: the measured row.
    by_class: class index -> value, in the quantity's own unit.
    class_names: name of each class, in label order; need not be distinct.
  """
  names = distinct_names(class_names)
  values = {names[index]: round(value, DIGITS) for index, value in sorted(by_class.items())}
  return cast(ClassValues, {**dict(zip(KEYS, key_of(row), strict=True)), "values": values})


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """Return the key columns that identify a row or the values of its classes."""
  return tuple(row.get(key) for key in KEYS)


def write(path: Path, values: Sequence[ClassValues]) -> None:
  """Write the file atomically."""
  files.write_json_lines(path, values, sealed=True)


def read(path: Path) -> list[ClassValues]:
  """Return the values in a file, in order."""
  return cast(list[ClassValues], files.read_json_lines(path, sealed=True))
