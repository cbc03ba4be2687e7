"""Diversity within classes: the mean over classes and its interval."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import own_interval
from genbench_jax.metrics.registry import Sets
from genbench_jax.metrics.within_class import (
  TWO_A_CLASS,
  _class_influences,
  _distances,
  _influences,
  intra_class_diversity,
  measure,
)


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measured(x, labels, **more):
  sets = Sets(x, x, labels, labels, num_classes=9, **{"resamples": 50, **more})
  return list(measure(sets, ("intra_class_diversity",)))


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)


def test_each_image_has_its_mean_distance_to_the_others_of_its_class(images):
  labels = np.array([0, 0, 0, 1, 1, 2])
  found = _distances(images[:6], labels)
  assert set(found) == {0, 1}
  cosines = unit(images.astype(float)) @ unit(images.astype(float)).T
  rows, values = found[0]
  assert rows.tolist() == [0, 1, 2]
  np.testing.assert_allclose(values[0], 1 - (cosines[0, 1] + cosines[0, 2]) / 2, rtol=1e-5)
  np.testing.assert_allclose(found[1][1], [1 - cosines[3, 4]] * 2, rtol=1e-5)
  opposite = np.array([[1.0, 0], [-2, 0]], np.float32)
  assert intra_class_diversity(opposite, np.array([4, 4])) == {4: pytest.approx(2)}


def test_classes_count_once_and_have_an_interval_of_their_images(images):
  labels = np.repeat([0, 1, 2], [12, 9, 3])
  (result,) = measured(images, labels)
  assert result.value.value == pytest.approx(np.mean(list(result.by_class.values())))
  assert result.by_class == intra_class_diversity(images, labels)
  found = _distances(images, labels)
  counts = np.array([12, 9, 3])
  influences = np.concatenate([
    2 * found[c][1] * 24 / (3 * n) * np.sqrt((n - 1) / (n - 2)) for c, n in enumerate(counts)
  ])  # fmt: skip
  np.testing.assert_allclose(_influences(found, counts), influences)
  expected = own_interval(result.value.value, influences, labels, 50, 0, lowest=0.0)
  assert result.value == expected and not result.value.note


def test_two_images_a_class_use_the_spread_of_the_classes(images):
  labels = np.repeat(np.arange(12), 2)
  (result,) = measured(images, labels)
  assert result.value.note == TWO_A_CLASS
  counts = np.full(12, 2)
  influences = _class_influences(result.by_class, counts)
  values = np.array(list(result.by_class.values()))
  # A mean of 12 classes: the variance of the mean over 24 images is that of the classes over 12.
  np.testing.assert_allclose(influences, np.repeat((values - values.mean()) * np.sqrt(2), 2))
  expected = own_interval(result.value.value, influences, np.zeros(24, int), 50, 0, lowest=0.0)
  assert (result.value.ci_low, result.value.ci_high) == (expected.ci_low, expected.ci_high)


def test_classes_of_other_sizes_weigh_as_one_observation_each():
  found = _class_influences({0: 1.0, 3: 3.0}, np.array([2, 8]))
  # (value - 2) x 10 / (2 n) x sqrt(n).
  np.testing.assert_allclose(found, np.repeat([-5 / np.sqrt(2), 5 / np.sqrt(8)], [2, 8]))


@pytest.mark.parametrize(
  ("sizes", "noted"), [([3, 2], False), ([3, 2, 2], True), ([2, 2], True), ([3, 3, 2], False)]
)
def test_half_of_the_classes_must_have_three_images(images, sizes, noted):
  labels = np.repeat(np.arange(len(sizes)), sizes)
  (result,) = measured(images[: len(labels)], labels)
  assert (result.value.note == TWO_A_CLASS) == noted


def test_without_a_class_of_two_images_nothing_is_measured(images):
  assert measured(images[:4], np.arange(4)) == []
  assert len(measured(images[:3], np.array([0, 1, 1]))) == 1
  with pytest.raises(UsageError, match="got 3 for 4"):
    intra_class_diversity(images[:4], np.arange(3))


def test_without_a_number_of_resamples_there_are_a_thousand(images):
  labels = np.zeros(24, int)
  assert measured(images, labels, resamples=0) == measured(images, labels, resamples=1000)
