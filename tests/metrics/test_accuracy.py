"""Recognition scores against scikit-learn, and inputs for which they are undefined."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.errors import UsageError
from genbench_jax.metrics.accuracy import eleven_point_precision, recognition_score


def scores_and_labels(seed, classes=5, rows=80, levels=6):
  """Return scores on few levels, so that ties are common."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, rows)
  labels[:classes] = np.arange(classes)
  scores = rng.integers(0, levels, (rows, classes)) / levels
  scores[np.arange(rows), labels] += 0.3 * rng.integers(0, 3, rows)
  return scores, labels


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_agrees_with_scikit_learn(seed):
  from sklearn import metrics

  scores, labels = scores_and_labels(seed)
  predicted = scores.argmax(1)
  assert recognition_score(scores, labels) == pytest.approx(
    metrics.accuracy_score(labels, predicted)
  )
  balanced = metrics.balanced_accuracy_score(labels, predicted)
  assert recognition_score(scores, labels, "mean_per_class") == pytest.approx(balanced)
  scores, labels = scores_and_labels(seed, classes=2)
  area = metrics.roc_auc_score(labels, scores[:, 1])
  assert recognition_score(scores, labels, "roc_auc") == pytest.approx(area, abs=1e-12)


def published_eleven_points(scores, positive):
  """Compute the definition, point by point, from scikit-learn's curve."""
  from sklearn.metrics import precision_recall_curve

  precision, recall, _ = precision_recall_curve(positive, scores)
  return np.mean([precision[recall >= point].max() for point in np.linspace(1, 0, 11)])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 1000]))
def test_eleven_points_agree_with_scikit_learn(seed, levels):
  scores, labels = scores_and_labels(seed, levels=levels)
  hot = np.random.default_rng(seed).random(scores.shape) < 0.2
  hot[0] = True
  for index in range(scores.shape[1]):
    expected = published_eleven_points(scores[:, index], hot[:, index])
    assert eleven_point_precision(scores[:, index], hot[:, index]) == pytest.approx(expected)
  expected = np.mean([published_eleven_points(scores[:, c], hot[:, c]) for c in range(5)])
  assert recognition_score(scores, hot, "map_11_point") == pytest.approx(expected)
  single = recognition_score(scores, labels, "map_11_point")
  assert single == pytest.approx(recognition_score(scores, np.eye(5)[labels], "map_11_point"))


def test_classes_without_test_images_are_ignored():
  scores = np.eye(4)[[0, 1, 1, 2]]
  assert recognition_score(scores, [0, 1, 1, 1], "mean_per_class") == pytest.approx((1 + 2 / 3) / 2)
  hot = np.eye(4)[[0, 1, 1, 1]]
  expected = np.mean([published_eleven_points(scores[:, c], hot[:, c]) for c in (0, 1)])
  assert recognition_score(scores, hot, "map_11_point") == pytest.approx(expected)


def test_ties_go_to_the_first_class():
  assert recognition_score(np.zeros((4, 2)), [0, 0, 0, 1]) == 0.75


@pytest.mark.parametrize(
  ("scores", "labels", "metric", "said"),
  [
    (np.eye(3), [0, 1, 2], "acuracy", "Did you mean 'accuracy'"),
    (np.eye(3), [0, 1, 3], "accuracy", "0..2"),
    (np.eye(3), [0, 1], "accuracy", r"\[3\]"),
    (np.eye(3), np.eye(3), "accuracy", "one class per image"),
    (np.eye(3), [0, 1, 2], "roc_auc", "two classes"),
    (np.eye(2), [1, 1], "roc_auc", "both of them"),
    (np.eye(2), np.zeros((2, 2)), "map_11_point", "positive"),
    (np.full((2, 2), np.nan), [0, 1], "accuracy", "NaN"),
    (np.zeros((0, 2)), [], "accuracy", "at least one"),
    (np.eye(2), [0.0, 1.0], "accuracy", "whole numbers"),
  ],
)
def test_undefined_values_are_usage_errors(scores, labels, metric, said):
  with pytest.raises(UsageError, match=said):
    recognition_score(scores, labels, metric)
