"""Bootstrap intervals: the resamples, and statistics of them."""

import numpy as np
import pytest

from genbench_jax.metrics.bootstrap import (
  interval,
  own_interval,
  resample_weights,
  resampled_means,
  two_sided_interval,
)


def test_resamples_draw_as_many_images_as_there_are():
  weights = resample_weights(100, 40, 0)
  assert weights.shape == (40, 100) and (weights.sum(1) == 100).all()
  assert len({row.tobytes() for row in weights}) == 40
  # The mean of 40 Poisson-like counts varies by 1 / sqrt(40).
  assert weights.mean(0).std() == pytest.approx(1 / np.sqrt(40), rel=0.3)


def test_the_first_resamples_are_the_same_however_many_follow():
  few, many = resample_weights(100, 40, 0), resample_weights(100, 80, 0)
  assert (few == many[:40]).all()
  assert (resample_weights(100, 40, 1) != few).any()
  values = np.random.default_rng(0).normal(size=100)
  found = resampled_means(values, 80)
  np.testing.assert_allclose(found, many @ values / 100, atol=1e-12)


def test_random_groups_of_many_images_have_the_spread_of_the_images(monkeypatch):
  values = np.random.default_rng(0).normal(3, 2, 3000)
  monkeypatch.setattr("genbench_jax.metrics.bootstrap.MOST_UNITS", 256)
  samples = resampled_means(values, 2000)
  assert samples.mean() == pytest.approx(values.mean(), abs=5e-3)
  # 256 groups tell the variance to sqrt(2 / 256) = 9 %, its root to 4 %.
  assert samples.std() == pytest.approx(2 / np.sqrt(3000), rel=0.12)


def test_the_interval_of_a_mean_has_the_textbook_width():
  values = np.random.default_rng(0).normal(3, 2, 200)
  found = own_interval(float(values.mean()), values, np.zeros(200, int))
  error = values.std() / np.sqrt(200)
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * error, rel=0.1)
  assert found.ci_low < found.value < found.ci_high
  assert (found.generator_low, found.generator_high) == (found.ci_low, found.ci_high)


def test_differences_between_classes_do_not_widen_an_interval():
  classes = np.repeat(np.arange(20), 10)
  within = np.random.default_rng(0).normal(size=200)
  found = own_interval(0.0, within + 10 * classes, classes)
  error = np.mean([within[classes == c].var(ddof=1) for c in range(20)]) ** 0.5 / np.sqrt(200)
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_the_second_interval_adds_the_external_images():
  random = np.random.default_rng(0)
  external, test = random.normal(size=300), 2 * random.normal(size=400)
  found = two_sided_interval(0.0, external, test)
  assert found.ci_high - found.ci_low == pytest.approx(3.92 * 2 / 20, rel=0.1)
  both = np.hypot(2 / 20, 1 / np.sqrt(300))
  assert found.generator_high - found.generator_low == pytest.approx(3.92 * both, rel=0.1)
  alone = two_sided_interval(0.0, None, test)
  assert alone.generator_low is None and "one image per class" in alone.note


def test_one_image_per_class_is_reported():
  found = own_interval(1.0, np.arange(5.0), np.arange(5))
  assert found.generator_low is None and found.ci_low < 1 < found.ci_high
  assert "one image per class" in found.note


def test_undefined_resamples_are_ignored():
  assert interval(0.5, np.array([np.nan, 0.25, 0.75])).ci_high == pytest.approx(0.7375)


def test_means_keep_small_differences_of_large_values():
  values = 1e6 + np.random.default_rng(0).normal(size=50)
  samples = resampled_means(values, 100)
  assert samples.std() == pytest.approx(1 / np.sqrt(50), rel=0.3)


def test_resampled_means_are_those_of_the_weights_up_to_the_limit_of_units(monkeypatch):
  monkeypatch.setattr("genbench_jax.metrics.bootstrap.MOST_UNITS", 100)
  values = np.random.default_rng(0).normal(size=100)
  expected = resample_weights(100, 5, 0) @ values / 100
  np.testing.assert_allclose(resampled_means(values, 5), expected, atol=1e-12)
  assert resample_weights(64, 3, -1).sum() == 3 * 64  # any whole number is a seed
  # One image more: some group has two images.
  more = np.append(values, 50.0)
  assert resampled_means(more, 5, seed=-1).shape == (5,)


def test_an_interval_has_the_quantiles_of_95_percent():
  found = interval(0.0, np.arange(1001.0))
  assert (found.ci_low, found.ci_high) == pytest.approx((25, 975))


def shifts(values, resamples=200, seed=0):
  return resampled_means(values, resamples, seed) - values.mean()


def test_both_intervals_are_quantiles_of_the_moved_statistic():
  """External images are drawn by the next seed, so that they move independently."""
  random = np.random.default_rng(0)
  external, test = random.normal(size=30), random.normal(size=30)
  found = two_sided_interval(5.0, external, test, 200, 7, shrink=(0.5, 0.25))
  moved, drawn = shifts(test, seed=7), shifts(external, seed=8)
  quantiles = [0.025, 0.975]
  assert (found.ci_low, found.ci_high) == pytest.approx(
    tuple(np.quantile(5 + 0.5 * moved, quantiles))
  )
  assert (found.generator_low, found.generator_high) == pytest.approx(
    tuple(np.quantile(5 + 0.25 * (moved + drawn), quantiles))
  )
  clipped = two_sided_interval(0.0, external, test, 200, lowest=0.0)
  assert clipped.ci_low == clipped.generator_low == 0 < clipped.ci_high
  plain, shrunk = (two_sided_interval(0.0, None, test, 200, **s) for s in ({}, {"shrink": (1, 1)}))
  assert plain == shrunk


def test_an_interval_of_external_images_begins_at_the_lowest_possible_value():
  values = np.random.default_rng(0).normal(size=40)
  found = own_interval(1.0, values, np.zeros(40, int), 200, lowest=0.95)
  assert found.ci_low == 0.95 and found.ci_high > 1
  alone = own_interval(1.0, values, np.arange(40), 200, lowest=0.95)
  assert alone.ci_low == 0.95 and alone.note


def test_the_default_number_of_resamples_is_a_thousand():
  values = np.random.default_rng(0).normal(size=20)
  strata = np.zeros(20, int)
  assert len(resampled_means(values)) == 1000
  assert own_interval(0.0, values, strata) == own_interval(0.0, values, strata, 1000, 0)
  assert two_sided_interval(0.0, values, values) == two_sided_interval(0.0, values, values, 1000, 0)
