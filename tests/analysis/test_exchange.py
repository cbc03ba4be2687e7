"""Exchange rates, and fits of accuracy against the number of images."""

import math

import numpy as np
import pytest

from genbench_jax.analysis.curves import Point, images_given, monotone, points_of, power_law
from genbench_jax.analysis.exchange import exchange_rates


def law(images):
  return 0.9 - 0.6 * images**-0.7


def points(error, budgets=(1, 2, 4, 8, 16), shift=0.0, random=None):
  noise = random.normal(size=len(budgets)) if random else np.zeros(len(budgets))
  return [Point(n, law(n) + shift + error * e, error) for n, e in zip(budgets, noise, strict=True)]


def test_a_known_exchange_rate_is_recovered():
  source = [Point(64, law(4), 0.005)]
  rate = exchange_rates(source, points(0.005))[0]
  assert rate.value == pytest.approx(4, rel=0.05) and rate.low < 4 < rate.high
  assert rate.verdict.startswith("4 real images per class (")


def test_intervals_contain_the_true_rate():
  random = np.random.default_rng(0)
  held = []
  for seed in range(60):
    value = law(3) + 0.02 * random.normal()
    rate = exchange_rates([Point(8, value, 0.02)], points(0.02, random=random), seed)[0]
    held.append(rate.low <= 3 <= rate.high)
  assert np.mean(held) > 0.85


def test_rates_beyond_the_measured_budgets_say_so():
  low, high = exchange_rates([Point(8, 0.1, 0.005), Point(16, 0.95, 0.005)], points(0.005))
  assert (low.value, low.verdict) == (None, "fewer than 1 real images per class")
  assert (high.value, high.verdict) == (None, "more than 16 real images per class")


def test_undetermined_rates_are_not_reported():
  flat = [Point(n, 0.5, 0.05) for n in (1, 2, 4)]
  assert exchange_rates([Point(8, 0.5, 0.01)], flat)[0].verdict.startswith("unknown: accuracy")
  vague = exchange_rates([Point(8, law(4), 0.5)], points(0.01))[0]
  assert vague.value is None and vague.verdict.startswith("unknown: anything")
  single = exchange_rates([Point(8, 0.5, 0.01)], points(0.01)[:1])[0]
  assert "a single number per class" in single.verdict and single.high == math.inf


def test_the_nearest_nondecreasing_sequence():
  np.testing.assert_allclose(monotone(np.array([1.0, 3, 2, 4]), np.ones(4)), [1, 2.5, 2.5, 4])
  np.testing.assert_allclose(
    monotone(np.array([3.0, 2, 1]), np.array([0.1, 10, 10])), [3, 3, 3], atol=0.1
  )


def test_a_power_law_is_recovered():
  fit = power_law(points(0.004, random=np.random.default_rng(1)))
  assert fit.exponent_low < 0.7 < fit.exponent_high
  assert fit.limit_low < 0.9 < fit.limit_high
  assert fit.accuracy(8) == pytest.approx(law(8), abs=0.01)
  assert "fewer than 4" in power_law(points(0.01)[:3]).reason
  assert "does not rise" in power_law([Point(n, 0.5, 0.1) for n in (1, 2, 4, 8)]).reason


def test_budgets_are_the_numbers_of_images_used():
  rows = [
    {"shots": s, "shots_given": min(s, 8), "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "seed": 0}
    for s in (4, 16, 100)
  ]
  found = points_of(rows)
  assert [p.images for p in found] == [4, 8]
  assert found[1].error == pytest.approx(0.2 / 3.92, rel=1e-3)
  assert images_given({"shots": 4}) == 4
