"""How recognition is scored: the four metrics of the datasets, from scores or predictions.

NumPy on the host, in float64; scikit-learn's functions of the same meaning give the same numbers.
"""

from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.inputs import feature_rows, label_rows
from genbench_jax.metrics.kinds import Metric

METRICS: tuple[str, ...] = get_args(Metric)
# These need no more than the predicted class; the others need the scores.
FROM_PREDICTIONS = ("accuracy", "mean_per_class")


def recognition_score(scores: Float[Any, "n k"], labels: Any, metric: str = "accuracy") -> float:
  """The score of a recognizer, a fraction from 0 to 1.

  Args:
    scores: score of each class for each test image; the highest is the prediction, the first of equals;
      minus infinity excludes a class.
    labels: class indices [n], or multi-hot [n, k] for `map_11_point`.
    metric: `accuracy`; `mean_per_class`, the mean recall of the classes that occur (balanced accuracy);
      `map_11_point`, see `eleven_point_precision`, mean over classes that occur; `roc_auc`, two classes,
      by the score of class 1.

  Raises:
    UsageError: an unknown metric, arrays that don't fit it, NaN, or labels for which
      it is not defined (`roc_auc` with one class only, `map_11_point` without any positive).
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
  """Raises UsageError for a metric that does not exist."""
  if metric not in METRICS:
    raise unknown_name("recognition metric", metric, METRICS)


def check_test_labels(labels: np.ndarray, num_classes: int, metric: str) -> None:
  """Raises UsageError where the metric is not defined for these test labels."""
  if metric != "map_11_point" and labels.ndim == 2:
    raise UsageError(
      f"{metric} needs one class an image; multi-hot labels are scored by map_11_point"
    )
  if metric == "map_11_point" and labels.ndim == 2 and not labels.any():
    raise UsageError("map_11_point needs at least one positive label among the test images")
  if metric == "roc_auc" and (num_classes != 2 or len(np.unique(labels)) != 2):
    raise UsageError("roc_auc needs two classes, both of them among the test labels")


def score_from_correct(
  correct: Bool[np.ndarray, "n"], labels: Int[np.ndarray, "n"], num_classes: int, metric: str
) -> float:
  """Accuracy, or the mean of the recalls of the classes that occur."""
  totals = np.bincount(labels, minlength=num_classes)
  hits = np.bincount(labels[correct], minlength=num_classes)
  return score_from_hits(hits, totals, metric)


def score_from_hits(hits: Int[np.ndarray, "k"], totals: Int[np.ndarray, "k"], metric: str) -> float:
  """The same from the number of right predictions and of images of each class."""
  if metric == "accuracy":
    return float(hits.sum() / totals.sum())
  occurs = totals > 0
  return float(np.mean(hits[occurs] / totals[occurs]))


def area_under_roc(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float:
  """Chance that a positive scores above a negative, an equal score counting half (Mann-Whitney)."""
  _, group = np.unique(scores, return_inverse=True)
  positives = np.bincount(group, positive)
  negatives = np.bincount(group, ~positive)
  below = np.cumsum(negatives) - negatives
  return float(np.sum(positives * (below + negatives / 2)) / (positives.sum() * negatives.sum()))


def eleven_point_precision(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]
) -> float:
  """Mean over recall 0, 0.1, ..., 1 of the highest precision at that recall or above (VOC 2007).

  As in the published evaluation the curve is scikit-learn's, which ends in precision 1 at recall 0: that point
  therefore always counts 1.
  """
  order = np.argsort(-scores, kind="stable")
  last_of_equals = np.append(np.diff(scores[order]) != 0, True)
  found = np.cumsum(positive[order])[last_of_equals]
  precision = found / (np.flatnonzero(last_of_equals) + 1)
  best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
  # Recall r/10 is reached where 10 * found >= r * positives: whole numbers, no rounding.
  wanted = np.arange(1, 11) * found[-1]
  reached = np.searchsorted(10 * found, wanted)
  return float((1 + best_from_here[reached].sum()) / 11)
