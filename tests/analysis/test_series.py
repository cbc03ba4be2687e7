"""Rows arranged by series and budget."""

import numpy as np
import pytest

from genbench_jax.analysis import series
from genbench_jax.analysis.permutation import orders_of, p_value_of_pairs, p_value_within
from genbench_jax.errors import UsageError


def _row(quantity, value, **given):
  usual = {"dataset": "digits", "source": "generative", "generator": "", "strategy": "a", "seed": 0}
  return usual | {"shots": 1, "protocol": "strict", "encoder": "", "quantity": quantity, "value": value} | given  # fmt: skip


def test_values_are_separated_by_protocol_quantity_encoder_and_cell():
  rows = [
    _row("cler", 0.5),
    _row("cler", 0.6, shots=2),
    _row("cler", 0.7, encoder="other"),
    _row("cler", 0.8, protocol="reference"),
    _row("cler", 0.1, source="control"),
  ]
  found = series.values_by_quantity(rows)
  assert set(found) == {"strict", "reference"}
  own = series.QuantityKey("cler", "")
  assert sorted(found["strict"][own].values()) == [0.5, 0.6]
  assert list(found["strict"][series.QuantityKey("cler", "other")].values()) == [0.7]
  with pytest.raises(UsageError, match="two rows of quantity 'cler'"):
    series.values_by_quantity([*rows, _row("cler", 0.9)])


def _table(units, budgets=(1,)):
  keys = [
    ("digits", "generative", "", "a", seed, shots) for seed in range(units) for shots in budgets
  ]
  metric = {key: float(place) for place, key in enumerate(keys)}
  return metric, {key: 2.0 * value for key, value in metric.items()}


def test_a_table_has_rows_for_budgets_and_columns_for_series():
  metric, target = _table(3, budgets=(1, 4))
  del target["digits", "generative", "", "a", 1, 4]
  (table,) = series.tables_of(metric, target)
  assert table.shots == (1, 4) and table.units == 3 and table.cells == 5
  np.testing.assert_array_equal(table.there, [[True, True, True], [True, False, True]])
  own, x, y = list(table.budgets())[1]
  assert own.tolist() == [0, 2] and x.tolist() == [1.0, 5.0] and y.tolist() == [2.0, 10.0]


@pytest.mark.parametrize(("units", "expected"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120)])
def test_the_p_value_of_a_perfect_order_is_the_smallest_possible(units, expected):
  tables = series.tables_of(*_table(units))
  assert p_value_within(tables, "spearman", np.random.default_rng(0)) == pytest.approx(expected)


def test_two_datasets_multiply_their_orders():
  tables = series.tables_of(*_table(3)) * 2
  assert p_value_within(tables, "pearson", np.random.default_rng(0)) == pytest.approx(2 / 36)


def test_only_series_with_the_same_budgets_are_permuted():
  metric, target = _table(4, budgets=(1, 4))
  for seed in (2, 3):
    del target["digits", "generative", "", "a", seed, 4]
  (table,) = series.tables_of(metric, target)
  orders = orders_of(table, np.random.default_rng(0))
  assert len(orders) == 4 and orders[0].tolist() == [0, 1, 2, 3]
  assert {tuple(sorted(order[:2])) for order in orders.tolist()} == {(0, 1)}


def test_random_orders_agree_with_the_t_distribution():
  """Nine pairs have 362,880 orders, too many to enumerate; Pearson's p-value is then near the t
  test's."""
  import scipy.stats

  random = np.random.default_rng(5)
  x = random.normal(size=9)
  y = x + random.normal(size=9)
  found = p_value_of_pairs(x, y, "pearson", random)
  assert found == pytest.approx(scipy.stats.pearsonr(x, y).pvalue, abs=0.03)
