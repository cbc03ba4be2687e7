"""The four recognition metrics of the datasets, computed from scores or predictions.

They run in NumPy on the host, in float64, and agree with the scikit-learn functions of the same
meaning.
"""

from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.inputs import feature_rows, label_rows
from genbench_jax.metrics.kinds import Metric

METRICS: tuple[str, ...] = get_args(Metric)
# These need only the predicted class; the others need the scores.
FROM_PREDICTIONS = ("accuracy", "mean_per_class")


def recognition_score(scores: Float[Any, "n k"], labels: Any, metric: str = "accuracy") -> float:
  """Compute the recognition score of a classifier, a fraction from 0 to 1.

  Args:
    scores: score of each class for each test image. The highest is the prediction; ties go to the
      first class. Minus infinity excludes a class.
    labels: class indices [n], or multi-hot [n, k] for `map_11_point`.
    metric: `accuracy`; `mean_per_class`, the mean recall over classes that occur (balanced
      accuracy); `map_11_point`, the mean of `eleven_point_precision` over classes that occur;
      `roc_auc`, for two classes, by the score of class 1.

  Raises:
    UsageError: the metric is unknown, arrays do not fit it or hold NaN, or it is not defined for
      the labels (`roc_auc` with a single class, `map_11_point` without any positive).
  """
  check_metric(metric)
  scores = np.asarray(feature_rows("scores", scores), np.float64)
  if np.isnan(scores).any():
    raise UsageError("scores hold NaN values")
  labels = label_rows("labels", labels, len(scores), scores.shape[1])
  check_test_labels(labels, scores.shape[1], metric)
  if metric in FROM_PREDICTIONS:
    correct = scores.argmax(1) == labels
    return score_from_correct(correct, labels, scores.shape[1], metric)
  if metric == "roc_auc":
    return area_under_roc(scores[:, 1], labels == 1)
  hot = labels if labels.ndim == 2 else np.eye(scores.shape[1], dtype=bool)[labels]
  used = np.flatnonzero(hot.any(0))
  return float(np.mean([eleven_point_precision(scores[:, c], hot[:, c]) for c in used]))


def check_metric(metric: str) -> None:
  """Check that the metric is known.

  Raises:
    UsageError: it is not.
  """
  if metric not in METRICS:
    raise unknown_name("recognition metric", metric, METRICS)


def check_test_labels(labels: np.ndarray, num_classes: int, metric: str) -> None:
  """Check that the metric is defined for these test labels.

  Args:
    labels: class indices, or multi-hot labels.
    num_classes: number of classes.
    metric: a metric of recognition.

  Raises:
    UsageError: it is not.
  """
  if metric != "map_11_point" and labels.ndim == 2:
    raise UsageError(
      f"{metric} needs one class per image; multi-hot labels are scored by map_11_point"
    )
  if metric == "map_11_point" and labels.ndim == 2 and not labels.any():
    raise UsageError("map_11_point needs at least one positive label among the test images")
  if metric == "roc_auc" and (num_classes != 2 or len(np.unique(labels)) != 2):
    raise UsageError("roc_auc needs two classes, both of them among the test labels")


def score_from_correct(
  correct: Bool[np.ndarray, "n"], labels: Int[np.ndarray, "n"], num_classes: int, metric: str
) -> float:
  """Return the accuracy, or the mean recall over classes that occur.

  Args:
    correct: whether each test image is recognized.
    labels: class indices.
    num_classes: number of classes.
    metric: `accuracy` or `mean_per_class`.
  """
  totals = np.bincount(labels, minlength=num_classes)
  hits = np.bincount(labels[correct], minlength=num_classes)
  return score_from_hits(hits, totals, metric)


def score_from_hits(hits: Int[np.ndarray, "k"], totals: Int[np.ndarray, "k"], metric: str) -> float:
  """Return the score from the correct predictions and the images of each class.

  Args:
    hits: correct predictions of each class.
    totals: test images of each class.
    metric: `accuracy` or `mean_per_class`.
  """
  if metric == "accuracy":
    return float(hits.sum() / totals.sum())
  occurs = totals > 0
  return float(np.mean(hits[occurs] / totals[occurs]))


def area_under_roc(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float:
  """Return the probability that a positive scores above a negative; ties count half."""
  _, group = np.unique(scores, return_inverse=True)
  positives = np.bincount(group, positive)
  negatives = np.bincount(group, ~positive)
  # Groups are sorted by score: `below` counts the negatives with a strictly smaller score.
  below = np.cumsum(negatives) - negatives
  return float(np.sum(positives * (below + negatives / 2)) / (positives.sum() * negatives.sum()))


def eleven_point_precision(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]
) -> float:
  """Return the mean over recall 0, 0.1, ..., 1 of the best precision from there on (VOC 2007).

  The published evaluation uses scikit-learn's curve, which ends in precision 1 at recall 0. The
  first of the eleven points is therefore always 1.
  """
  order = np.argsort(-scores, kind="stable")
  last_of_equals = np.append(np.diff(scores[order]) != 0, True)
  found = np.cumsum(positive[order])[last_of_equals]
  precision = found / (np.flatnonzero(last_of_equals) + 1)
  # Interpolated precision: the best at this recall or above.
  best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
  # Recall r / 10 is reached where 10 * found >= r * positives; integers avoid rounding.
  wanted = np.arange(1, 11) * found[-1]
  reached = np.searchsorted(10 * found, wanted)
  return float((1 + best_from_here[reached].sum()) / 11)
