"""Degradations of a few features by hand: how much of what they change."""

import numpy as np
import pytest

from genbench_jax.metrics import shifts
from genbench_jax.metrics.shifts import Features, rows_by_class, unit


def features(counts, width=6, seed=0):
  labels = np.repeat(np.arange(len(counts)), counts)
  rows = unit(np.random.default_rng(seed).normal(size=(len(labels), width)))
  return Features(rows, labels, None)


def shifted(name, given, seed=0):
  return shifts.SHIFTS[name](given, np.random.default_rng(seed))


@pytest.mark.parametrize(("classes", "kept"), [(1, 1), (2, 1), (3, 1), (5, 2)])
def test_half_of_the_classes_stay_but_at_least_one(classes, kept):
  found = shifted("dropped_modes", features([4] * classes))
  assert np.bincount(np.bincount(found.labels))[4] == kept


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (7, 1), (8, 1), (15, 1), (16, 2), (24, 3)])
def test_an_eighth_of_each_class_stays_but_at_least_one(count, kept):
  given = features([count, 16])
  fewer, copies = shifted("fewer_images", given), shifted("duplicates", given)
  assert np.bincount(fewer.labels).tolist() == [kept, 2]
  assert np.bincount(copies.labels).tolist() == [count, 16]
  originals = {row.tobytes() for row in copies.features[copies.labels == 0]}
  assert len(originals) <= kept
  if count == 24:
    assert len(originals) > 1


def test_noise_has_the_deviation_within_classes():
  """Classes far apart do not count: only the deviations of 0 and of 0.1 within them."""
  random = np.random.default_rng(0)
  centers = np.array([[9.0, 0, 0], [0, 9, 0]])
  rows = np.repeat(centers, 2000, axis=0)
  rows[2000:] += 0.1 * random.normal(size=(2000, 3))
  given = Features(rows.astype(np.float32), np.repeat([0, 1], 2000), None)
  noisy = shifted("noise", given).features
  # Unit vectors near (1, 0, 0): the second coordinate is the noise over the length 9.
  assert noisy[:2000, 1].std() == pytest.approx(0.05 / 9, rel=0.1)
  np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1, rtol=1e-5)


def test_a_fifth_becomes_outliers_and_two_fifths_change_labels():
  given = features([1000, 1000])
  strange = np.any(shifted("outliers", given).features != given.features, axis=1)
  assert strange.mean() == pytest.approx(0.2, abs=0.03)
  swapped = shifted("swapped_labels", given)
  # Half of the permuted labels stay the same by chance.
  assert np.mean(swapped.labels != given.labels) == pytest.approx(0.2, abs=0.03)
  assert np.bincount(swapped.labels).tolist() == [1000, 1000]
  np.testing.assert_array_equal(swapped.features, given.features)


def test_blur_moves_halfway_to_the_mean():
  given = Features(np.array([[1.0, 0], [0, 1]], np.float32), np.array([0, 1]), None)
  found = shifted("blurred", given).features
  np.testing.assert_allclose(found, unit(np.array([[1.5, 0.5], [0.5, 1.5]])), rtol=1e-6)


def test_rows_by_class_and_unit_rows():
  assert [rows.tolist() for rows in rows_by_class(np.array([2, 0, 2]))] == [[1], [0, 2]]
  found = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
  np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)
  assert found.dtype == np.float32
