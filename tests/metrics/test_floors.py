"""Subsets of the training images that stand for a perfect source."""

import numpy as np
import pytest

from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.floors import MOST_DRAWS, RESAMPLES, draws, floors
from genbench_jax.metrics.registry import Metric, Result, Sets


def rows_of(labels, training_labels):
  return [rows.tolist() for rows in draws(np.asarray(labels), np.asarray(training_labels))]


def test_subsets_follow_the_order_of_the_training_images():
  training = [0, 1, 0, 1, 0, 1, 0]
  assert rows_of([0, 1], training) == [[0, 1], [2, 3], [4, 5]]
  assert rows_of([1, 0, 0], training) == [[0, 2, 1], [4, 6, 3]]
  assert rows_of([0, 0, 0, 0, 0], training) == []
  assert rows_of([0, 2], training) == []
  assert draws(np.array([0]), None) == []


def test_there_are_at_most_four_subsets_and_one_is_enough():
  assert MOST_DRAWS == 4
  assert rows_of([5], [5] * 9) == [[0], [1], [2], [3]]
  assert rows_of([5, 5], [5, 5, 5]) == [[0, 1]]


def test_one_hot_labels_are_classes():
  hot = np.eye(2, dtype=bool)
  assert rows_of(hot[[1, 0]], hot[[0, 1, 1, 0]]) == [[0, 1], [3, 2]]
  assert rows_of(hot[[1, 0]], [0, 1, 1, 0]) == [[0, 1], [3, 2]]
  assert rows_of([1, 0], hot[[0, 1, 1, 0]]) == [[0, 1], [3, 2]]


@pytest.mark.parametrize(("training", "subsets"), [(2, 0), (3, 1), (5, 1), (6, 2), (30, 4)])
def test_images_with_several_labels_are_taken_in_order(training, subsets):
  found = rows_of(np.ones((3, 2), bool), np.ones((training, 2), bool))
  assert found == [[3 * turn, 3 * turn + 1, 3 * turn + 2] for turn in range(subsets)]


def test_a_floor_is_the_mean_over_the_subsets_measured_like_the_images():
  seen = []

  def measure(sets, wanted):
    seen.append((sets.external.ravel().tolist(), sets.labels.tolist(), sets.resamples))
    yield Result("size", Measurement(float(sets.external.sum()), 0, 0))

  training = np.arange(6.0)[:, None]
  sets = Sets(
    np.zeros((2, 1)), np.zeros((3, 1)), np.array([0, 1]), np.zeros(3, int), num_classes=2,
    training=training, training_labels=np.array([0, 1, 1, 0, 0, 0]),
  )  # fmt: skip
  found = floors(Metric(("size",), measure), sets)
  assert seen == [([0, 1], [0, 1], RESAMPLES), ([3, 2], [0, 1], RESAMPLES)]
  assert found == {"size": (1 + 5) / 2}
