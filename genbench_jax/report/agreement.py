"""Rank correlations between metrics and trained accuracy.

Cells are compared within a group: one dataset at one number of images. More images raise accuracy
and many metrics alike, so across numbers of images a metric that depends only on the number would
appear to predict accuracy.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from genbench_jax.analysis import statistics
from genbench_jax.analysis.correlation import within_interval
from genbench_jax.analysis.permutation import coefficient_of, is_defined, p_value_within
from genbench_jax.analysis.series import Table, Values, tables_of
from genbench_jax.report.quantities import (
  QUANTITIES,
  RECOGNIZERS,
  excess_name,
  known_name,
  quantity_of,
  raw_name,
)
from genbench_jax.report.results import Cell, Results

FEWEST_CELLS = 3
# An interval from fewer resampled series would be narrower than the truth.
FEWEST_UNITS = 5
RESAMPLES = 500

Group = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Correlation of one metric with one recognizer, over the cells that have both.

  Attributes:
    metric: the quantity on the x axis.
    recognizer: the quantity on the y axis.
    cells: dataset -> the cells that have both.
    within: (dataset, shots) -> Spearman's rank correlation; None with fewer than FEWEST_CELLS cells
      or a constant quantity.
    pooled: Spearman's rank correlation over all cells, across datasets and numbers of images.
      Report it only beside `mean`.
    interval: 95 % interval of `mean`. It resamples whole series (source, generator, strategy, seed,
      with all numbers of images). None if a dataset has fewer than FEWEST_UNITS series.
    p: p-value of no correlation, by permuting series. `agreements` corrects it for all metrics of a
      page (Holm).
    same_as: an earlier metric that orders the cells identically, or "".
  """

  metric: str
  recognizer: str
  cells: dict[str, tuple[Cell, ...]]
  within: dict[Group, float | None]
  pooled: float | None
  interval: tuple[float, float] | None
  p: float | None = None
  same_as: str = ""

  @property
  def mean(self) -> float | None:
    """Mean of the correlations of the datasets."""
    datasets = dict.fromkeys(dataset for dataset, _ in self.known)
    return _mean([rho for name in datasets if (rho := self.of_dataset(name)) is not None])

  @property
  def known(self) -> dict[Group, float]:
    return {group: rho for group, rho in self.within.items() if rho is not None}

  @property
  def count(self) -> int:
    return sum(len(cells) for cells in self.cells.values())

  def of_dataset(self, dataset: str) -> float | None:
    """Return the mean over the numbers of images of one dataset."""
    return _mean([rho for (name, _), rho in self.known.items() if name == dataset])


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
  """Return Spearman's rank correlation with mean ranks for ties; None if it is not defined."""
  from scipy.stats import rankdata

  if len(x) < FEWEST_CELLS or len(set(x)) < 2 or len(set(y)) < 2:
    return None
  return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def agreement(results: Results, metric: str, recognizer: str) -> Agreement:
  """Return the rank correlations of one metric. Control rows are left out.

  Args:
    results: the rows.
    metric: the quantity to test.
    recognizer: the accuracy that it should predict.
  """
  cells = {
    dataset: tuple(
      cell
      for cell in results.cells
      if cell.dataset == dataset
      and cell.series.source != "control"
      and {metric, recognizer} <= cell.estimates.keys()
    )
    for dataset in results.datasets
  }
  all_cells = [cell for group in cells.values() for cell in group]
  within = {
    group: _correlation(group_cells, metric, recognizer)
    for group, group_cells in grouped(all_cells).items()
  }
  tables = [
    table
    for table in tables_of_cells(all_cells, metric, recognizer)
    if any(is_defined(x, y) for _, x, y in table.budgets())
  ]
  pooled = _correlation(all_cells, metric, recognizer)
  random = np.random.default_rng(0)
  p = p_value_within(tables, "spearman", random) if tables else None
  interval = interval_of(tables, "spearman", random)
  return Agreement(metric, recognizer, cells, within, pooled, interval, p)


