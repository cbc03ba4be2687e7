"""Rows arranged for comparison: metric and accuracy of each series at each of its budgets.

A *series* is one generator, strategy and seed at all its budgets. Budgets of a series are nested sets of the same images, so
that they are not separate evidence: what is resampled, permuted and counted is the series.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError

SERIES = ("source", "generator", "strategy", "seed")
CELL = ("dataset", *SERIES, "shots")
Row = Mapping[str, Any]
Key = tuple[Any, ...]
Values = dict[Key, float]


@dataclasses.dataclass(frozen=True)
class QuantityKey:
  """One measured quantity: its name, and the encoder whose features it was measured on."""

  quantity: str
  encoder: str


@dataclasses.dataclass(frozen=True)
class Table:
  """Metric and accuracy of one dataset; NaN where a series has no such cell.

  Attributes:
    dataset: its name; shots: the budgets.
    x: the metric; y: the accuracy.
  """

  dataset: str
  shots: tuple[int, ...]
  x: Float[np.ndarray, "b n"]
  y: Float[np.ndarray, "b n"]

  @property
  def there(self) -> Bool[np.ndarray, "b n"]:
    return ~np.isnan(self.x)

  @property
  def units(self) -> int:
    """Series that the table holds."""
    return self.x.shape[1]

  @property
  def cells(self) -> int:
    return int(self.there.sum())

  def budgets(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each budget which series have it, their metric and their accuracy."""
    for there, x, y in zip(self.there, self.x, self.y, strict=True):
      own = np.flatnonzero(there)
      yield own, x[own], y[own]

  def means(self) -> tuple[float, float]:
    """Metric and accuracy over all cells."""
    return float(np.nanmean(self.x)), float(np.nanmean(self.y))


def values_by_quantity(rows: Iterable[Row]) -> dict[str, dict[QuantityKey, Values]]:
  """protocol -> quantity and encoder -> cell -> value, without the controls.

  Raises:
    UsageError: a cell has a quantity twice.
  """
  found: dict[str, dict[QuantityKey, Values]] = {}
  for row in rows:
    if row.get("source") == "control":
      continue
    named = QuantityKey(str(row["quantity"]), str(row.get("encoder") or ""))
    cells = found.setdefault(str(row.get("protocol") or ""), {}).setdefault(named, {})
    key = tuple(_part(row, name) for name in CELL)
    if key in cells:
      where = dict(zip(CELL, key, strict=True))
      raise UsageError(f"two rows of quantity {named.quantity!r} for {where}")
    cells[key] = float(row["value"])
  return found


def _part(row: Row, name: str) -> Any:
  value = row.get(name)
  return "" if value is None else value


def tables_of(metric: Values, target: Values) -> list[Table]:
  """One table a dataset, of the cells that have both, datasets in order of name."""
  both = sorted((key for key in metric if key in target), key=repr)
  datasets = sorted({str(key[0]) for key in both})
  return [
    _table(dataset, [key for key in both if str(key[0]) == dataset], metric, target)
    for dataset in datasets
  ]


def _table(dataset: str, keys: list[Key], metric: Values, target: Values) -> Table:
  series = sorted({key[1:-1] for key in keys}, key=repr)
  shots = sorted({key[-1] for key in keys})
  x, y = np.full((2, len(shots), len(series)), np.nan)
  for key in keys:
    at = shots.index(key[-1]), series.index(key[1:-1])
    x[at], y[at] = metric[key], target[key]
  return Table(dataset, tuple(shots), x, y)
