"""What images are worth in real ones, and what more of them would give: from curves over the number of images."""

import math
from collections.abc import Sequence

from genbench_jax.analysis.curves import NORMAL, Point, power_law
from genbench_jax.analysis.exchange import UNKNOWN, ExchangeRate, exchange_rates
from genbench_jax.report.headline import originals
from genbench_jax.report.quantities import percent, quantity_of
from genbench_jax.report.ranking import mean_over
from genbench_jax.report.results import Estimate, Results, Series
from genbench_jax.report.tables import Table

NOUN = " real images per class"


def exchange_of(
  results: Results, series: Sequence[Series], shots: int, quantity: str
) -> dict[Series, ExchangeRate]:
  """Return how many original images a class give the mean accuracy of each series; empty without originals.

  The mean is over the datasets that have the originals at all of their budgets and the series.

  Args:
    results: the rows.
    series: what is to be exchanged; originals themselves are left out.
    shots: images a class of the series.
    quantity: the recognizer.
  """
  real = originals(results)
  if real is None:
    return {}
  found = {}
  for one in series:
    if one.source == "original":
      continue
    datasets = _datasets(results, (real, one), quantity, shots)
    points = curve(results, real, quantity, datasets)
    mine = mean_over(results, one, shots, quantity, datasets)
    if points and mine and shots > 0:
      (found[one],) = exchange_rates([_point(shots, mine)], points)
  return found


def exchange_words(rate: ExchangeRate) -> str:
  """Return the rate in the short words of a table."""
  return rate.verdict.replace(NOUN, "")


def exchange_sentence(rate: ExchangeRate) -> str:
  """Return the rate as a sentence on "they"."""
  verdict = rate.verdict.replace(NOUN, " original images per class")
  if rate.verdict.startswith(UNKNOWN):
    return f"Their worth in original images is {verdict}."
  return f"They are worth {verdict}."


def curve(results: Results, one: Series, quantity: str, datasets: Sequence[str]) -> list[Point]:
  """Return the mean accuracy over exactly these datasets at each number of images a class."""
  if not datasets:
    return []
  means = {
    shots: mean_over(results, one, shots, quantity, datasets)
    for shots in results.shots
    if shots > 0
  }
  return [_point(shots, mean) for shots, mean in means.items() if mean]


def scaling_table(results: Results, series: Sequence[Series], quantity: str) -> Table | None:
  """Return the power law through each series' curve; None where no series has one.

  error(n) = floor + scale · n^−exponent, n images a class.
  """
  rows = []
  for one in series:
    law = power_law(curve(results, one, quantity, _datasets(results, (one,), quantity)))
    if not law.reason:
      rows.append((
        one.label,
        f"{law.exponent:.2f} ({law.exponent_low:.2f} to {law.exponent_high:.2f})",
        f"{percent(1 - law.floor)} ({percent(law.limit_low)} to {percent(law.limit_high)})",
      ))  # fmt: skip
  if not rows:
    return None
  caption = (
    f"Power law through the mean {quantity_of(quantity).label}: error = floor + scale × n^−exponent, n images a class; "
    "95 % intervals. A limit far above what was measured is an extrapolation."
  )
  return Table("scaling", caption, ("images", "exponent", "accuracy it tends to, %"), tuple(rows))


def _datasets(
  results: Results, series: Sequence[Series], quantity: str, shots: int | None = None
) -> list[str]:
  """The datasets that have the first series at all of its budgets, and every other one at `shots`."""
  first, *others = series
  budgets = {s for _, one, s, name in results.folded if one == first and name == quantity}
  return [
    dataset
    for dataset in results.datasets
    if budgets
    and all(results.estimate(dataset, first, s, quantity) for s in budgets)
    and all(results.estimate(dataset, one, shots or 0, quantity) for one in others)
  ]


def _point(shots: int, estimate: Estimate) -> Point:
  """One budget, its error from the interval for the generator where that is known."""
  ends = estimate.wide_interval or estimate.interval
  error = (ends[1] - ends[0]) / (2 * NORMAL) if ends else math.nan
  return Point(float(shots), estimate.value, error)
