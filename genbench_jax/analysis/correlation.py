"""Correlation of metrics with accuracy: at equal budget within datasets, and over datasets.

More images raise accuracy and many metrics alike, so pooling cells of all budgets correlates them
whatever a metric says about the images. A coefficient is therefore computed over the series of one
dataset at one number of shots, then averaged over budgets. The pooled coefficient is reported for
comparison, without a test. Protocols are never mixed.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.permutation import (
  coefficient_of,
  is_defined,
  p_value_of_pairs,
  p_value_within,
)
from genbench_jax.analysis.series import (
  QuantityKey,
  Row,
  Table,
  Values,
  tables_of,
  values_by_quantity,
)
from genbench_jax.analysis.statistics import COEFFICIENTS, METHODS, holm
from genbench_jax.errors import UsageError

TARGET = "linear_probe"
# Quantities trained on external images; every other quantity in the rows is a metric.
TRAINED = (
  "linear_probe", "linear_probe_last_epoch", "coop", "vpt", "from_scratch", "fine_tune", "lora",
  "tip_adapter",
)  # fmt: skip
LEVELS = ("within_dataset", "over_datasets", "pooled")
RESAMPLES = 2000
FEWEST = 3
# (n - 3) var(atanh r) for coefficients of n independent pairs (Fieller, Hartley & Pearson 1957).
SCALES = {"pearson": 1.0, "spearman": 1.06, "kendall": 0.437}
# With fewer series (or datasets) an interval would be meaningless.
FEWEST_FOR_INTERVAL = 5
POOLED = "budgets drive both sides: for comparison only"


@dataclasses.dataclass(frozen=True)
class Correlation:
  """Correlation of one metric with accuracy.

  Attributes:
    quantity, encoder: the metric, and the encoder of its features.
    target, target_encoder: the accuracy, and the encoder of its recognizer.
    protocol: protocol of both.
    method: `pearson`, `spearman` or `kendall`.
    level: `within_dataset` is the mean over budgets within one dataset or, if `dataset` is None,
      the mean of these over datasets. `over_datasets` correlates the means of datasets. `pooled`
      correlates all cells.
    dataset: the dataset, or None.
    n: number of cells.
    units: number of independent series, or datasets.
    value: the coefficient; None if undefined, and then `reason` says why.
    ci_low, ci_high: 95 % interval; None with fewer than 5 units.
    p_value: p-value from exchanging series (datasets for `over_datasets`); exact if there are few.
    p_corrected: p-value corrected for all tests of one call by one method (Holm).
    reason: why a value is missing, or a caveat.
    same_as: earlier quantity that orders the units identically; the pair is tested once.
  """

  quantity: str
  method: str
  level: str
  dataset: str | None
  n: int
  value: float | None = None
  ci_low: float | None = None
  ci_high: float | None = None
  p_value: float | None = None
  p_corrected: float | None = None
  reason: str = ""
  units: int = 0
  protocol: str = ""
  encoder: str = ""
  target: str = TARGET
  target_encoder: str = ""
  same_as: str = ""

  @property
  def is_independent(self) -> bool:
    """Whether metric and recognizer use different encoders; sharing one couples them."""
    return self.encoder != self.target_encoder


@dataclasses.dataclass(frozen=True)
class _Question:
  """One metric to compare with one target in one protocol."""

  protocol: str
  metric: QuantityKey
  target: QuantityKey
  tables: tuple[Table, ...]

  def about(self, method: str, level: str, dataset: str | None) -> Correlation:
    return Correlation(
      self.metric.quantity, method, level, dataset, 0, protocol=self.protocol, encoder=self.metric.encoder,
      target=self.target.quantity, target_encoder=self.target.encoder,
    )  # fmt: skip


def correlations(
  rows: Iterable[Row],
  target: str = TARGET,
  quantities: Sequence[str] | None = None,
  resamples: int = RESAMPLES,
  seed: int = 0,
  methods: Sequence[str] = METHODS,
) -> list[Correlation]:
  """Correlate every metric in the rows with the target, at each level and by each coefficient.

  Args:
    rows: rows of results.jsonl. Cells that lack the metric or the target are skipped, and so is
      source `control`.
    target: accuracy to correlate with; each encoder that has it is a target of its own.
    quantities: metrics to use; None for all that are not trained.
    resamples: number of bootstrap resamples of series within their datasets (of datasets for
      `over_datasets`).
    seed: of the resamples, and of the permutations if there are too many to enumerate.
    methods: a subset of `pearson`, `spearman` and `kendall`.

  Raises:
    UsageError: no row has the target quantity, or a cell has a quantity twice.
  """
  questions = _questions(values_by_quantity(rows), target, quantities)
  levels: list[tuple[str, str | None]] = [(level, None) for level in LEVELS]
  datasets = sorted({table.dataset for question in questions for table in question.tables})
  levels += [("within_dataset", dataset) for dataset in datasets]
  return [
    correlation
    for method in methods
    for correlation in _corrected(
      [
        correlation
        for level, dataset in levels
        for correlation in _of_level(questions, method, level, dataset, resamples, seed)
      ]
    )
  ]


def _questions(
  values: Mapping[str, Mapping[QuantityKey, Values]], target: str, quantities: Sequence[str] | None
) -> list[_Question]:
  targets = [
    (protocol, named)
    for protocol, found in values.items()
    for named in found
    if named.quantity == target
  ]
  if not targets:
    raise UsageError(f"no row of quantity {target!r} to correlate with")
  questions = []
  for protocol, goal in targets:
    found = values[protocol]
    for metric in _metrics(found, target, quantities):
      tables = tables_of(found[metric], found[goal])
      if tables:
        questions.append(_Question(protocol, metric, goal, tuple(tables)))
  return questions


def _metrics(
  found: Mapping[QuantityKey, Values], target: str, quantities: Sequence[str] | None
) -> list[QuantityKey]:
  names = [named for named in found if named.quantity != target]
  if quantities is None:
    return [named for named in names if named.quantity not in TRAINED]
  order = {name: place for place, name in enumerate(quantities)}
  return sorted((n for n in names if n.quantity in order), key=lambda n: order[n.quantity])


def _of_level(
  questions: Sequence[_Question],
  method: str,
  level: str,
  dataset: str | None,
  resamples: int,
  seed: int,
) -> list[Correlation]:
  """Return one coefficient per question; metrics with identical orders are tested once."""
  found: list[Correlation] = []
  seen: dict[Any, Any] = {}
  for question in questions:
    tables = [t for t in question.tables if dataset in (None, t.dataset)]
    if not tables:
      continue
    # Reseeding gives every metric the same resamples, so their intervals are comparable.
    random = np.random.default_rng(seed)
    blank = question.about(method, level, dataset)
    correlation = _at(blank, tables, resamples, random)
    mark = (question.protocol, question.target, _signature(tables, level))
    earlier = seen.setdefault(mark, question.metric)
    if earlier != question.metric and correlation.value is not None and level != "pooled":
      correlation = dataclasses.replace(correlation, same_as=_shown(earlier, question.metric))
    found.append(correlation)
  return found


def _shown(named: QuantityKey, beside: QuantityKey) -> str:
  """Return the quantity, with its encoder if that differs."""
  if named.encoder == beside.encoder:
    return named.quantity
  return f"{named.quantity} [{named.encoder}]"


def _signature(tables: Sequence[Table], level: str) -> bytes:
  """Return a key of how a metric orders the units; reversed orders have the same key."""
  from scipy.stats import rankdata

  if level == "over_datasets":
    groups = [np.array([table.means()[0] for table in tables])]
  else:
    groups = [x for table in tables for _, x, _ in table.budgets()]
  # Centered ranks change their sign when the order is reversed.
  ranks = np.concatenate([rankdata(group) - (len(group) + 1) / 2 for group in groups])
  turned = np.flatnonzero(ranks)
  sign = np.sign(ranks[turned[0]]) if len(turned) else 1
  return (sign * ranks).tobytes()


def _at(
  blank: Correlation, tables: Sequence[Table], resamples: int, random: np.random.Generator
) -> Correlation:
  if blank.level == "over_datasets":
    return _over_datasets(blank, tables, resamples, random)
  cells = sum(table.cells for table in tables)
  if blank.level == "pooled":
    x, y = (np.concatenate([getattr(t, side)[t.there] for t in tables]) for side in "xy")
    return dataclasses.replace(
      blank, n=cells, units=sum(t.units for t in tables), **_value(x, y, blank.method, POOLED)
    )
  defined = [t for t in tables if any(is_defined(x, y) for _, x, y in t.budgets())]
  blank = dataclasses.replace(blank, n=cells, units=sum(t.units for t in defined))
  if not defined:
    return dataclasses.replace(blank, reason=_why_none(tables, blank.dataset))
  value = float(np.mean([coefficient_of(table, blank.method) for table in defined]))
  p_value = p_value_within(defined, blank.method, random)
  if min(table.units for table in defined) < FEWEST_FOR_INTERVAL:
    return dataclasses.replace(blank, value=value, p_value=p_value, reason=_few("series"))
  low, high = within_interval(defined, blank.method, value, resamples, random)
  return dataclasses.replace(blank, value=value, p_value=p_value, ci_low=low, ci_high=high)


def _over_datasets(
  blank: Correlation, tables: Sequence[Table], resamples: int, random: np.random.Generator
) -> Correlation:
  x, y = (np.array(side) for side in zip(*(table.means() for table in tables), strict=True))
  blank = dataclasses.replace(blank, n=len(x), units=len(x))
  found = _value(x, y, blank.method, "")
  if found["value"] is None:
    return dataclasses.replace(blank, **found)
  p_value = p_value_of_pairs(x, y, blank.method, random)
  if len(x) < FEWEST_FOR_INTERVAL:
    found["reason"] = _few("datasets")
    return dataclasses.replace(blank, p_value=p_value, **found)
  table = Table("", (0,), x[None], y[None])
  low, high = within_interval([table], blank.method, found["value"], resamples, random)
  return dataclasses.replace(blank, p_value=p_value, ci_low=low, ci_high=high, **found)


def _value(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], method: str, reason: str) -> dict:
  """Return the coefficient with a caveat, or None with the reason."""
  if why := _why_undefined(x, y):
    return {"value": None, "reason": why}
  value = COEFFICIENTS[method](x, y, np.ones((1, len(x)), int))[0]
  return {"value": float(value), "reason": reason}


def within_interval(
  tables: Sequence[Table],
  method: str,
  value: float,
  resamples: int,
  random: np.random.Generator,
) -> tuple[float, float]:
  """Return the 95 % interval of the mean coefficient, resampling whole series within datasets.

  The interval is symmetric on Fisher's scale, atanh(r). Its standard deviation is that of the
  resampled means, but at least that of independent cells, sqrt(1.06 / (n - 3)) per budget (Fieller
  et al. 1957; 0.437 for Kendall), because near +-1 a bootstrap has no width.

  Args:
    tables: one table per dataset.
    method: coefficient, one of `METHODS`.
    value: mean coefficient of the tables.
    resamples: number of resamples.
    random: draws the resamples.
  """
  from scipy import stats

  units = np.array([table.units for table in tables])
  resampled = np.array([_resampled(table, method, resamples, random) for table in tables])
  defined = ~np.isnan(resampled)
  # Datasets without a coefficient in a resample are left out of its mean.
  means = np.where(defined, resampled, 0).sum(0) / np.maximum(defined.sum(0), 1)
  means = means[defined.any(0)]
  # atanh diverges at +-1: clip to the largest coefficient that n units can tell from 1.
  bound = 1 - 1 / (2 * units.mean() ** 2)
  center = np.arctanh(np.clip(value, -bound, bound))
  spread = float(np.std(np.arctanh(np.clip(means, -bound, bound)))) if len(means) > 1 else 0.0
  budgets = np.array([len(table.shots) for table in tables])
  of_independent = SCALES[method] / (np.maximum(units - 3, 1) * budgets)
  least = float(np.sqrt(np.sum(of_independent))) / len(units)
  # One degree of freedom is lost per dataset.
  half = stats.t.ppf(0.975, int(units.sum()) - len(units)) * max(spread, least)
  return float(np.tanh(center - half)), float(np.tanh(center + half))


def _resampled(
  table: Table, method: str, resamples: int, random: np.random.Generator
) -> Float[np.ndarray, "r"]:
  """Return the coefficient in each resample of whole series; NaN if undefined."""
  drawn = random.integers(0, table.units, (resamples, table.units))
  weights = np.stack([np.bincount(row, minlength=table.units) for row in drawn])
  by_budget = [
    COEFFICIENTS[method](x, y, weights[:, own]) for own, x, y in table.budgets() if is_defined(x, y)
  ]
  values = np.array(by_budget)
  defined = ~np.isnan(values)
  total = np.where(defined, values, 0).sum(0)
  return np.where(defined.any(0), total / np.maximum(defined.sum(0), 1), np.nan)


def _corrected(found: Sequence[Correlation]) -> list[Correlation]:
  """Correct the p-values as one family, in which duplicates (`same_as`) count once."""
  tested = [each for each in found if each.p_value is not None and not each.same_as]
  corrected = holm(np.array([each.p_value for each in tested], float)).tolist()
  by_name = {
    _place(each, each.quantity, each.encoder): p for each, p in zip(tested, corrected, strict=True)
  }

  def with_correction(correlation: Correlation) -> Correlation:
    if correlation.p_value is None:
      return correlation
    # A duplicate takes the corrected p-value of the quantity it duplicates: "name [encoder]".
    quantity, _, encoder = (correlation.same_as or correlation.quantity).partition(" [")
    place = _place(correlation, quantity, encoder.rstrip("]") or correlation.encoder)
    return dataclasses.replace(correlation, p_corrected=by_name[place])

  return [with_correction(correlation) for correlation in found]


def _place(found: Correlation, quantity: str, encoder: str) -> tuple:
  return (
    quantity, encoder, found.level, found.dataset, found.protocol, found.target, found.target_encoder,
  )  # fmt: skip


def _few(what: str) -> str:
  return f"fewer than {FEWEST_FOR_INTERVAL} {what}: no interval"


def _why_none(tables: Sequence[Table], dataset: str | None) -> str:
  if dataset is None:
    return "not defined in any dataset"
  return _why_undefined(*_largest_budget(tables[0]))


def _largest_budget(table: Table) -> tuple[np.ndarray, np.ndarray]:
  _, x, y = max(table.budgets(), key=lambda budget: len(budget[0]))
  return x, y


def _why_undefined(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> str:
  if len(x) < FEWEST:
    return f"fewer than {FEWEST} pairs"
  if np.ptp(x) == 0:
    return "the metric is constant"
  if np.ptp(y) == 0:
    return "the accuracy is constant"
  return ""
