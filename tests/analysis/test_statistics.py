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
