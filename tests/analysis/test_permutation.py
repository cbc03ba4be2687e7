"""Permutation tests over series."""

import itertools

import numpy as np
import pytest

from genbench_jax.analysis import permutation
from genbench_jax.analysis.permutation import (
  DRAWN,
  coefficient_of,
  is_defined,
  orders_of,
  p_value_of_pairs,
  p_value_within,
)
from genbench_jax.analysis.series import Table

NAN = np.nan


def table(x, y=None):
  x = np.atleast_2d(np.array(x, float))
  y = x if y is None else np.atleast_2d(np.array(y, float))
  return Table("d", tuple(range(len(x))), x, np.where(np.isnan(x), NAN, y))


@pytest.fixture
def random():
  return np.random.default_rng(0)


@pytest.mark.parametrize(
  ("x", "y", "defined"),
  [
    ([1, 2, 3], [3, 1, 2], True),
    ([1, 2], [2, 1], False),
    ([1, 1, 1], [3, 1, 2], False),
    ([1, 2, 3], [2, 2, 2], False),
  ],
)
def test_a_coefficient_needs_three_cells_that_vary(x, y, defined):
  assert is_defined(np.array(x, float), np.array(y, float)) is defined


def test_the_coefficient_is_the_mean_over_budgets_that_have_one():
  both = table([[1, 2, 3], [1, 2, 3], [1, 1, 1]], [[1, 2, 3], [3, 2, 1], [1, 2, 3]])
  assert coefficient_of(both, "pearson") == pytest.approx(0)
  one = table([[1, 2, 3], [1, 2, NAN]], [[1, 2, 3], [2, 1, 0]])
  assert coefficient_of(one, "spearman") == pytest.approx(1)
  assert np.isnan(coefficient_of(table([[1, 1, 1]]), "kendall"))


def test_few_series_have_all_their_orders_the_identity_first(random):
  found = orders_of(table([1, 2, 3, 4]), random)
  assert found[0].tolist() == [0, 1, 2, 3]
  assert sorted(map(tuple, found.tolist())) == sorted(itertools.permutations(range(4)))


def test_only_series_with_the_same_budgets_are_exchanged(random):
  """Series 0 and 2 have the second budget, 1 and 3 do not."""
  found = orders_of(table([[1, 2, 3, 4], [1, NAN, 3, NAN]]), random)
  assert sorted(map(tuple, found.tolist())) == [
    (0, 1, 2, 3), (0, 3, 2, 1), (2, 1, 0, 3), (2, 3, 0, 1),
  ]  # fmt: skip


def test_many_series_have_random_orders(random):
  found = orders_of(table([*range(9)]), random)
  assert found.shape == (1 + DRAWN, 9)
  assert found[0].tolist() == [*range(9)]
  np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(9), (1 + DRAWN, 1)))
  # Every series comes to every place equally often: 222 of 2,000 times, with a deviation of 14.
  counts = np.array([np.bincount(found[1:, place], minlength=9) for place in range(9)])
  assert counts.min() > 222 - 70 and counts.max() < 222 + 70


@pytest.mark.parametrize("method", ["pearson", "spearman", "kendall"])
def test_the_p_value_is_the_share_of_orders_at_least_as_extreme(method, random):
  """By hand: twice the smaller tail over all 120 orders of five pairs."""
  x, y = np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 3, 2, 5, 4])
  values = np.array([
    coefficient_of(table(x, y[list(order)]), method) for order in itertools.permutations(range(5))
  ])  # fmt: skip
  observed = coefficient_of(table(x, y), method)
  above = np.mean(values >= observed - 1e-9)
  assert p_value_of_pairs(x, y, method, random) == pytest.approx(2 * above)


def test_a_p_value_is_at_most_one(random):
  x = np.array([1.0, 2, 3])
  assert p_value_of_pairs(x, np.array([2.0, 1, 3]), "pearson", random) <= 1


def test_the_sign_of_the_relation_does_not_matter(random):
  x, y = np.arange(5.0), np.array([1.0, 3, 2, 5, 4])
  assert p_value_of_pairs(x, y, "kendall", random) == p_value_of_pairs(x, -y, "kendall", random)


def test_random_orders_agree_with_all_orders():
  """Two tables of four have 576 pairs of orders, all of them; three of five are drawn from."""
  x, y = np.arange(5.0), np.array([2.0, 1, 3, 5, 4])
  exact = p_value_within([table(x, y)], "pearson", np.random.default_rng(0))
  drawn = p_value_within([table(x, y)] * 3, "pearson", np.random.default_rng(0))
  assert drawn < exact
  # 1 / 2,000 counts the observed order in, so a drawn p-value is never zero.
  perfect = p_value_within([table(x, x)] * 3, "pearson", np.random.default_rng(0))
  assert perfect == pytest.approx(2 / (DRAWN + 1))


def test_budgets_of_a_dataset_are_averaged_so_that_datasets_count_equally(random):
  """A dataset with the same cells at three budgets is no more evidence than with one."""
  ours, theirs = ([1, 2, 3, 4], [1, 3, 2, 4]), ([1, 2, 3, 4], [3, 1, 4, 2])
  once = p_value_within([table(*ours), table(*theirs)], "pearson", random)
  thrice = table([ours[0]] * 3, [ours[1]] * 3)
  assert p_value_within([thrice, table(*theirs)], "pearson", random) == once


def test_numbers_that_decide_p_values():
  assert (permutation.MOST_ORDERS, permutation.DRAWN, permutation.EQUAL) == (5040, 1999, 1e-9)


@pytest.mark.parametrize(("series", "orders"), [(7, 5040), (8, 1 + DRAWN)])
def test_all_orders_of_up_to_seven_series_are_enumerated(series, orders, random):
  assert len(orders_of(table([*range(series)]), random)) == orders


def test_as_many_combinations_of_orders_are_enumerated(random, monkeypatch):
  """Two tables of three: 36 combinations."""
  tables = [table([1, 2, 3])] * 2
  monkeypatch.setattr(permutation, "MOST_ORDERS", 36)
  assert p_value_within(tables, "pearson", random) == pytest.approx(2 / 36)
  monkeypatch.setattr(permutation, "MOST_ORDERS", 35)
  drawn = p_value_within(tables, "pearson", random)
  assert drawn != pytest.approx(2 / 36) and drawn == pytest.approx(2 / 36, abs=0.03)


def test_a_p_value_is_twice_the_smaller_tail():
  values = np.array([0.9, 0.5, 0.5 + 1e-12, 0.1, -0.3])
  assert permutation._two_sided(values, 0.5, 0) == 1
  assert permutation._two_sided(values, 0.9, 0) == pytest.approx(2 / 5)
  assert permutation._two_sided(values, -0.3, 0) == pytest.approx(2 / 5)
  assert permutation._two_sided(np.arange(10.0), 8.0, 0) == pytest.approx(4 / 10)
  # Random orders count the observed one in.
  assert permutation._two_sided(np.arange(9.0), 9.0, 1) == pytest.approx(2 * 1 / 10)
