"""Correlation of the metrics with recognition accuracy, pooled, within datasets and over datasets."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.statistics import (
  COEFFICIENTS,
  METHODS,
  bootstrap_weights,
  holm,
  permuted,
)
from genbench_jax.errors import UsageError

TARGET = "linear_probe"
METRICS = (
  "zero_shot", "cler", "cler_gain", "cler_image", "topk_vote", "topk_vote_text", "clip_score", "fid",
  "kid", "cmmd", "precision", "recall", "density", "coverage", "vendi", "proxy_a_distance",
)  # fmt: skip
# A good value is a low one: the correlation with accuracy should be negative.
LOWER_IS_BETTER = ("fid", "kid", "cmmd", "proxy_a_distance")
LEVELS = ("pooled", "within_dataset", "over_datasets")
CELL = ("dataset", "source", "strategy", "shots", "seed", "protocol", "encoder")
RESAMPLES = 2000
PERMUTATIONS = 1000
FEWEST = 3
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Correlation:
  """How one metric goes with accuracy.

  Attributes:
    quantity: the metric; method: `pearson`, `spearman` or `kendall`.
    level: `pooled`: over all cells. `within_dataset`: over the cells of one dataset, or, with no `dataset`, the mean
      of these over the datasets. `over_datasets`: over the datasets' means.
    dataset: the dataset, or None.
    n: number of cells, or of datasets.
    value: the coefficient; None where there is none, and then `reason` says why.
    ci_low, ci_high: 95 % bootstrap interval; corrected_low, corrected_high: the interval that, for all metrics of
      the family together, holds with 95 % (Bonferroni).
    p_value: chance of so large a coefficient, of either sign, if there were none: SciPy's, and by permutation within the
      datasets for their mean; p_corrected: corrected for the number of metrics of the family (Holm).
  A family is the metrics of equal level, dataset and method.
  """

  quantity: str
  method: str
  level: str
  dataset: str | None
  n: int
  value: float | None = None
  ci_low: float | None = None
  ci_high: float | None = None
  corrected_low: float | None = None
  corrected_high: float | None = None
  p_value: float | None = None
  p_corrected: float | None = None
  reason: str = ""


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Metric x and accuracy y of the cells that have both, by dataset."""

  datasets: tuple[str, ...]
  x: tuple[Float[np.ndarray, "n"], ...]
  y: tuple[Float[np.ndarray, "n"], ...]


@dataclasses.dataclass(frozen=True)
class _Sample:
  """A coefficient before the correction: value, p-value and the resampled values."""

  n: int
  value: float | None
  p_value: float | None
  resampled: Float[np.ndarray, "r"]
  reason: str = ""


def correlations(
  rows: Iterable[Row],
  target: str = TARGET,
  quantities: Sequence[str] = METRICS,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[Correlation]:
  """Every metric that the rows hold against the target, at each level and by each coefficient.

  Args:
    rows: as in results.jsonl. Rows belong together that agree in `CELL`; cells without the metric or without
      the target do not count for it, nor do those of source `control`.
    resamples: bootstrap resamples: of cells, within their datasets at level `within_dataset`; of datasets at
      `over_datasets`.

  Raises:
    UsageError: no row of the target quantity, or twice the same quantity of a cell.
  """
  cells = cells_of(rows)
  if not any(target in values for values in cells.values()):
    raise UsageError(f"no row of quantity {target!r} to correlate with")
  pairs = {name: pairs_of(cells, name, target) for name in quantities if name != target}
  pairs = {name: found for name, found in pairs.items() if found.datasets}
  datasets = sorted({dataset for found in pairs.values() for dataset in found.datasets})
  families: list[tuple[str, str | None]] = [(level, None) for level in LEVELS]
  families += [("within_dataset", dataset) for dataset in datasets]
  return [
    correlation
    for level, dataset in families
    for method in METHODS
    for correlation in _family(pairs, level, dataset, method, resamples, seed)
  ]


def cells_of(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, float]]:
  """Values by quantity of each cell, without the controls."""
  cells: dict[tuple[Any, ...], dict[str, float]] = {}
  for row in rows:
    if row.get("source") == "control":
      continue
    values = cells.setdefault(tuple(row.get(key) for key in CELL), {})
    if row["quantity"] in values:
      raise UsageError(
        f"two rows of quantity {row['quantity']!r} for {dict(zip(CELL, _key(row), strict=True))}"
      )
    values[row["quantity"]] = float(row["value"])
  return cells


def _key(row: Row) -> tuple[Any, ...]:
  return tuple(row.get(key) for key in CELL)


def pairs_of(
  cells: Mapping[tuple[Any, ...], Mapping[str, float]], quantity: str, target: str
) -> Pairs:
  """The pairs of a metric, datasets in order of name."""
  both = [
    (str(key[0]), values[quantity], values[target])
    for key, values in cells.items()
    if quantity in values and target in values
  ]
  datasets = tuple(sorted({dataset for dataset, _, _ in both}))
  x, y = (
    tuple(np.array([pair[side] for pair in both if pair[0] == dataset]) for dataset in datasets)
    for side in (1, 2)
  )
  return Pairs(datasets, x, y)


