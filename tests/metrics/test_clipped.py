"""Clipped density and coverage of few images by hand, and their limits."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import clipped
from genbench_jax.metrics.clipped import (
  clipped_density_coverage,
  expected_coverage,
  of_distances,
  on_parts,
)
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.registry import Sets, measured

# Real images on a line; with one neighbor the radii are 1, 1, 2 and 4, clipped at 1.5.
REAL = np.array([[0.0], [1.0], [3.0], [7.0]])


def squared(real, generated):
  within = squared_distances(real, real)
  np.fill_diagonal(within, np.inf)
  return within, squared_distances(real, generated)


def test_density_and_coverage_of_a_few_points():
  generated = np.array([[0.0], [4.0], [20.0], [4.0]])
  # Squared radii 1, 1, 4, 16; their median 2.5 clips the last two.
  # Clipped balls hold image 0 (twice), and both at 4 (once each): 3 of 4. Of the real images the first
  # two are held.
  # Unclipped balls of 0, 1 (the image at distance 1 is outside), 3 and 7 hold some image or not.
  near = [True, False, True, True]
  found = of_distances(*squared(REAL, generated), 1)
  density = min((3 / 4) / (2 / 4), 1)
  expected = expected_coverage(4, 4, 1)
  coverage = np.sum(expected < np.mean(near)) / len(expected)
  np.testing.assert_allclose(found, [density, coverage])
  assert clipped_density_coverage(REAL, generated, 1) == pytest.approx(
    dict(zip(clipped.NAMES, found, strict=True))
  )


def test_density_is_relative_to_that_of_real_images_and_at_most_1():
  far = of_distances(*squared(REAL, np.array([[0.0], [30.0], [31.0], [32.0]])), 1)
  assert far[0] == pytest.approx((1 / 4) / (2 / 4))
  assert of_distances(*squared(REAL, REAL), 1)[0] == 1


@pytest.mark.parametrize(("n", "m", "k"), [(4, 3, 1), (6, 5, 2)])
def test_the_expected_coverage_starts_at_k_images(n, m, k):
  curve = expected_coverage(n, m, k)
  assert len(curve) == m + 1
  assert not curve[:k].any() and (np.diff(curve[k:]) > 0).all()
  # For one neighbor: of n - 1 real and m' generated images, one of the generated is the nearest.
  if k == 1:
    np.testing.assert_allclose(curve[1:], [j / (j + n - 1) for j in range(1, m + 1)])


def test_k_must_leave_a_neighbor_in_either_set():
  rows = np.random.default_rng(0).normal(size=(6, 2))
  assert set(clipped_density_coverage(rows, rows, 5)) == set(clipped.NAMES)
  for real, generated, k in (
    (rows, rows, 6),
    (rows, rows[:5], 5),
    (rows[:5], rows, 5),
    (rows, rows, 0),
  ):
    with pytest.raises(UsageError, match=f"k={k} neighbors"):
      clipped_density_coverage(real, generated, k)


def test_halves_of_the_test_images_have_five_and_three_neighbors():
  random = np.random.default_rng(0)
  external, tests = random.normal(size=(14, 3)), random.normal(size=(12, 3))
  of = on_parts(external, tests)
  part, every, half = np.arange(14) % 2 == 0, np.ones(12, bool), np.arange(12) % 2 == 0
  whole = of_distances(*squared(tests, external[part]), 5)
  np.testing.assert_allclose(of(part, every), [*whole, *whole])
  of_half = [of_distances(*squared(tests[half], external[part]), k) for k in (5, 3)]
  np.testing.assert_allclose(of(part, half), np.concatenate(of_half))


def test_few_images_have_as_many_neighbors_as_there_are():
  within, across = squared(REAL, REAL[:2] + 0.25)
  np.testing.assert_array_equal(of_distances(within, across, 5), of_distances(within, across, 2))
  within, across = squared(REAL[:2], REAL + 0.25)
  np.testing.assert_array_equal(of_distances(within, across, 5), of_distances(within, across, 1))


@pytest.mark.parametrize(("rows", "names"), [(5, set()), (6, set(clipped.NAMES))])
def test_sets_need_more_images_than_neighbors(rows, names):
  random = np.random.default_rng(0)
  external, tests = random.normal(size=(rows, 3)), random.normal(size=(20, 3))
  labels, test_labels = np.zeros(rows, int), np.zeros(20, int)
  for first, second in (
    ((external, labels), (tests, test_labels)), ((tests, test_labels), (external, labels))
  ):  # fmt: skip
    sets = Sets(first[0], second[0], first[1], second[1], num_classes=1, resamples=4)
    found = {result.name: result for _, result in measured(sets, clipped.NAMES)}
    assert found.keys() == names
    assert all(set(result.by_class) == {0} for result in found.values())
