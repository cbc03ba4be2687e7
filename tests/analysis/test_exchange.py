"""Exchange rates, and fits of accuracy against the number of images."""

import math

import numpy as np
import pytest

from genbench_jax.analysis import exchange
from genbench_jax.analysis.curves import Point, drawn, images_given, monotone, points_of, power_law
from genbench_jax.analysis.exchange import crossing, exchange_rates, why_not


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


CURVE = np.array([1.0, 2, 4, 8]), np.array([0.2, 0.4, 0.4, 0.8])


@pytest.mark.parametrize(
  ("value", "images"),
  [(0.1, 0), (0.2, 1), (0.3, 2**0.5), (0.6, 2**2.5), (0.8, 8), (0.81, math.inf)],
)
def test_a_curve_is_crossed_in_octaves(value, images):
  assert crossing(*CURVE, value) == pytest.approx(images)


@pytest.mark.parametrize(
  ("points", "reason"),
  [
    ([], "single number"),
    ([Point(1, 0.5, 0.01)], "single number"),
    ([Point(1, 0.5, math.nan), Point(2, 0.9, 0.01)], "no standard errors"),
    ([Point(1, 0.5, 0.1), Point(2, 0.75, 0.1)], "does not rise"),
    ([Point(1, 0.5, 0.1), Point(2, 0.8, 0.1)], ""),
  ],
)
def test_real_images_must_rise_by_more_than_their_error(points, reason):
  """1.96 sqrt(.1^2 + .1^2) = .277."""
  assert why_not(points) == reason or (reason and reason in why_not(points))


def test_the_order_of_the_points_does_not_matter():
  source, real = [Point(64, law(4), 0.005)], points(0.005)
  assert exchange_rates(source, real[::-1]) == exchange_rates(source, real)


def test_a_source_without_error_is_unknown_and_the_others_are_not():
  source = [Point(4, 0.5, math.nan), Point(8, law(4), 0.005)]
  first, second = exchange_rates(source, points(0.005))
  assert (first.images, first.value, first.low, first.high) == (4, None, 0, math.inf)
  assert "no standard error" in first.verdict
  assert second.value == pytest.approx(4, rel=0.05)


def test_an_interval_may_end_beyond_the_tested_numbers():
  near_the_top = exchange_rates([Point(8, law(14), 0.02)], points(0.005))[0]
  assert near_the_top.high == math.inf and near_the_top.value == pytest.approx(14, rel=0.1)
  assert near_the_top.verdict.endswith("to more than 16)")
  near_the_bottom = exchange_rates([Point(8, law(1.1), 0.05)], points(0.005))[0]
  assert near_the_bottom.low == 0 and "(fewer than 1 to " in near_the_bottom.verdict


def test_the_rise_of_real_images_is_from_the_first_to_the_last_number():
  between = Point(2, 0.95, 5.0)
  assert why_not([Point(1, 0.5, 0.1), between, Point(4, 0.8, 0.1)]) == ""
  assert "does not rise" in why_not([Point(1, 0.5, 0.1), between, Point(4, 0.75, 0.1)])
  assert "no standard errors" in why_not([Point(1, 0.5, 0.1), between, Point(4, 0.8, math.nan)])


def test_the_ends_are_the_crossings_of_the_redrawn_curves():
  """2.5 % of them lie below the lower end, and 2.5 % above the upper one."""
  source, real = Point(64, law(4), 0.01), points(0.01)
  (rate,) = exchange_rates([source], real, seed=3)
  random = np.random.default_rng(3)
  curves = drawn(real, random)
  values = source.value + source.error * random.normal(size=len(curves))
  errors, images = np.full(5, 0.01), np.array([1.0, 2, 4, 8, 16])
  smooth = np.array([monotone(curve, errors) for curve in curves])
  places, fine = exchange._between(images, smooth)
  found = [crossing(places, curve, v) for curve, v in zip(fine, values, strict=True)]
  low, high = np.quantile(found, [0.025, 0.975], method="nearest")
  assert (rate.low, rate.high) == (low, high)
  assert exchange_rates([source], real) == exchange_rates([source], real, 0)


def test_curves_are_looked_up_at_129_places_and_at_the_budgets():
  images = np.array([1.0, 3.0, 16.0])
  places, found = exchange._between(images, np.array([[0.1, 0.5, 0.6], [0.0, 0.2, 0.9]]))
  assert len(places) == 130 and places[[0, -1]] == pytest.approx([1, 16])
  assert any(np.isclose(places, 3, rtol=1e-12))
  np.testing.assert_allclose(found[:, [0, -1]], [[0.1, 0.6], [0.0, 0.9]])
  assert (np.diff(found, axis=1) >= -1e-12).all()
  np.testing.assert_allclose(np.diff(np.log2(places[:3])), 4 / 128)


@pytest.mark.parametrize(
  ("best", "low", "high", "words"),
  [
    (4.0, 2.0, 8.0, "4 real images per class (2 to 8)"),
    (0.0, 0.0, 2.0, "fewer than 1 real images per class (fewer than 1 to 2)"),
    (0.0, 0.0, 0.0, "fewer than 1 real images per class"),
    (math.inf, 8.0, math.inf, "more than 16 real images per class (8 to more than 16)"),
    (math.inf, math.inf, math.inf, "more than 16 real images per class"),
    (4.0, 0.0, math.inf, "unknown: anything from fewer than 1 to more than 16"),
    (3.14159, 1.23456, 12.3456, "3.14 real images per class (1.23 to 12.3)"),
  ],
)
def test_a_rate_in_words(best, low, high, words):
  assert exchange._words(best, low, high, 1.0, 16.0).startswith(words)