def _family(
  pairs: Mapping[str, Pairs],
  level: str,
  dataset: str | None,
  method: str,
  resamples: int,
  seed: int,
) -> list[Correlation]:
  """The metrics of one level, dataset and method, corrected for their number."""
  samples = {}
  for name, found in pairs.items():
    if dataset is None or dataset in found.datasets:
      random = np.random.default_rng(seed)  # the same resamples for every metric of a family
      samples[name] = _sample(found, level, dataset, method, resamples, random)
  defined = [name for name, sample in samples.items() if sample.value is not None]
  p_values = np.array([samples[name].p_value for name in defined], float)
  corrected = dict(zip(defined, holm(p_values).tolist(), strict=True))
  return [
    _correlation(name, method, level, dataset, sample, corrected.get(name), len(defined))
    for name, sample in samples.items()
  ]


def _correlation(
  name: str,
  method: str,
  level: str,
  dataset: str | None,
  sample: _Sample,
  p_corrected: float | None,
  family: int,
) -> Correlation:
  if sample.value is None:
    return Correlation(name, method, level, dataset, sample.n, reason=sample.reason)
  resampled = sample.resampled[~np.isnan(sample.resampled)]
  tails = [0.025, 0.975, 0.025 / family, 1 - 0.025 / family]
  bounds = np.quantile(resampled, tails) if len(resampled) else np.full(4, sample.value)
  return Correlation(
    quantity=name,
    method=method,
    level=level,
    dataset=dataset,
    n=sample.n,
    value=sample.value,
    ci_low=float(bounds[0]),
    ci_high=float(bounds[1]),
    corrected_low=float(bounds[2]),
    corrected_high=float(bounds[3]),
    p_value=sample.p_value,
    p_corrected=p_corrected,
  )


def _sample(
  pairs: Pairs,
  level: str,
  dataset: str | None,
  method: str,
  resamples: int,
  random: np.random.Generator,
) -> _Sample:
  if level == "pooled":
    return _of_one_sample(
      np.concatenate(pairs.x), np.concatenate(pairs.y), method, resamples, random
    )
  if level == "over_datasets":
    x, y = (np.array([values.mean() for values in side]) for side in (pairs.x, pairs.y))
    return _of_one_sample(x, y, method, resamples, random)
  if dataset is not None:
    index = pairs.datasets.index(dataset)
    return _of_one_sample(pairs.x[index], pairs.y[index], method, resamples, random)
  return _mean_over_datasets(pairs, method, resamples, random)


def _of_one_sample(
  x: Float[np.ndarray, "n"],
  y: Float[np.ndarray, "n"],
  method: str,
  resamples: int,
  random: np.random.Generator,
) -> _Sample:
  from scipy import stats

  reason = _why_undefined(x, y)
  if reason:
    return _Sample(len(x), None, None, np.array([]), reason)
  test = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}[
    method
  ]
  result = test(x, y)
  resampled = COEFFICIENTS[method](x, y, bootstrap_weights(len(x), resamples, random))
  return _Sample(len(x), float(result.statistic), float(result.pvalue), resampled)


def _mean_over_datasets(
  pairs: Pairs, method: str, resamples: int, random: np.random.Generator
) -> _Sample:
  """The mean of the datasets' coefficients, without those where there is none."""
  sides = [(x, y) for x, y in zip(pairs.x, pairs.y, strict=True) if not _why_undefined(x, y)]
  cells = sum(len(x) for x, _ in sides)
  if not sides:
    return _Sample(cells, None, None, np.array([]), "in no dataset defined")
  coefficient = COEFFICIENTS[method]
  value = np.mean([coefficient(x, y, np.ones((1, len(x)), int))[0] for x, y in sides])
  each = [coefficient(x, y, bootstrap_weights(len(x), resamples, random)) for x, y in sides]
  shuffled = np.mean([permuted(x, y, method, PERMUTATIONS, random) for x, y in sides], axis=0)
  as_large = np.sum(np.abs(shuffled) >= abs(value) - 1e-12)
  p_value = (1 + as_large) / (1 + PERMUTATIONS)
  return _Sample(cells, float(value), float(p_value), _mean_of_defined(np.array(each)))


def _mean_of_defined(values: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "r"]:
  """Mean over the datasets in which the resample has a coefficient; NaN where there is none."""
  defined = ~np.isnan(values)
  number = defined.sum(0)
  total = np.where(defined, values, 0).sum(0)
  return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _why_undefined(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> str:
  if len(x) < FEWEST:
    return f"fewer than {FEWEST} pairs"
  if np.ptp(x) == 0:
    return "the metric is the same everywhere"
  if np.ptp(y) == 0:
    return "the accuracy is the same everywhere"
  return ""
