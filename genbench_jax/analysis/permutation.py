"""Permutation tests over series, exact if there are few.

Under the null hypothesis that metric and accuracy are unrelated, the accuracies of one series could
be those of another, at all budgets together. Only series with the same budgets are exchanged. No
p-value can be smaller than the number of series permits.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.analysis.series import Table
from genbench_jax.analysis.statistics import COEFFICIENTS, permuted_orders

# Up to this many orders are enumerated; beyond, `DRAWN` random ones are used.
MOST_ORDERS = 5040
DRAWN = 1999
# Coefficients that differ by less are treated as equal: rounding must not break ties.
EQUAL = 1e-9


def coefficient_of(table: Table, method: str) -> float:
  """Return the mean of the coefficients at each budget; NaN if none is defined."""
  values = [
    COEFFICIENTS[method](x, y, np.ones((1, len(x)), int))[0]
    for _, x, y in table.budgets()
    if is_defined(x, y)
  ]
  return float(np.mean(values)) if values else float("nan")


def is_defined(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> bool:
  """Return whether there are at least three cells and both sides vary."""
  return len(x) >= 3 and bool(np.ptp(x) > 0 and np.ptp(y) > 0)


def p_value_within(tables: Sequence[Table], method: str, random: np.random.Generator) -> float:
  """Return the two-sided p-value of the mean coefficient over datasets.

  Args:
    tables: one table per dataset; series are exchanged within each.
    method: coefficient, one of `statistics.METHODS`.
    random: draws the orders if there are too many to enumerate.
  """
  coefficients = [_coefficients(table, method, orders_of(table, random)) for table in tables]
  observed = float(np.mean([values[0] for values in coefficients]))
  count = math.prod(len(values) for values in coefficients)
  if all(_is_whole(table) for table in tables) and count <= MOST_ORDERS:
    # The exact distribution of the sum: every combination of one order per dataset.
    sums = coefficients[0]
    for values in coefficients[1:]:
      sums = np.add.outer(sums, values).ravel()
    return _two_sided(sums / len(coefficients), observed, 0)
  drawn = np.mean(
    [values[random.integers(0, len(values), DRAWN)] for values in coefficients], axis=0
  )
  return _two_sided(drawn, observed, 1)


def _two_sided(values: Float[np.ndarray, "p"], observed: float, more: int) -> float:
  """Return twice the smaller tail; random orders count the observed one in (`more` = 1)."""
  above = np.sum(values >= observed - EQUAL)
  below = np.sum(values <= observed + EQUAL)
  return min(1.0, float(2 * (min(above, below) + more) / (len(values) + more)))


def p_value_of_pairs(
  x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], method: str, random: np.random.Generator
) -> float:
  """Return the two-sided p-value of a coefficient of n independent pairs.

  Args:
    x, y: values, [n].
    method: coefficient, one of `statistics.METHODS`.
    random: draws the orders if there are too many to enumerate.
  """
  table = Table("", (0,), x[None], y[None])
  return p_value_within([table], method, random)


def orders_of(table: Table, random: np.random.Generator) -> Int[np.ndarray, "p n"]:
  """Return permutations of the series, the identity first: all of them, or `DRAWN` random ones."""
  blocks = _blocks(table)
  if _is_whole(table):
    return np.array([
      _order(blocks, parts, table.units)
      for parts in itertools.product(*(itertools.permutations(block) for block in blocks))
    ])  # fmt: skip
  orders = np.tile(np.arange(table.units), (1 + DRAWN, 1))
  for block in blocks:
    orders[1:, block] = random.permuted(np.tile(block, (DRAWN, 1)), axis=1)
  return orders


def _blocks(table: Table) -> list[list[int]]:
  """Group the series by the budgets they have."""
  blocks: dict[bytes, list[int]] = {}
  for series, there in enumerate(table.there.T):
    blocks.setdefault(there.tobytes(), []).append(series)
  return list(blocks.values())


def _is_whole(table: Table) -> bool:
  return math.prod(math.factorial(len(block)) for block in _blocks(table)) <= MOST_ORDERS


def _order(blocks: Sequence[Sequence[int]], parts: Sequence, units: int) -> Int[np.ndarray, "n"]:
  order = np.empty(units, np.int64)
  for block, part in zip(blocks, parts, strict=True):
    order[list(block)] = part
  return order


def _coefficients(
  table: Table, method: str, orders: Int[np.ndarray, "p n"]
) -> Float[np.ndarray, "p"]:
  """Return the mean coefficient over the budgets for each order of the accuracies."""
  found = []
  for own, x, y in table.budgets():
    if is_defined(x, y):
      place = np.full(table.units, -1)
      place[own] = np.arange(len(own))  # exchanged series have the same budgets
      found.append(permuted_orders(x, y, method, place[orders[:, own]]))
  return np.mean(found, axis=0)
