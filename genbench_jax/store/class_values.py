"""Values of single classes: one JSON line a cell and quantity, beside the rows of the cell.

A class whose quantity is not defined (no test image, no external image) is left out; names that stand for
several classes are numbered, as in image sets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from genbench_jax.store import files
from genbench_jax.store.image_set import distinct_names
from genbench_jax.store.rows import Row

KEYS = (
  "dataset",
  "source",
  "generator",
  "strategy",
  "shots",
  "seed",
  "protocol",
  "encoder",
  "quantity",
)
# Counts of test images stand behind most values: more digits say nothing.
DIGITS = 6


class ClassValues(TypedDict):
  """`values` is class name -> value, in the quantity's own unit; the other keys are those of the row."""

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
  """The values of the classes that stand behind a row.

  Args:
    row: what was measured.
    by_class: class index -> value.
    class_names: one a class, in label order; not necessarily distinct.
  """
  names = distinct_names(class_names)
  values = {names[index]: round(value, DIGITS) for index, value in sorted(by_class.items())}
  return cast(ClassValues, {**dict(zip(KEYS, key_of(row), strict=True)), "values": values})


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """What a row, or the values of its classes, is of."""
  return tuple(row.get(key) for key in KEYS)


def write(path: Path, values: Sequence[ClassValues]) -> None:
  """Writes the file whole or not at all."""
  files.write_json_lines(path, values, sealed=True)


def read(path: Path) -> list[ClassValues]:
  """The values in a file, in their order."""
  return cast(list[ClassValues], files.read_json_lines(path, sealed=True))
