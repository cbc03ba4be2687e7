"""Gains of each source over zero-shot, by dataset and on average."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from genbench_jax.report.results import Estimate, Results, Series


@dataclasses.dataclass(frozen=True)
class Average:
  """A mean over datasets, with the names of the included and the missing datasets."""

  estimate: Estimate
  included: tuple[str, ...]
  missing: tuple[str, ...]


def difference(one: Estimate, other: Estimate) -> Estimate:
  """Return one - other, with an interval.

  The intervals are combined as if they were independent (MOVER; Newcombe 1998, method 10). Both
  come from the same test images and are positively correlated, so the interval is rather too wide.
  Without an interval of `one`, the difference has none.
  """
  ends = _difference_ends(one, other, one.interval, other.interval)
  wide: tuple[float, float] | tuple[()] | None = ()
  if one.wide_interval or other.wide_interval:
    wide = _difference_ends(
      one, other, one.wide_interval or one.interval, other.wide_interval or other.interval
    )
  return Estimate(one.value - other.value, *(ends or (None, None)), *(wide or ()))


def _difference_ends(
  one: Estimate,
  other: Estimate,
  interval: tuple[float, float] | None,
  baseline: tuple[float, float] | None,
) -> tuple[float, float] | None:
  """Return the ends by MOVER; a baseline without an interval counts as exact."""
  if interval is None:
    return None
  low, high = baseline or (other.value, other.value)
  value = one.value - other.value
  return (
    value - math.hypot(one.value - interval[0], high - other.value),
    value + math.hypot(interval[1] - one.value, other.value - low),
  )


def gain(
  results: Results, dataset: str, series: Series, shots: int, quantity: str
) -> Estimate | None:
  """Return what `quantity` adds to zero-shot on one dataset; None if either was not measured.

  CLER uses the measured `cler_gain` if it has an interval, because that interval is paired.

  Args:
    results: the rows.
    dataset: name of the dataset.
    series: source, generator and strategy.
    shots: images per class.
    quantity: the recognizer.
  """
  if quantity == "cler":
    paired = results.estimate(dataset, series, shots, "cler_gain")
    if paired is not None and paired.low is not None:
      return paired
  measured = results.estimate(dataset, series, shots, quantity)
  baseline = results.zero_shot.get(dataset)
  return None if measured is None or baseline is None else difference(measured, baseline)


def gains(results: Results, series: Series, shots: int, quantity: str) -> dict[str, Estimate]:
  """Return the gain on every dataset that has one.

  Args:
    results: the rows.
    series: source, generator and strategy.
    shots: images per class.
    quantity: the recognizer.
  """
  found = {name: gain(results, name, series, shots, quantity) for name in results.datasets}
  return {name: estimate for name, estimate in found.items() if estimate is not None}


def average(estimates: Mapping[str, Estimate], datasets: Sequence[str]) -> Average | None:
  """Return the mean over the datasets that have an estimate; None if no dataset has one.

  The interval is that of the mean over these datasets, whose test sets are independent samples
  (MOVER for a sum). It does not generalize to other datasets.
  """
  included = tuple(name for name in datasets if name in estimates)
  if not included:
    return None
  chosen = [estimates[name] for name in included]
  value = math.fsum(e.value for e in chosen) / len(chosen)
  missing = tuple(name for name in datasets if name not in estimates)
  near = _mean_ends(value, [(e.value, e.interval) for e in chosen])
  # A dataset without an interval for the generator contributes its interval for these images.
  wide: tuple[float | None, float | None] = (None, None)
  if any(e.wide_interval for e in chosen):
    wide = _mean_ends(value, [(e.value, e.wide_interval or e.interval) for e in chosen])
  return Average(Estimate(value, *near, *wide), included, missing)


def _mean_ends(
  value: float, known: Sequence[tuple[float, tuple[float, float] | None]]
) -> tuple[float | None, float | None]:
  """Return the ends of a mean of independent estimates by MOVER; None if one has no interval."""
  intervals = [(middle - ends[0], ends[1] - middle) for middle, ends in known if ends]
  if len(intervals) < len(known):
    return None, None
  below, above = zip(*intervals, strict=True)
  return value - math.hypot(*below) / len(known), value + math.hypot(*above) / len(known)


def average_gain(results: Results, series: Series, shots: int, quantity: str) -> Average | None:
  """Return the mean gain over datasets; None if no dataset has one.

  Args:
    results: the rows.
    series: source, generator and strategy.
    shots: images per class.
    quantity: the recognizer.
  """
  return average(gains(results, series, shots, quantity), results.datasets)


def budgets(results: Results, quantity: str) -> tuple[int, ...]:
  """Return the shot counts at which `quantity` was measured for a source."""
  measured = {
    shots
    for _, series, shots, name in results.folded
    if name == quantity and series.source != "control"
  }
  return tuple(shots for shots in results.shots if shots in measured)


def headline_budget(results: Results, quantity: str) -> int | None:
  """Return the largest budget that every headline series has, else the largest of any."""
  measured = budgets(results, quantity)
  shared = [
    shots
    for shots in measured
    if all(gains(results, series, shots, quantity) for series in results.headline_series())
  ]
  return next(iter(reversed(shared or measured)), None)
