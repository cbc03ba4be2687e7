"""Rows without a finite value, as failed cells leave them, count nowhere."""

import math

import pytest

from genbench_jax.analysis.correlation import correlations
from genbench_jax.analysis.curves import Point, points_of
from genbench_jax.analysis.exchange import exchange_rates
from genbench_jax.analysis.seeds import over_seeds


def rows_with(value):
  for i in range(6):
    about = {"dataset": "d", "source": "generative", "strategy": f"s{i}", "shots": 16, "seed": 0,
             "protocol": "strict", "encoder": "e"}  # fmt: skip
    yield {**about, "quantity": "fid", "value": value if i == 2 else -float(i)}
    yield {**about, "quantity": "linear_probe", "value": 0.5 + 0.02 * i}


@pytest.mark.parametrize("value", [None, "", math.nan, math.inf, -math.inf])
def test_unmeasured_values_are_left_out(value):
  found = correlations(list(rows_with(value)), quantities=("fid",), resamples=50)
  within = next(c for c in found if (c.level, c.method) == ("within_dataset", "spearman"))
  assert (within.n, within.value) == (5, -1.0)
  broken = {"dataset": "d", "quantity": "cler", "shots": 4, "seed": 1, "value": value}
  whole = {**broken, "seed": 0, "value": 0.5}
  assert [(one.seeds, one.value) for one in over_seeds([whole, broken])] == [(1, 0.5)]
  assert [(p.images, p.value) for p in points_of([whole, broken])] == [(4.0, 0.5)]


@pytest.mark.parametrize("point", [Point(8, math.nan, 0.01), Point(8, 0.6, math.nan)])
def test_a_source_without_value_or_error_has_no_exchange_rate(point):
  real = [Point(1, 0.5, 0.01), Point(2, 0.7, 0.01)]
  (rate,) = exchange_rates([point], real)
  assert rate.value is None and rate.verdict.startswith("unknown: the source")
