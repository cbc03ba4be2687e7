"""Coefficients of many resamples at once, against SciPy on each."""

import itertools

import numpy as np
import pytest
import scipy.stats

from genbench_jax.analysis import statistics

SCIPY = {
  "pearson": scipy.stats.pearsonr,
  "spearman": scipy.stats.spearmanr,
  "kendall": scipy.stats.kendalltau,
}
RANDOM = np.random.default_rng(3)
# Integers, so that there are ties.
X, Y = RANDOM.integers(0, 6, (2, 12)).astype(float)


@pytest.mark.parametrize("method", statistics.METHODS)
def test_a_resample_has_the_coefficient_of_its_pairs(method):
  weights = statistics.bootstrap_weights(len(X), 20, np.random.default_rng(0))
  assert (weights.sum(1) == len(X)).all()
  found = statistics.COEFFICIENTS[method](X, Y, weights)
  for row, coefficient in zip(weights, found, strict=True):
    x, y = np.repeat(X, row), np.repeat(Y, row)
    assert coefficient == pytest.approx(SCIPY[method](x, y).statistic, abs=1e-9)


@pytest.mark.parametrize("method", statistics.METHODS)
def test_a_constant_side_has_no_coefficient(method):
  once = np.ones((1, len(X)), int)
  assert np.isnan(statistics.COEFFICIENTS[method](X, np.full(len(X), 2.0), once)).all()


@pytest.mark.parametrize("method", statistics.METHODS)
@pytest.mark.parametrize("scale", [1e-200, 1e13, 1e200])
def test_coefficients_do_not_depend_on_scale(method, scale):
  once = np.ones((1, len(X)), int)
  coefficient = statistics.COEFFICIENTS[method]
  np.testing.assert_allclose(coefficient(X * scale, Y, once), coefficient(X, Y, once), atol=1e-9)


@pytest.mark.parametrize("method", statistics.METHODS)
def test_permuted_orders_have_the_coefficients_of_permuted_pairs(method):
  x, y = X[:4], Y[4:8]
  orders = np.array(list(itertools.permutations(range(4))))
  found = statistics.permuted_orders(x, y, method, orders)
  expected = [SCIPY[method](x, y[order]).statistic for order in orders]
  np.testing.assert_allclose(found, expected, atol=1e-9)


def test_holm_multiplies_by_the_remaining_tests_and_is_monotone():
  corrected = statistics.holm(np.array([0.04, 0.01, 0.03, 0.6]))
  np.testing.assert_allclose(corrected, [0.09, 0.04, 0.09, 0.6])
  assert statistics.holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]


def test_a_bootstrap_draws_with_replacement():
  weights = statistics.bootstrap_weights(5, 200, np.random.default_rng(0))
  assert weights.shape == (200, 5) and (weights.sum(1) == 5).all()
  assert weights.max() > 1 and weights.min() == 0


@pytest.mark.parametrize("method", statistics.METHODS)
def test_a_resample_without_variation_is_undefined_beside_others(method):
  """The first resample has a single value; what is undefined does not depend on the others."""
  x, y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])
  for extra in ([[1, 1, 1]], [[0, 5, 1]], []):
    weights = np.array([[3, 0, 0], *extra])
    found = statistics.COEFFICIENTS[method](x, y, weights)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


@pytest.mark.parametrize("method", statistics.METHODS)
def test_equal_and_opposite_orders_have_coefficients_of_exactly_one(method):
  """Rounding never leads beyond 1, where atanh is undefined."""
  for seed in range(20):
    x = np.random.default_rng(seed).normal(size=7)
    for sign in (1, -1):
      (found,) = statistics.COEFFICIENTS[method](x, sign * 3.3 * x, np.ones((1, 7), int))
      assert abs(found) <= 1 and found == pytest.approx(sign)


def test_a_ratio_is_clipped_and_undefined_at_rounding_errors():
  found = statistics._ratio(
    np.array([1 + 1e-9, -2.0, 1e-15, 0.5]), np.array([1.0, 1.0, 1e-14, 2.0])
  )
  np.testing.assert_array_equal(found, [1, -1, np.nan, 0.25])
  assert np.isnan(statistics._ratio(np.zeros(1), np.zeros(1))).all()
  limits = statistics._ratio(np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.5e-12, 0.9e-12]))
  np.testing.assert_array_equal(limits, [0, 0, np.nan])
  # Small numbers are no rounding errors if there are no larger ones.
  assert statistics._ratio(np.array([1e-20]), np.array([2e-20])) == [0.5]


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_scales_neither_overflow_nor_vanish(scale):
  once = np.ones((1, len(X)), int)
  found = statistics.pearson(X * scale, Y / scale if scale > 1 else Y, once)
  np.testing.assert_allclose(found, statistics.pearson(X, Y, once), atol=1e-9)
  orders = np.arange(len(X))[None, ::-1]
  moved = statistics.permuted_orders(X * scale, Y, "pearson", orders)
  np.testing.assert_allclose(moved, statistics.permuted_orders(X, Y, "pearson", orders), atol=1e-9)
