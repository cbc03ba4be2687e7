"""Intervals of recognition scores: fractions that may lie at the ceiling, and differences of two on the same images.

A percentile bootstrap of 100 right answers of 100 says [1, 1]. Wilson's interval does not: it asks which true accuracies
would give what was seen. A score that is no plain proportion is treated as one of that many images as have its variance
(Kish's effective sample size; Korn & Graubard 1998; for the area under the ROC curve Kottas et al. 2014). External images
that vary add to the variance.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.accuracy import (
  FROM_PREDICTIONS,
  eleven_point_precision,
  recognition_score,
)
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.strata import is_drawn_by_class

NORMAL = 1.959964
# Images of an average class that stand beside those of a class whose recall is to vary.
SHRINKAGE = 1.0
# A stratified sample is worth more images than it has, but hardly more than so many times.
MOST_GAIN = 4
HALF_SAMPLES = 100
BIAS_STEPS = 1.3


def wilson(value: float, variance: float, most: float) -> tuple[float, float]:
  """Wilson's 95 % interval (1927) of a fraction with that variance.

  Args:
    value: the fraction; variance: of the value.
    most: the number of images that a value at 0 or 1, whose variance is unknown, stands for.
  """
  binomial = value * (1 - value)
  known = variance > 0 and binomial > 0
  count = min(binomial / variance, MOST_GAIN * most) if known else most
  square = NORMAL**2
  center = (value + square / (2 * count)) / (1 + square / count)
  half = NORMAL / (1 + square / count) * np.sqrt(binomial / count + square / (4 * count**2))
  return max(float(center - half), 0.0), min(float(center + half), 1.0)


def recognition_interval(
  scores: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  metric: str,
  seed: int = 0,
) -> tuple[float, float]:
  """The 95 % interval of a recognition score over the test images.

  Args:
    scores: score of each class for each test image.
    labels: class indices, or multi-hot for `map_11_point`.
    metric: see `recognition_score`.
    seed: draws the half samples of `map_11_point`.
  """
  scores, labels = np.asarray(scores), np.asarray(labels)
  if metric in FROM_PREDICTIONS:
    correct = scores.argmax(axis=1) == labels
    found = correct_measurement(correct, labels, metric)
  elif metric == "roc_auc":
    found = area_measurement(scores[:, 1], labels == 1)
  else:
    value = recognition_score(scores, labels, metric)
    found = halved_measurement(value, halved_precision(scores[:, None], labels, seed)[:, 0])
  return found.ci_low, found.ci_high


def correct_measurement(
  correct: Bool[np.ndarray, "n"],
  labels: Int[np.ndarray, "n"],
  metric: str,
  external: float | None = None,
) -> Measurement:
  """`accuracy` or `mean_per_class` with its intervals.

  Args:
    external: the variance that the external images add; None where it can't be told.
  """
  weights = image_weights(labels, metric)
  value = float(weights @ correct)
  variance = _variance_of_recalls(correct, labels, weights)
  most = 1 / float(np.sum(weights**2))
  return _measurement(value, variance, most, external)


def image_weights(labels: Int[np.ndarray, "n"], metric: str) -> Float[np.ndarray, "n"]:
  """What each test image counts in the score: the weights of its right answers."""
  if metric == "accuracy":
    return np.full(len(labels), 1 / len(labels))
  counts = np.bincount(labels)
  return 1 / (counts[labels] * np.sum(counts > 0))


def _variance_of_recalls(
  correct: Bool[np.ndarray, "n"], labels: Int[np.ndarray, "n"], weights: Float[np.ndarray, "n"]
) -> float:
  """Of the weighted share of right answers: binomial for independent images, else that of each class, a little towards the
  mean: a test set drawn class by class, or a mean over classes, does not vary by how many images a class has."""
  value = float(weights @ correct)
  counts = np.bincount(labels)
  if np.ptp(weights) == 0 and not is_drawn_by_class(counts[counts > 0]):
    return value * (1 - value) / len(weights)
  hits = np.bincount(labels, correct)
  recalls = (hits + SHRINKAGE * value) / (counts + SHRINKAGE)
  return float(np.sum(weights**2 * (recalls * (1 - recalls))[labels]))


def area_measurement(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], external: float | None = None
) -> Measurement:
  """The area under the ROC curve with its intervals, the variance by DeLong et al. (1988)."""
  parts = _placements(scores, positive)
  return _measurement(float(parts[0].mean()), _variance_of_means(parts), len(scores), external)


def area_gain_measurement(
  first: Float[np.ndarray, "n"],
  second: Float[np.ndarray, "n"],
  positive: Bool[np.ndarray, "n"],
  external: float | None = None,
) -> Measurement:
  """The difference of two areas on the same images, its variance by DeLong et al. (1988)."""
  pairs = zip(_placements(first, positive), _placements(second, positive), strict=True)
  parts = [one - other for one, other in pairs]
  value = float(parts[0].mean())
  # As in `difference_measurement`: no difference seen is not none possible.
  variance = _variance_of_means(parts) + 1 / (len(first) + 2) ** 2
  low, high = _around(value, variance)
  if external is None:
    return Measurement(value, low, high)
  return Measurement(value, low, high, *_around(value, variance + external))


def _placements(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]
) -> list[Float[np.ndarray, "_"]]:
  """For each positive the share of negatives below it, for each negative that of positives above it."""
  above = _shares_below(scores[positive], scores[~positive])
  return [above, 1 - _shares_below(scores[~positive], scores[positive])]


def _variance_of_means(parts: list[Float[np.ndarray, "_"]]) -> float:
  return sum(float(part.var(ddof=int(len(part) > 1))) / len(part) for part in parts)


def _shares_below(
  scores: Float[np.ndarray, "p"], others: Float[np.ndarray, "q"]
) -> Float[np.ndarray, "p"]:
  """For each score the share of the others below it, an equal one counting half."""
  ranked = np.sort(others)
  below, through = (np.searchsorted(ranked, scores, side) for side in ("left", "right"))
  return (below + through) / (2 * len(others))


def _measurement(value: float, variance: float, most: float, external: float | None) -> Measurement:
  low, high = wilson(value, variance, most)
  if external is None:
    return Measurement(value, low, high)
  return Measurement(value, low, high, *wilson(value, variance + external, most))


def halved_measurement(
  value: float, halves: Float[np.ndarray, "r"], external: float | None = None, lowest: float = 0.0
) -> Measurement:
  """The interval of a biased estimator from its values on random halves of the test images.

  A half without replacement varies as the whole does (delete-half jackknife, Shao & Wu 1989). Its mean is off by the bias
  of the whole once more, if that went as 1 / n; that of 11-point precision goes more slowly, and 1.3 times the step is
  taken back (benchmarks/intervals.py), and counted as uncertain by three quarters of a step. A percentile bootstrap, which repeats
  the bias, has it twice. The interval holds the value itself, and is cut to what is possible.

  Args:
    value: of all test images; halves: of each half.
    external: the variance that the external images add; None where it can't be told.
    lowest: the least possible value; the highest is 1.
  """
  step = float(halves.mean()) - value
  middle, variance = value - BIAS_STEPS * step, float(halves.var(ddof=1)) + (0.75 * step) ** 2
  low, high = _holding(value, middle, variance, lowest)
  if external is None:
    return Measurement(value, low, high)
  return Measurement(value, low, high, *_holding(value, middle, variance + external, lowest))


def _holding(value: float, middle: float, variance: float, lowest: float) -> tuple[float, float]:
  half = NORMAL * np.sqrt(variance)
  low, high = min(middle - half, value), max(middle + half, value)
  return max(float(low), lowest), min(float(high), 1.0)


def difference_measurement(
  differences: Float[np.ndarray, "n"],
  weights: Float[np.ndarray, "n"],
  external: float | None = None,
) -> Measurement:
  """The difference of two scores on the same test images: weighted mean of what each image adds.

  As for matched pairs (Agresti & Min 2005) two images, one for each side, are added, so that no difference seen is not
  taken for none possible.

  Args:
    differences: right by the first less right by the second, for each image.
    weights: of the images, see `image_weights`; they sum to 1.
    external: the variance that the external images add; None where it can't be told.
  """
  value = float(weights @ differences)
  count = 1 / float(np.sum(weights**2))
  share = count / (count + 2)
  square = float(weights @ differences**2)
  center = value * share
  variance = ((square * count + 1) / (count + 2) - center**2) / (count + 2)
  low, high = _around(center, variance)
  if external is None:
    return Measurement(value, low, high)
  return Measurement(value, low, high, *_around(center, variance + external))


def _around(center: float, variance: float) -> tuple[float, float]:
  half = NORMAL * np.sqrt(max(variance, 0.0))
  return max(float(center - half), -1.0), min(float(center + half), 1.0)


def halved_precision(
  columns: Float[np.ndarray, "n v k"], labels: Any, seed: int, repeats: int = HALF_SAMPLES
) -> Float[np.ndarray, "r v"]:
  """Mean 11-point precision of each column of scores on random halves of the test images."""
  generator = np.random.default_rng(seed)
  hot = labels if labels.ndim == 2 else np.eye(columns.shape[2], dtype=bool)[labels]
  occurs = np.flatnonzero(hot.any(axis=1))

  def of_half() -> list[float]:
    half = generator.permutation(len(hot))[: max(len(hot) // 2, 1)]
    drawn = hot[half]
    if not drawn.any():  # few positives: the mean needs one
      half = occurs[:1]
      drawn = hot[half]
    used = np.flatnonzero(drawn.any(axis=0))
    return [
      float(np.mean([eleven_point_precision(columns[half, v, c], drawn[:, c]) for c in used]))
      for v in range(columns.shape[1])
    ]

  return np.array([of_half() for _ in range(repeats)])
