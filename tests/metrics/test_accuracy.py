"""Recognition scores against scikit-learn, and inputs for which they are undefined."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.errors import UsageError
from genbench_jax.metrics.accuracy import (
  area_under_roc,
  check_test_labels,
  eleven_point_precision,
  recognition_score,
  score_from_correct,
  score_from_hits,
)


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


def test_eleven_points_of_a_few_images():
  """Positives at ranks 1, 3 and 4 of 5: precisions 1, 2/3 and 3/4, the best from recall 1/3 on is 3/4."""
  scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
  found = eleven_point_precision(scores, np.array([True, False, True, True, False]))
  # Recall 0 and .1 to .3 are reached by the first, .4 to 1 by the others.
  assert found == pytest.approx((1 + 3 * 1 + 7 * 0.75) / 11)
  # Ties are one step: 1 of 2, then 2 of 3.
  tied = eleven_point_precision(np.array([1.0, 1, 0]), np.array([False, True, True]))
  assert tied == pytest.approx((1 + 5 * 2 / 3 + 5 * 2 / 3) / 11)
  assert eleven_point_precision(np.array([0.1]), np.array([True])) == 1


def test_scores_from_counts():
  hits, totals = np.array([3, 0, 0]), np.array([4, 4, 0])
  assert score_from_hits(hits, totals, "accuracy") == 3 / 8
  assert score_from_hits(hits, totals, "mean_per_class") == 3 / 8 == (3 / 4 + 0) / 2
  assert score_from_hits(np.array([3, 0]), np.array([4, 1]), "mean_per_class") == 3 / 8
  correct, labels = np.array([True, False, True]), np.array([2, 2, 0])
  assert score_from_correct(correct, labels, 4, "mean_per_class") == 3 / 4
  assert score_from_correct(correct, labels, 4, "accuracy") == pytest.approx(2 / 3)


def test_the_area_counts_pairs_and_ties_half():
  scores, positive = np.array([0.5, 0.5, 0.2, 0.9]), np.array([True, False, False, True])
  assert area_under_roc(scores, positive) == (0.5 + 1 + 1 + 1) / 4
  # An infinite score excludes a class, and is no error.
  excluded = np.array([[0.0, -np.inf], [0.0, 1.0]])
  assert recognition_score(excluded, [0, 1]) == 1


@pytest.mark.parametrize(
  ("labels", "classes", "metric", "fits"),
  [
    ([0, 1], 2, "roc_auc", True),
    ([1, 1], 2, "roc_auc", False),
    ([0, 1], 3, "roc_auc", False),
    (np.eye(2, dtype=bool), 2, "map_11_point", True),
    (np.zeros((2, 2), bool), 2, "map_11_point", False),
    (np.eye(2, dtype=bool), 2, "accuracy", False),
    ([0, 0], 2, "map_11_point", True),
    ([0, 0], 2, "mean_per_class", True),
  ],
)
def test_labels_for_which_a_metric_is_defined(labels, classes, metric, fits):
  labels = np.asarray(labels)
  if fits:
    check_test_labels(labels, classes, metric)
  else:
    with pytest.raises(UsageError, match=metric):
      check_test_labels(labels, classes, metric)
