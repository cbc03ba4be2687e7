"""The variance of precision, recall, density and coverage on halves."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.distance import cdist

from genbench_jax.metrics.manifold_spread import (
  MOST_ROWS,
  NAMES,
  _each,
  spread_of,
  squared_distances,
  squared_radii,
)

K = 3


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def spread(real, generated, seed=0, repeats=20, strata=None):
  none = np.zeros(len(real), int), np.zeros(len(generated), int)
  return spread_of(real, generated, *(strata or none), K, seed, repeats)


def test_distances_are_those_of_scipy():
  rows, columns = normal(0, 7, 5), normal(1, 4, 5)
  found = squared_distances(rows.astype(np.float32), columns.astype(np.float32))
  np.testing.assert_allclose(found, cdist(rows, columns, "sqeuclidean"), rtol=1e-5)
  assert found.dtype == np.float64


def test_distances_below_the_resolution_of_float32_are_zero():
  row = np.array([[1000.0, 0.0]])
  near = row + np.array([0, 1e-2])  # squared 1e-4, below 1.2e-7 x 2e6
  far = row + np.array([0, 1.0])
  assert squared_distances(row, near)[0, 0] == 0
  assert squared_distances(row, far)[0, 0] == pytest.approx(1)


@given(st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=20)
def test_a_radius_is_the_distance_to_the_kth_other_image(seed, k):
  images = normal(seed, 9, 2)
  within = squared_distances(images, images)
  expected = np.sort(within, axis=1)[:, k]
  np.testing.assert_array_equal(squared_radii(within, k), expected)


def test_the_values_of_images_follow_the_definitions():
  """Kynkäänniemi et al. 2019 (precision, recall), Naeem et al. 2020 (density, coverage)."""
  real, generated = normal(0, 12, 2), normal(1, 10, 2) + 0.5
  within = [squared_distances(images, images) for images in (real, generated)]
  across = squared_distances(real, generated)
  precision, recall, density, coverage = _each(*within, across, K, 2)
  distances = cdist(real, generated)
  of_real = np.sort(cdist(real, real), axis=1)[:, K]
  of_generated = np.sort(cdist(generated, generated), axis=1)[:, 2]
  for j in range(10):
    held_by = sum(distances[i, j] < of_real[i] for i in range(12))
    assert precision[j] == (held_by > 0)
    assert density[j] == pytest.approx(held_by / K)
  for i in range(12):
    assert recall[i] == any(distances[i, j] < of_generated[j] for j in range(10))
    assert coverage[i] == any(distances[i, j] < of_real[i] for j in range(10))


@pytest.mark.parametrize(("n", "m"), [(2 * (K + 2), 30), (30, 2 * (K + 2)), (10, 10)])
def test_the_fewest_images_that_have_halves(n, m):
  assert spread(normal(0, n, 2), normal(1, m, 2)) is not None
  fewer = n - (n <= m), m - (m < n)
  assert spread(normal(0, fewer[0], 2), normal(1, fewer[1], 2)) is None


def test_the_share_of_the_test_images_lies_between_0_and_1():
  found = spread(normal(0, 60, 2), normal(1, 50, 2))
  assert tuple(found.test) == tuple(found.both) == NAMES
  for name in NAMES:
    assert 0 <= found.test[name] <= 1
    assert found.both[name] > 0


def test_the_spread_depends_on_the_seed_only():
  real, generated = normal(0, 40, 2), normal(1, 40, 2)
  assert spread(real, generated, 7) == spread(real, generated, 7)
  assert spread(real, generated, 7) != spread(real, generated, 8)


def test_sets_far_apart_have_no_spread_to_scale():
  """No image lies in a ball of the other set, on any half: shares and ratios are 1."""
  found = spread(normal(0, 30, 2), normal(1, 30, 2) + 100)
  assert set(found.test.values()) == set(found.both.values()) == {1.0}


def test_a_large_set_is_cut_to_a_subset():
  images = normal(0, MOST_ROWS + 40, 2)
  shuffled = spread(images, images[:50], repeats=2)
  assert shuffled is not None
  # The last rows are part of some subsets, so another seed gives another spread.
  assert spread(images, images[:50], seed=1, repeats=2) != shuffled


def test_the_ratio_predicts_the_variance_of_density():
  """Against the variance over 200 fresh pairs of sets; so few images make it too wide, never narrow."""
  n = 60
  pairs = [(normal(2 * s, n, 2), normal(2 * s + 1, n, 2)) for s in range(200)]
  densities, alone = [], []
  for real, generated in pairs:
    within = squared_distances(real, real)
    across = squared_distances(real, generated)
    each = (across < squared_radii(within, K)[:, None]).sum(axis=0) / K
    densities.append(each.mean())
    alone.append(each.var() / n)
  ratios = [spread(*pair, repeats=30).both["density"] for pair in pairs[:8]]
  true = np.var(densities) / np.mean(alone)
  assert 0.9 < np.mean(ratios) / true < 3
