"""Intervals of recognition scores: proportions near 0 or 1, and paired differences.

A percentile bootstrap of 100 correct answers out of 100 gives [1, 1]. Wilson's interval does not:
it contains the true accuracies under which the observation is plausible. A score that is not a
plain proportion is treated as a proportion of as many images as give its variance (Kish's effective
sample size; Korn & Graubard 1998; for the area under the ROC curve Kottas et al. 2014). The
variance due to the external images is added.
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
from genbench_jax.runtime.protocol import NORMAL

# Pseudo-images at the mean recall that are added to each class, so that no recall has zero
# variance.
SHRINKAGE = 1.0
# A stratified sample can be worth more images than it has; the effective size is capped at this
# multiple.
MOST_GAIN = 4
# The step from the value to the mean over halves, multiplied by this, estimates the bias
# (benchmarks/intervals.py).
HALF_SAMPLES = 100
BIAS_STEPS = 1.3


def wilson(value: float, variance: float, most: float) -> tuple[float, float]:
  """Return Wilson's 95 % interval (1927) of a proportion with a given variance.

  Args:
    value: the proportion.
    variance: variance of `value`.
    most: number of images to assume if `value` is 0 or 1, where the variance is unknown.
  """
  binomial = value * (1 - value)
  known = variance > 0 and binomial > 0
  # p (1 - p) / n = variance defines the effective n.
  count = min(binomial / variance, MOST_GAIN * most) if known else most
  square = NORMAL**2
  center = (value + square / (2 * count)) / (1 + square / count)
  half = NORMAL / (1 + square / count) * np.sqrt(binomial / count + square / (4 * count**2))
  # Rounding must not leave the value outside: at 0 and 1 center and half cancel.
  return max(min(float(center - half), value), 0.0), min(max(float(center + half), value), 1.0)


def recognition_interval(
  scores: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  metric: str,
  seed: int = 0,
) -> tuple[float, float]:
  """Return the 95 % interval of a recognition score over the test images.

  Args:
    scores: score of each class for each test image.
    labels: class indices, or multi-hot for `map_11_point`.
    metric: see `recognition_score`.
    seed: of the half samples for `map_11_point`.
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
  """Measure `accuracy` or `mean_per_class` with its intervals.

  Args:
    correct: whether each test image is recognized.
    labels: class indices.
    metric: `accuracy` or `mean_per_class`.
    external: variance due to the external images; None if unknown.
  """
  weights = image_weights(labels, metric)
  value = float(weights @ correct)
  variance = _variance_of_recalls(correct, labels, weights)
  most = 1 / float(np.sum(weights**2))
  return _measurement(value, variance, most, external)


def image_weights(labels: Int[np.ndarray, "n"], metric: str) -> Float[np.ndarray, "n"]:
  """Return the weight of each test image in the score; weights sum to 1."""
  if metric == "accuracy":
    return np.full(len(labels), 1 / len(labels))
  counts = np.bincount(labels)
  return 1 / (counts[labels] * np.sum(counts > 0))


def _variance_of_recalls(
  correct: Bool[np.ndarray, "n"], labels: Int[np.ndarray, "n"], weights: Float[np.ndarray, "n"]
) -> float:
  """Return the variance of the weighted share of correct answers.

  It is binomial for independent images. If the test set was drawn class by class, or the score is a
  mean over classes,
  class counts do not vary: the variance is the sum of the classes' variances, with recalls shrunk
  towards the mean.
  """
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
  """Measure the area under the ROC curve with its intervals; variance by DeLong et al. (1988).

  Args:
    scores: score of the positive class.
    positive: whether each image is positive.
    external: variance due to the external images; None if unknown.
  """
  parts = placements(scores, positive)
  return _measurement(float(parts[0].mean()), _variance_of_means(parts), len(scores), external)


def area_gain_measurement(
  first: Float[np.ndarray, "n"],
  second: Float[np.ndarray, "n"],
  positive: Bool[np.ndarray, "n"],
  external: float | None = None,
) -> Measurement:
  """Measure the difference of two areas on the same images; variance by DeLong et al. (1988).

  Args:
    first, second: scores of the positive class by two classifiers.
    positive: whether each image is positive.
    external: variance due to the external images; None if unknown.
  """
  pairs = zip(placements(first, positive), placements(second, positive), strict=True)
  parts = [ours - theirs for ours, theirs in pairs]
  value = float(parts[0].mean())
  # As in `difference_measurement`: observing no difference does not mean that none is possible.
  variance = _variance_of_means(parts) + 1 / (len(first) + 2) ** 2
  low, high = _around(value, variance)
  if external is None:
    return Measurement(value, low, high)
  return Measurement(value, low, high, *_around(value, variance + external))


def placements(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]
) -> list[Float[np.ndarray, "_"]]:
  """Return the share of negatives below each positive, and of positives above each negative.

  Both means are the area under the ROC curve.

  Args:
    scores: score of the positive class.
    positive: whether each image is positive.
  """
  above = _shares_below(scores[positive], scores[~positive])
  return [above, 1 - _shares_below(scores[~positive], scores[positive])]


def _variance_of_means(parts: list[Float[np.ndarray, "_"]]) -> float:
  return sum(float(part.var(ddof=int(len(part) > 1))) / len(part) for part in parts)


def _shares_below(
  scores: Float[np.ndarray, "p"], others: Float[np.ndarray, "q"]
) -> Float[np.ndarray, "p"]:
  """Return, for each score, the share of the others below it; ties count one half."""
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
  """Measure a biased estimator from its values on random halves of the test images.

  A half drawn without replacement varies as the whole does (delete-half jackknife, Shao & Wu 1989).
  Its mean exceeds the value by once the bias of the whole, if the bias goes as 1 / n. The bias of
  11-point precision falls more slowly: 1.3 times the step is subtracted (benchmarks/intervals.py),
  and 3/4 of a step is added as uncertainty. A percentile bootstrap would double the bias instead.
  The interval contains the value and is clipped to what is possible.

  Args:
    value: the score of all test images.
    halves: the score of each half.
    external: variance due to the external images; None if unknown.
    lowest: smallest possible value; the largest is 1.
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
  """Measure the difference of two scores on the same test images.

  As for matched pairs (Agresti & Min 2005), two pseudo-images are added, one in favor of each side.
  Otherwise, observing no difference would give a zero-width interval.

  Args:
    differences: correctness by the first minus correctness by the second, per image.
    weights: of the images, see `image_weights`; they sum to 1.
    external: variance due to the external images; None if unknown.
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
  """Return the mean 11-point precision of each classifier on random halves of the test images.

  Args:
    columns: scores [n, v, k] of v classifiers.
    labels: class indices or multi-hot.
    seed: of the halves.
    repeats: number of halves.
  """
  generator = np.random.default_rng(seed)
  hot = labels if labels.ndim == 2 else np.eye(columns.shape[2], dtype=bool)[labels]
  occurs = np.flatnonzero(hot.any(axis=1))

  def of_half() -> list[float]:
    half = generator.permutation(len(hot))[: max(len(hot) // 2, 1)]
    drawn = hot[half]
    if not drawn.any():  # few positives: precision needs at least one
      half = occurs[:1]
      drawn = hot[half]
    used = np.flatnonzero(drawn.any(axis=0))
    return [
      float(np.mean([eleven_point_precision(columns[half, v, c], drawn[:, c]) for c in used]))
      for v in range(columns.shape[1])
    ]

  return np.array([of_half() for _ in range(repeats)])
