"""Gains over zero-shot, their intervals and averages."""

import math

import numpy as np
import pytest

from genbench_jax.report.gains import (
  average,
  average_gain,
  difference,
  gain,
  gains,
  headline_budget,
)
from genbench_jax.report.results import Estimate, Results, Series, results_of, views

GENERATED, ORIGINAL = Series("generative", "defined_template"), Series("original", "")


@pytest.fixture
def results(rows) -> Results:
  return results_of(rows, views(rows)[0])


def test_difference_of_two_proportions_covers_like_newcombe():
  """In a simulation, the interval contains the true difference 95 % of the time."""
  rng = np.random.default_rng(0)
  n, p, q, hits = 400, 0.7, 0.6, 0
  for _ in range(2000):
    a, b = rng.binomial(n, (p, q)) / n
    one, other = (
      Estimate(v, v - 1.96 * math.sqrt(v * (1 - v) / n), v + 1.96 * math.sqrt(v * (1 - v) / n))
      for v in (a, b)
    )
    found = difference(one, other)
    hits += found.low <= p - q <= found.high
  assert 0.93 < hits / 2000 < 0.97


def test_difference_without_intervals():
  assert difference(Estimate(0.6), Estimate(0.5, 0.4, 0.6)).low is None
  exact = difference(Estimate(0.6, 0.5, 0.8), Estimate(0.5))
  assert (exact.value, exact.low, exact.high) == pytest.approx((0.1, 0.0, 0.3))


def test_gain_is_accuracy_minus_zero_shot(results):
  probe = results.estimate("shapes", GENERATED, 16, "linear_probe").value
  assert gain(results, "shapes", GENERATED, 16, "linear_probe").value == pytest.approx(probe - 0.82)
  assert gain(results, "shapes", GENERATED, 64, "linear_probe") is None


def test_cler_uses_the_measured_paired_interval(results):
  found = gain(results, "digits", GENERATED, 4, "cler")
  assert found.high - found.low == pytest.approx(0.04)


def test_average_names_included_and_missing_datasets():
  estimates = {"a": Estimate(0.1, 0.07, 0.13), "b": Estimate(0.3, 0.26, 0.34)}
  mean = average(estimates, ["a", "b", "c"])
  assert mean.included == ("a", "b")
  assert mean.missing == ("c",)
  assert mean.estimate.value == pytest.approx(0.2)
  assert mean.estimate.high == pytest.approx(0.2 + 0.05 / 2)  # hypot(0.03, 0.04) over two datasets
  assert average({}, ["a"]) is None
  assert average({"a": Estimate(0.1)}, ["a"]).estimate == Estimate(0.1)


def test_average_gain_is_the_mean_of_the_datasets_gains(results):
  each = gains(results, ORIGINAL, 8, "linear_probe")
  mean = average_gain(results, ORIGINAL, 8, "linear_probe")
  assert mean.estimate.value == pytest.approx(np.mean([e.value for e in each.values()]))
  assert len(each) == 3


def test_headline_budget_is_the_largest_that_all_sources_share(rows):
  cut = [row for row in rows if not (row["source"] == "original" and row["shots"] == 16)]
  assert headline_budget(results_of(rows, views(rows)[0]), "linear_probe") == 16
  assert headline_budget(results_of(cut, views(cut)[0]), "linear_probe") == 8
  assert headline_budget(results_of(rows, views(rows)[0]), "coop") is None
