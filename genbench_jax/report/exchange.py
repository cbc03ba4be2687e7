"""Exchange rates in real images, from curves over the number of images."""

import math
from collections.abc import Sequence

from genbench_jax.analysis.curves import Point
from genbench_jax.analysis.exchange import UNKNOWN, ExchangeRate, exchange_rates
from genbench_jax.report.headline import originals
from genbench_jax.report.ranking import mean_over
from genbench_jax.report.results import Estimate, Results, Series
from genbench_jax.runtime.protocol import NORMAL

NOUN = " real images per class"


def exchange_of(
  results: Results, series: Sequence[Series], shots: int, quantity: str
) -> dict[Series, ExchangeRate]:
  """Return how many original images per class reach the mean accuracy of each series.

  The mean is over the datasets that have the series and the originals at all of their budgets. The
  result is empty without originals.

  Args:
    results: the rows.
    series: the series to compare; originals are ignored.
    shots: images per class of the series.
    quantity: the recognizer.
  """
  real = originals(results)
  if real is None:
    return {}
  found = {}
  for item in series:
    if item.source == "original":
      continue
    datasets = complete_datasets(results, (real, item), quantity, shots)
    points = curve(results, real, quantity, datasets)
    mine = mean_over(results, item, shots, quantity, datasets)
    if points and mine and shots > 0:
      (found[item],) = exchange_rates([_point(shots, mine)], points)
  return found


def exchange_words(rate: ExchangeRate) -> str:
  """Return the rate as a short table entry."""
  return rate.verdict.replace(NOUN, "")


def exchange_sentence(rate: ExchangeRate) -> str:
  """Return the rate as a sentence whose subject is "they"."""
  verdict = rate.verdict.replace(NOUN, " original images per class")
  if rate.verdict.startswith(UNKNOWN):
    return f"Their worth in original images is {verdict}."
  return f"They are worth {verdict}."


def curve(results: Results, series: Series, quantity: str, datasets: Sequence[str]) -> list[Point]:
  """Return the mean accuracy over exactly these datasets at each number of images per class.

  Args:
    results: the rows.
    series: the series.
    quantity: the recognizer.
    datasets: the datasets to average over.
  """
  if not datasets:
    return []
  means = {
    shots: mean_over(results, series, shots, quantity, datasets)
    for shots in results.shots
    if shots > 0
  }
  return [_point(shots, mean) for shots, mean in means.items() if mean]


def complete_datasets(
  results: Results, series: Sequence[Series], quantity: str, shots: int | None = None
) -> list[str]:
  """Return the datasets that have the first series at all of its budgets and the others at `shots`.

  Args:
    results: the rows.
    series: the series; the first one must be complete.
    quantity: the recognizer.
    shots: images per class of the other series.
  """
  first, *others = series
  budgets = {s for _, item, s, name in results.folded if item == first and name == quantity}
  return [
    dataset
    for dataset in results.datasets
    if budgets
    and all(results.estimate(dataset, first, s, quantity) for s in budgets)
    and all(results.estimate(dataset, item, shots or 0, quantity) for item in others)
  ]


def _point(shots: int, estimate: Estimate) -> Point:
  """Return one budget with the error for the generator if it is known."""
  ends = estimate.wide_interval or estimate.interval
  error = (ends[1] - ends[0]) / (2 * NORMAL) if ends else math.nan
  return Point(float(shots), estimate.value, error)
