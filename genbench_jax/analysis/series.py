"""Rows arranged by series and budget, for comparing metrics with accuracy.

A *series* is one source, generator, strategy and seed at all its budgets. The budgets of a series
are nested sets of the
same images, so they are not independent evidence: series are what is resampled, permuted and
counted.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.analysis.measured import has_value
from genbench_jax.errors import UsageError

SERIES = ("source", "generator", "strategy", "seed")
CELL = ("dataset", *SERIES, "shots")
Row = Mapping[str, Any]
Key = tuple[Any, ...]
Values = dict[Key, float]


@dataclasses.dataclass(frozen=True)
class QuantityKey:
  """Key of a measured quantity: its name, and the encoder that made the features."""

  quantity: str
  encoder: str


@dataclasses.dataclass(frozen=True)
class Table:
  """Metric and accuracy of one dataset; NaN where a series has no such cell.

  Attributes:
    dataset: name of the dataset.
    shots: the b budgets.
    x: metric, [b, n] for n series.
    y: accuracy, [b, n].
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
    """Number of series in the table."""
    return self.x.shape[1]

  @property
  def cells(self) -> int:
    return int(self.there.sum())

  def budgets(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, for each budget, the indices of its series, their metric and their accuracy."""
    for there, x, y in zip(self.there, self.x, self.y, strict=True):
      own = np.flatnonzero(there)
      yield own, x[own], y[own]

  def means(self) -> tuple[float, float]:
    """Return the mean metric and the mean accuracy over all cells."""
    return float(np.nanmean(self.x)), float(np.nanmean(self.y))


def values_by_quantity(rows: Iterable[Row]) -> dict[str, dict[QuantityKey, Values]]:
  """Return the values by protocol, quantity and cell; rows of source `control` are left out.

  Raises:
    UsageError: a cell has a quantity twice.
  """
  found: dict[str, dict[QuantityKey, Values]] = {}
  for row in rows:
    if row.get("source") == "control" or not has_value(row):
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
  """Return one table per dataset, of the cells that have both values, sorted by dataset name."""
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
