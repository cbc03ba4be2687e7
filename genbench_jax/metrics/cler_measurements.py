"""CLER scores with their intervals, from the judgment of each test image."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.metrics.bootstrap import ONE_A_CLASS, Measurement
from genbench_jax.metrics.image_values import paired_values
from genbench_jax.metrics.intervals import (
  HALF_SAMPLES,
  area_gain_measurement,
  area_measurement,
  correct_measurement,
  difference_measurement,
  halved_measurement,
  halved_precision,
  image_weights,
)


def measurements(
  names: Sequence[str],
  values: Sequence[float],
  judged: np.ndarray,
  test_labels: np.ndarray,
  metric: str,
  variances: Mapping[str, float] | None,
  seed: int,
  resamples: int,
) -> dict[str, Measurement]:
  """Return both intervals of each score and of the gain over zero-shot.

  Args:
    names: the scores, in order.
    values: their values.
    judged: correctness of each test image by score, or its scores of the classes.
    test_labels, metric: as in `cler.cler`.
    variances: variance of each score due to the external images; None if unknown.
    seed: of the halves for `map_11_point`.
    resamples: number of halves, at most `HALF_SAMPLES`.
  """
  # Zero-shot does not use external images, so they add no variance to it.
  known = {"zero_shot": 0.0, **(variances or {})}
  if metric == "map_11_point":
    found = _ranked_measurements(names, values, judged, test_labels, known, seed, resamples)
  else:
    found = {
      name: _measurement(judged[:, v], test_labels, metric, known.get(name))
      for v, name in enumerate(names)
    }
    found["cler_gain"] = _gain(names, judged, test_labels, metric, known.get("cler"))
  if variances is None:
    found = {
      name: _unknown(score) if name != "zero_shot" else score for name, score in found.items()
    }
  return found


def _unknown(found: Measurement) -> Measurement:
  return dataclasses.replace(found, note=ONE_A_CLASS)


def _measurement(
  judged: np.ndarray, test_labels: np.ndarray, metric: str, external: float | None
) -> Measurement:
  if metric == "roc_auc":
    return area_measurement(judged[:, 1], test_labels == 1, external)
  return correct_measurement(judged, test_labels, metric, external)


def _gain(
  names: Sequence[str],
  judged: np.ndarray,
  test_labels: np.ndarray,
  metric: str,
  external: float | None,
) -> Measurement:
  # External images vary the gain as they vary CLER, because zero-shot is constant in them.
  first, second = (judged[:, names.index(name)] for name in ("cler", "zero_shot"))
  if metric == "roc_auc":
    return area_gain_measurement(first[:, 1], second[:, 1], test_labels == 1, external)
  weights = image_weights(test_labels, metric)
  return difference_measurement(first.astype(float) - second, weights, external)


def _ranked_measurements(
  names: Sequence[str],
  values: Sequence[float],
  judged: np.ndarray,
  test_labels: np.ndarray,
  known: Mapping[str, float],
  seed: int,
  resamples: int,
) -> dict[str, Measurement]:
  halves = halved_precision(judged, test_labels, seed, min(resamples, HALF_SAMPLES))
  found = {
    name: halved_measurement(value, halves[:, v], known.get(name))
    for v, (name, value) in enumerate(zip(names, values, strict=True))
  }
  zero_shot, cler = names.index("zero_shot"), names.index("cler")
  gain = values[cler] - values[zero_shot]
  # Both scores are taken on the same halves, so their difference is paired.
  moved = halves[:, cler] - halves[:, zero_shot]
  found["cler_gain"] = halved_measurement(gain, moved, known.get("cler"), lowest=-1.0)
  return found


def per_image(
  names: Sequence[str], judged: np.ndarray, test_labels: np.ndarray, metric: str
) -> dict[str, Float[np.ndarray, "m"]]:
  """Return the values of each score for paired comparisons, one per test image.

  Args:
    names: names of the scores, in order.
    judged: correctness or scores, see `image_values.paired_values`; the second axis has the scores.
    test_labels: labels of the test images.
    metric: recognition score.
  """
  return {name: paired_values(judged[:, v], test_labels, metric) for v, name in enumerate(names)}


def over_permutations(found: Sequence[Measurement], lowest: float) -> Measurement:
  """Return the mean of a control over its shuffles, with two intervals.

  The first is the mean of the intervals over the test images. The second is the prediction interval
  of one more shuffle, m +- t s sqrt(1 + 1 / r) for r shuffles, clipped to [`lowest`, 1].
  """
  from scipy import stats

  values = np.array([shuffle.value for shuffle in found])
  value, count = float(values.mean()), len(found)
  low, high = (
    float(np.mean([getattr(shuffle, key) for shuffle in found])) for key in ("ci_low", "ci_high")
  )
  if count < 2:
    return Measurement(value, low, high, note="a single shuffle has no spread")
  half = float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / count))
  return Measurement(value, low, high, max(value - half, lowest), min(value + half, 1.0))
