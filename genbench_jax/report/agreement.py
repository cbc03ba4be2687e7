"""How well each metric's order of the cells agrees with the order by trained accuracy.

Cells are compared within a group: one dataset at one number of images. Across numbers of images both sides
grow, and a metric that carries nothing but the number would look as if it predicted accuracy.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from genbench_jax.report.quantities import (
  QUANTITIES,
  RECOGNIZERS,
  excess_name,
  known_name,
  quantity_of,
  raw_name,
)
from genbench_jax.report.results import Cell, Results

FEWEST_CELLS = 4
# An interval from fewer resampled series would be narrower than the truth.
FEWEST_UNITS = 5
RESAMPLES = 500

Group = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Agreement:
  """One metric against one recognizer, over the cells that have both.

  Attributes:
    metric: the quantity on the x axis.
    recognizer: the quantity on the y axis.
    cells: for each dataset, the cells that have both.
    within: for each (dataset, shots), Spearman's rank correlation; None where there are fewer than
      FEWEST_CELLS cells or one of the two never changes.
    pooled: Spearman's rank correlation over all cells, whatever their dataset and number of images: to be
      read beside `mean`, never alone.
    interval: 95 % bootstrap interval of `mean`, whole series (a source, generator, strategy and seed at all
      its numbers of images) resampled; None where there are fewer than FEWEST_UNITS of them.
  """

  metric: str
  recognizer: str
  cells: dict[str, tuple[Cell, ...]]
  within: dict[Group, float | None]
  pooled: float | None
  interval: tuple[float, float] | None

  @property
  def mean(self) -> float | None:
    """The mean of the groups' own correlations: neither datasets nor numbers of images play a part."""
    return _mean(list(self.known.values()))

  @property
  def known(self) -> dict[Group, float]:
    return {group: rho for group, rho in self.within.items() if rho is not None}

  @property
  def count(self) -> int:
    return sum(len(cells) for cells in self.cells.values())

  def of_dataset(self, dataset: str) -> float | None:
    """The mean over the numbers of images of one dataset."""
    return _mean([rho for (name, _), rho in self.known.items() if name == dataset])


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
  """Spearman's rank correlation, ties ranked by their mean; None where it is not defined."""
  import numpy as np
  from scipy.stats import rankdata

  if len(x) < FEWEST_CELLS or len(set(x)) < 2 or len(set(y)) < 2:
    return None
  return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def agreement(results: Results, metric: str, recognizer: str) -> Agreement:
  """The rank correlations of one metric. Controls are no candidates for training: left out."""
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
  every = [cell for group in cells.values() for cell in group]
  groups = grouped(every)
  within = {group: _correlation(some, metric, recognizer) for group, some in groups.items()}
  defined = {group: groups[group] for group, rho in within.items() if rho is not None}
  return Agreement(
    metric,
    recognizer,
    cells,
    within,
    _correlation(every, metric, recognizer),
    _interval(defined, metric, recognizer),
  )


def agreements(results: Results, recognizer: str) -> tuple[Agreement, ...]:
  """Every metric that was measured beside the recognizer, CLER first.

  A distance counts by what it has above its floor where that is known, else as it is.
  """
  found = [
    agreement(results, name, recognizer)
    for name in sorted(metrics_of(results), key=lambda name: name != "cler")
  ]
  return tuple(item for item in found if item.count)


def metrics_of(results: Results) -> list[str]:
  """The measured quantities that no training stands behind."""
  baselines = {*RECOGNIZERS, "linear_probe_last_epoch", "zero_shot", "cler_gain"}
  names = [name for name in results.quantities if known_name(name) not in baselines]
  floored = {raw_name(name) for name in names if raw_name(name) != name}
  ours = [name for name in names if known_name(name) or name in QUANTITIES]
  return [name for name in ours if name not in floored or name == excess_name(name)]


def agrees(item: Agreement, rho: float) -> float:
  """The correlation with its sign turned where lower is better, so that 1 is full agreement."""
  return rho if quantity_of(item.metric).better == "higher" else -rho


def grouped(cells: Sequence[Cell]) -> dict[Group, list[Cell]]:
  """The cells by dataset and number of images."""
  found: dict[Group, list[Cell]] = {}
  for cell in cells:
    found.setdefault((cell.dataset, cell.shots), []).append(cell)
  return found


def _interval(
  groups: Mapping[Group, Sequence[Cell]], metric: str, recognizer: str
) -> tuple[float, float] | None:
  """Quantiles of the mean over groups, the series of each dataset drawn anew with replacement.

  A series keeps its weight at all of its numbers of images: its cells share their images.
  """
  import numpy as np

  from genbench_jax.analysis import statistics

  random = np.random.default_rng(0)
  each, units = [], 0
  for dataset in dict.fromkeys(dataset for dataset, _ in groups):
    mine = [cells for (name, _), cells in groups.items() if name == dataset]
    places = {
      key: i for i, key in enumerate(dict.fromkeys(_unit(c) for some in mine for c in some))
    }
    weights = statistics.bootstrap_weights(len(places), RESAMPLES, random)
    units = max(units, len(places))
    for cells in mine:
      x, y = (np.array([c.estimates[name].value for c in cells]) for name in (metric, recognizer))
      each.append(statistics.spearman(x, y, weights[:, [places[_unit(c)] for c in cells]]))
  if units < FEWEST_UNITS:
    return None
  means = np.nanmean(np.where(np.isfinite(each), each, np.nan), axis=0)
  low, high = np.quantile(means[np.isfinite(means)], [0.025, 0.975])
  return float(low), float(high)


def _unit(cell: Cell) -> tuple[object, int]:
  return cell.series, cell.seed


def _correlation(cells: Sequence[Cell], metric: str, recognizer: str) -> float | None:
  return spearman(
    [cell.estimates[metric].value for cell in cells],
    [cell.estimates[recognizer].value for cell in cells],
  )


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None
