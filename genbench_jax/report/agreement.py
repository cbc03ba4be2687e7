"""How well each metric's order of the cells agrees with the order by trained accuracy."""

import dataclasses
import math
from collections.abc import Sequence

from genbench_jax.report.quantities import RECOGNIZERS, quantity_of
from genbench_jax.report.results import Cell, Results

FEWEST_CELLS = 4
RESAMPLES = 500


@dataclasses.dataclass(frozen=True)
class Agreement:
  """One metric against one recognizer, over the cells that have both.

  Attributes:
    metric: the quantity on the x axis.
    recognizer: the quantity on the y axis.
    cells: for each dataset, the cells that have both.
    within: for each dataset, Spearman's rank correlation; None where there are fewer than
      FEWEST_CELLS cells or one of the two never changes.
    pooled: Spearman's rank correlation over the cells of all datasets.
    interval: 95 % bootstrap interval of `mean`, the cells of each dataset resampled; None where
      there is no mean.
  """

  metric: str
  recognizer: str
  cells: dict[str, tuple[Cell, ...]]
  within: dict[str, float | None]
  pooled: float | None
  interval: tuple[float, float] | None

  @property
  def mean(self) -> float | None:
    """The mean of the datasets' own correlations: differences between datasets play no part."""
    known = self.known
    return math.fsum(known.values()) / len(known) if known else None

  @property
  def known(self) -> dict[str, float]:
    return {name: rho for name, rho in self.within.items() if rho is not None}

  @property
  def count(self) -> int:
    return sum(len(cells) for cells in self.cells.values())


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
  """Spearman's rank correlation, ties ranked by their mean; None where it is not defined."""
  from scipy.stats import spearmanr

  if len(x) < FEWEST_CELLS or len(set(x)) < 2 or len(set(y)) < 2:
    return None
  return float(spearmanr(x, y).statistic)


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
  within = {name: _correlation(group, metric, recognizer) for name, group in cells.items()}
  pooled = _correlation(every, metric, recognizer)
  defined = [cells[name] for name, rho in within.items() if rho is not None]
  return Agreement(
    metric, recognizer, cells, within, pooled, _interval(defined, metric, recognizer)
  )


def agreements(results: Results, recognizer: str) -> tuple[Agreement, ...]:
  """Every metric that was measured beside the recognizer, CLER first."""
  baselines = {*RECOGNIZERS, "linear_probe_last_epoch", "zero_shot", "cler_gain"}
  metrics = [name for name in results.quantities if name not in baselines]
  found = [
    agreement(results, name, recognizer) for name in sorted(metrics, key=lambda n: n != "cler")
  ]
  return tuple(item for item in found if item.count)


def agrees(item: Agreement, rho: float) -> float:
  """The correlation with its sign turned where lower is better, so that 1 is full agreement."""
  return rho if quantity_of(item.metric).better == "higher" else -rho


def _interval(
  groups: Sequence[Sequence[Cell]], metric: str, recognizer: str
) -> tuple[float, float] | None:
  """Quantiles of the mean over datasets, every dataset's cells drawn anew with replacement."""
  import numpy as np

  from genbench_jax.analysis import statistics

  if not groups:
    return None
  random = np.random.default_rng(0)
  each = [
    statistics.spearman(
      np.array([cell.estimates[metric].value for cell in cells]),
      np.array([cell.estimates[recognizer].value for cell in cells]),
      statistics.bootstrap_weights(len(cells), RESAMPLES, random),
    )
    for cells in groups
  ]
  means = np.mean(each, axis=0)
  low, high = np.quantile(means[np.isfinite(means)], [0.025, 0.975])
  return float(low), float(high)


def _correlation(cells: Sequence[Cell], metric: str, recognizer: str) -> float | None:
  return spearman(
    [cell.estimates[metric].value for cell in cells],
    [cell.estimates[recognizer].value for cell in cells],
  )
