"""Pairwise comparisons of sources on the same test images, with a verdict."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis import paired
from genbench_jax.analysis.paired import LEVEL
from genbench_jax.analysis.statistics import holm
from genbench_jax.report.gains import average, difference
from genbench_jax.report.labels import images_label
from genbench_jax.report.number_words import p_value, points
from genbench_jax.report.results import Estimate, Results, Series
from genbench_jax.runtime.protocol import NORMAL
from genbench_jax.store.hits import PerImage

# Keys are (dataset, series, shots, seed, quantity).
Hits = Mapping[tuple[str, Series, int, int, str], PerImage]


@dataclasses.dataclass(frozen=True)
class Duel:
  """Comparison of two sources.

  Attributes:
    difference: mean over datasets of `first` minus `second`, with its interval.
    p: p-value of no difference, corrected for the number of comparisons shown (Holm).
    datasets: number of datasets that both have.
    paired: whether test images were compared one by one. Otherwise the intervals were combined as
      if they were independent, which is too wide.
  """

  first: Series
  second: Series
  difference: Estimate
  p: float
  datasets: int
  paired: bool

  @property
  def winner(self) -> Series | None:
    """The better source; None if they can't be told apart."""
    if self.p >= LEVEL:
      return None
    return self.first if self.difference.value > 0 else self.second

  @property
  def verdict(self) -> str:
    if self.winner is None:
      return "can’t be told apart"
    return f"{images_label(self.winner.source, self.winner.generator)} is better"

  @property
  def words(self) -> str:
    """The difference with its interval and p-value."""
    ends = self.difference.wide_interval or self.difference.interval
    # Near 0 against 1, the normal approximation reaches beyond the possible differences.
    low, high = np.clip(ends, -1, 1).tolist() if ends else (0.0, 0.0)
    interval = f" ({points(low)} to {points(high)})" if ends else ""
    return f"{points(self.difference.value)}{interval}, {p_value(self.p)}"


def duels(
  results: Results, series: Sequence[Series], shots: int, quantity: str, hits: Hits | None = None
) -> list[Duel]:
  """Return the comparison of every two series on the datasets that both have.

  Where rows contain the interval for the generator, test images are paired and the variance due to
  other training images is added for both sides.

  Args:
    results: the rows.
    series: the series to compare.
    shots: images per class.
    quantity: the recognizer.
    hits: recognized test images, if they were kept.
  """
  found = []
  for first, second in itertools.combinations(series, 2):
    by_dataset = {}
    paired = True
    for dataset in results.datasets:
      mine, other = (results.estimate(dataset, s, shots, quantity) for s in (first, second))
      if mine and other:
        exact = paired_difference(results, dataset, (first, second), shots, quantity, hits or {})
        paired = paired and exact is not None
        by_dataset[dataset] = exact or difference(mine, other)
    if mean := average(by_dataset, results.datasets):
      found.append(Duel(first, second, mean.estimate, p_of(mean.estimate), len(by_dataset), paired))
  corrected = holm_corrected([duel.p for duel in found])
  return [dataclasses.replace(duel, p=p) for duel, p in zip(found, corrected, strict=True)]


def holm_corrected(p_values: Sequence[float]) -> list[float]:
  """Return the p-values corrected for their number (Holm 1979)."""
  return [float(p) for p in holm(np.array(p_values))] if p_values else []


def paired_difference(
  results: Results,
  dataset: str,
  pair: tuple[Series, Series],
  shots: int,
  quantity: str,
  hits: Hits,
) -> Estimate | None:
  """Return the mean over seeds of first minus second, paired by test image.

  The result is None without hits of both.

  Args:
    results: the rows.
    dataset: name of the dataset.
    pair: first and second series.
    shots: images per class.
    quantity: the recognizer.
    hits: recognized test images.
  """
  seeds = sorted({cell.seed for cell in results.cells if cell.dataset == dataset})
  both = [
    tuple(hits.get((dataset, first, shots, seed, quantity)) for first in pair) for seed in seeds
  ]
  estimates = tuple(results.estimate(dataset, first, shots, quantity) for first in pair)
  return paired_estimate(both, estimates)


def paired_estimate(
  both: Sequence[Sequence[PerImage | None]], estimates: Sequence[Estimate | None]
) -> Estimate | None:
  """Return first minus second, paired by test image; None unless both have hits on the same images.

  Args:
    both: the hits of first and second for each seed.
    estimates: estimates of first and second. Their variance due to other training images is added
      to the interval.
  """
  pairs = [
    (first, other)
    for first, other in both
    if first
    and other
    and first.images == other.images
    and len(first.values) == len(other.values) > 1
  ]
  if not pairs or len({len(first.values) for first, _ in pairs}) > 1:
    return None
  sides = [np.mean([pair[side].values for pair in pairs], axis=0) for side in (0, 1)]
  images = [_image_variance(estimate) for estimate in estimates]
  weights = pairs[0][0].weights
  near = _compared(sides, weights, (0.0, 0.0))
  if not any(images):
    return near
  wide = _compared(sides, weights, images)
  return dataclasses.replace(near, wide_low=wide.low, wide_high=wide.high)


def _compared(
  sides: Sequence[Float[np.ndarray, "n"]],
  weights: Float[np.ndarray, "n"],
  images: Sequence[float],
) -> Estimate:
  """Return first minus second, with the variance due to other training images."""
  first, other = (
    paired.ImageOutcomes(values, weights=weights, external_variance=variance)
    for values, variance in zip(sides, images, strict=True)
  )
  found = paired.paired_difference("first", "second", "", first, other)
  return Estimate(found.difference, found.ci_low, found.ci_high)


def _image_variance(estimate: Estimate | None) -> float:
  """Return the variance of one side due to other training images; 0 if the rows do not contain it."""
  if estimate is None or estimate.interval is None or estimate.wide_interval is None:
    return 0.0
  near, wide = (high - low for low, high in (estimate.interval, estimate.wide_interval))
  return max(wide**2 - near**2, 0.0) / (2 * NORMAL) ** 2


def p_of(estimate: Estimate) -> float:
  """Return the two-sided normal p-value that belongs to the interval; 1 without an interval."""
  ends = estimate.wide_interval or estimate.interval
  if ends is None:
    return 1.0
  error, center = (ends[1] - ends[0]) / (2 * NORMAL), (ends[0] + ends[1]) / 2
  if error <= 0:
    return 1.0 if estimate.value == 0 else 0.0
  return math.erfc(abs(center) / error / math.sqrt(2))
