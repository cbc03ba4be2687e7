"""Points, redraws and fits of accuracy against images per class."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from genbench_jax.analysis import curves
from genbench_jax.analysis.curves import Point, drawn, images_given, monotone, points_of, power_law
from genbench_jax.runtime.protocol import NORMAL

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def row(shots, value, seed=0, **more):
  return {"shots": shots, "value": value, "seed": seed, **more}


def half(error):
  return NORMAL * error


@given(VALUES)
def test_a_monotone_sequence_does_not_fall_and_keeps_the_mean(values):
  found = monotone(values, np.full(len(values), 0.01))
  assert np.all(np.diff(found) >= -1e-12)
  assert found.mean() == pytest.approx(values.mean())


@given(VALUES)
def test_a_monotone_sequence_is_a_fixed_point(values):
  rising = np.sort(values)
  np.testing.assert_array_equal(monotone(rising, np.full(len(values), 0.01)), rising)


def test_violators_are_pooled_by_their_precision():
  """Weights 1 / error^2: the first value counts four times as much as the second."""
  found = monotone(np.array([0.6, 0.5, 0.9]), np.array([0.01, 0.02, 0.01]))
  np.testing.assert_allclose(found, [0.58, 0.58, 0.9])


def test_a_pool_grows_backward():
  """The last value drags all before it down to the mean of four."""
  found = monotone(np.array([0.3, 0.4, 0.5, 0.0]), np.full(4, 0.01))
  np.testing.assert_allclose(found, [0.3] * 4)


def test_a_point_averages_its_seeds_and_their_errors():
  rows = [
    row(4, 0.5, 0, generator_low=0.5 - half(0.03), generator_high=0.5 + half(0.03)),
    row(4, 0.7, 1, generator_low=0.7 - half(0.04), generator_high=0.7 + half(0.04)),
  ]
  (point,) = points_of(rows)
  assert (point.images, point.value) == (4, pytest.approx(0.6))
  assert point.error == pytest.approx(math.hypot(0.03, 0.04) / 2)


def test_the_interval_for_the_generator_takes_precedence():
  about = {"ci_low": 0.4, "ci_high": 0.6, "generator_low": 0.5 - half(0.2)}
  both = points_of([row(4, 0.5, **about, generator_high=0.5 + half(0.2))])
  assert both[0].error == pytest.approx(0.2)
  one_end = points_of([row(4, 0.5, **about, generator_high=None)])
  assert one_end[0].error == pytest.approx(0.1 / NORMAL)
  assert math.isnan(points_of([row(4, 0.5)])[0].error)


def test_points_are_sorted_and_equal_numbers_of_images_are_merged():
  rows = [row(16, 0.9), row(4, 0.6, shots_given=3.5), row(8, 0.7, shots_given=3.5), row(2, None)]
  found = points_of(rows)
  assert [(point.images, point.value) for point in found] == [(3.5, 0.6), (16, 0.9)]


@pytest.mark.parametrize("given", [None, ""])
def test_rows_of_older_runs_record_the_requested_number(given):
  assert images_given({"shots": "4", "shots_given": given}) == 4
  assert images_given({"shots": 4, "shots_given": "3.5"}) == 3.5


def test_redraws_have_the_errors_of_the_points():
  points = [Point(1, 0.2, 0.01), Point(2, 0.5, 0.0), Point(4, 0.9, math.nan)]
  found = drawn(points, np.random.default_rng(0))
  assert found.shape == (curves.DRAWS, 3)
  # The standard error of a standard deviation from 400 draws is 3.5 %.
  assert found[:, 0].std() == pytest.approx(0.01, rel=0.15)
  np.testing.assert_array_equal(found[:, 1:], np.tile([0.5, 0.9], (curves.DRAWS, 1)))


@pytest.mark.parametrize(
  ("points", "reason"),
  [
    ([Point(2.0**i, 0.1 * i, 0.01) for i in range(3)], "4 budgets"),
    ([Point(2.0**i, 0.1 * i, math.nan) for i in range(4)], "no standard errors"),
    ([Point(2.0**i, 0.5 + 0.001 * i, 0.01) for i in range(4)], "does not rise"),
  ],
)
def test_there_is_no_fit_without_evidence(points, reason):
  law = power_law(points)
  assert reason in law.reason
  assert math.isnan(law.exponent) and math.isnan(law.accuracy(4))


def test_the_law_has_the_accuracy_of_its_formula():
  law = curves.PowerLaw(floor=0.1, scale=0.4, exponent=0.5)
  assert law.accuracy(1) == pytest.approx(0.5)
  assert law.accuracy(16) == pytest.approx(0.8)


def test_an_exact_law_is_fitted_exactly_and_lies_in_its_intervals():
  law = curves.PowerLaw(floor=0.1, scale=0.5, exponent=0.5)
  points = [Point(float(n), law.accuracy(n), 1e-4) for n in (1, 2, 4, 8, 16)]
  found = power_law(points)
  assert found.exponent == pytest.approx(0.5) and found.floor == pytest.approx(0.1, abs=1e-3)
  assert found.exponent_low <= found.exponent <= found.exponent_high
  assert found.limit_low <= 0.9 <= found.limit_high
  assert found.reason == ""


def test_numbers_that_decide_curves():
  assert (curves.DRAWS, curves.FEWEST_FOR_LAW) == (400, 4)
  np.testing.assert_allclose(curves.EXPONENTS, np.arange(1, 41) / 20)


def rising(errors=(0.01, 0.01, 0.01, 0.01), last=0.9):
  values = (0.3, 0.6, 0.75, last)
  return [Point(2.0**i, v, e) for i, (v, e) in enumerate(zip(values, errors, strict=True))]


def test_the_rise_is_from_the_first_to_the_last_budget():
  """The first two points alone rise by .3; from the first to the last it is 1.96 times the error or more."""
  high, low = 0.3 + 1.97 * 0.1, 0.3 + 1.95 * 0.1
  errors = (0.06, 0.01, 0.01, 0.08)  # together .1
  assert power_law(rising(errors, high)).reason == ""
  assert "does not rise" in power_law(rising(errors, low)).reason
  # The errors between do not count, nor do the values.
  assert power_law(rising((0.01, 9.0, 9.0, 0.01))).reason == ""


def test_the_law_is_refitted_to_a_quarter_of_the_redraws():
  points = rising()
  found = power_law(points, seed=3)
  images, values, errors = (
    np.array([getattr(p, key) for p in points]) for key in ("images", "value", "error")
  )
  draws = drawn(points, np.random.default_rng(3))[:100]
  fits = np.array([curves._fit(images, row, errors) for row in draws])
  low, high = np.quantile(fits, [0.025, 0.975], axis=0)
  assert (found.floor, found.scale, found.exponent) == curves._fit(images, values, errors)
  assert (found.exponent_low, found.exponent_high) == pytest.approx((low[2], high[2]))
  assert (found.limit_low, found.limit_high) == pytest.approx((1 - high[0], 1 - low[0]))
  assert power_law(points) == power_law(points, 0)


@pytest.mark.parametrize(("error", "share"), [(0.0, 0.5), (1e-6, 0.5), (2e-6, 0.8)])
def test_an_error_counts_as_a_millionth_or_more(error, share):
  """Weights 1 / error^2: at twice the smallest error, four to one."""
  found = monotone(np.array([0.6, 0.5]), np.array([0.0, error]))
  np.testing.assert_allclose(found, 0.5 + 0.1 * share)
  # In the fit of two points, either is met exactly; with a third between, the exact ones decide.
  images = np.array([1.0, 2.0, 4.0])
  floor, scale, exponent = curves._fit(images, np.array([0.2, 0.6, 0.8]), np.array([0, 1.0, error]))
  assert 1 - floor - scale == pytest.approx(0.2, abs=1e-3)
  assert 1 - floor - scale * 4**-exponent == pytest.approx(0.8, abs=1e-3)


def test_the_fit_has_no_negative_terms():
  images, errors = np.array([1.0, 2.0, 4.0, 8.0]), np.full(4, 0.01)
  floor, scale, exponent = curves._fit(images, 1 - 0.5 * images**-2.0, errors)
  assert (floor, scale, exponent) == pytest.approx((0, 0.5, 2.0), abs=1e-9)
  falling = curves._fit(images, np.array([0.5, 0.4, 0.3, 0.2]), errors)
  assert falling[0] == pytest.approx(0.65) and falling[1] == 0


def test_a_seed_is_used_once_at_a_budget():
  """Two budgets that ended with the same images hold the same images."""
  rows = [
    row(8, 0.5, 0, shots_given=3),
    row(16, 0.9, 0, shots_given=3),
    row(8, 0.7, 1, shots_given=3),
  ]
  (point,) = points_of(rows)
  assert (point.images, point.value) == (3, pytest.approx(0.6))