def tables_of_cells(cells: Iterable[Cell], x: str, y: str) -> list[Table]:
  """Return two quantities of the cells that have both, by dataset, number of images and series.

  Args:
    cells: the cells; those that lack either quantity are ignored.
    x: name of the first quantity.
    y: name of the second quantity.
  """
  values: tuple[Values, Values] = ({}, {})
  for cell in cells:
    series = cell.series
    key = (cell.dataset, series.source, series.generator, series.strategy, cell.seed, cell.shots)
    for side, name in zip(values, (x, y), strict=True):
      if name in cell.estimates:
        side[key] = cell.estimates[name].value
  return tables_of(*values)


def interval_of(
  tables: Sequence[Table], method: str, random: np.random.Generator
) -> tuple[float, float] | None:
  """Return the 95 % interval of the mean coefficient; None if a dataset has too few series.

  Args:
    tables: tables in which the coefficient is defined.
    method: `spearman` or `kendall`.
    random: generator of the resampled series.
  """
  if not tables or min(table.units for table in tables) < FEWEST_UNITS:
    return None
  value = float(np.mean([coefficient_of(table, method) for table in tables]))
  return within_interval(tables, method, value, RESAMPLES, random)


def agreements(results: Results, recognizer: str) -> tuple[Agreement, ...]:
  """Return the agreement of every metric that was measured with the recognizer, CLER first.

  If the floor of a distance is known, only its excess over the floor is used.
  """
  names = sorted(metrics_of(results), key=lambda name: name != "cler")
  found = [item for name in names if (item := agreement(results, name, recognizer)).count]
  return tuple(_corrected(_with_doubles(found)))


def _with_doubles(found: Sequence[Agreement]) -> list[Agreement]:
  """Mark each agreement that orders the cells like an earlier one."""
  from scipy.stats import rankdata

  seen: dict[tuple[bytes, ...], str] = {}
  marked = []
  for item in found:
    cells = [cell for group_cells in item.cells.values() for cell in group_cells]
    groups = grouped(cells).values()
    turn = 1 if quantity_of(item.metric).better == "higher" else -1
    values = (
      [turn * cell.estimates[item.metric].value for cell in group_cells] for group_cells in groups
    )
    first = seen.setdefault(tuple(rankdata(group).tobytes() for group in values), item.metric)
    same = first if first != item.metric else ""
    marked.append(dataclasses.replace(item, same_as=same))
  return marked


def _corrected(found: Sequence[Agreement]) -> list[Agreement]:
  """Correct the p-values for all tests (Holm). Metrics with the same order are tested once."""
  tested = [item for item in found if item.p is not None and not item.same_as]
  ps = statistics.holm(np.array([item.p for item in tested])).tolist() if tested else []
  by_name = {item.metric: p for item, p in zip(tested, ps, strict=True)}
  return [dataclasses.replace(item, p=by_name.get(item.metric)) for item in found]


def metrics_of(results: Results) -> list[str]:
  """Return the measured quantities that need no training."""
  baselines = {*RECOGNIZERS, "linear_probe_last_epoch", "zero_shot", "cler_gain"}
  names = [name for name in results.quantities if known_name(name) not in baselines]
  floored = {raw_name(name) for name in names if raw_name(name) != name}
  ours = [name for name in names if known_name(name) or name in QUANTITIES]
  return [name for name in ours if name not in floored or name == excess_name(name)]


def agrees(item: Agreement, rho: float) -> float:
  """Return the correlation with the sign that makes 1 full agreement."""
  return rho if quantity_of(item.metric).better == "higher" else -rho


def grouped(cells: Sequence[Cell]) -> dict[Group, list[Cell]]:
  """Group the cells by dataset and number of images."""
  found: dict[Group, list[Cell]] = {}
  for cell in cells:
    found.setdefault((cell.dataset, cell.shots), []).append(cell)
  return found


def _correlation(cells: Sequence[Cell], metric: str, recognizer: str) -> float | None:
  return spearman(
    [cell.estimates[metric].value for cell in cells],
    [cell.estimates[recognizer].value for cell in cells],
  )


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None
