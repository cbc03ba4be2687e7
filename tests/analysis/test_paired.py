"""Paired comparisons: coverage of intervals, level of tests, and verdicts."""

import numpy as np
import pytest
from scipy import stats

from genbench_jax.analysis.paired import ImageOutcomes, compare, paired_difference
from genbench_jax.errors import UsageError


def judged(values, **more):
  return ImageOutcomes(np.asarray(values, float), **more)


def two(random, n, first, second):
  """Both are right on the easy images, and each on some others."""
  easy = random.random(n) < 0.5
  return [judged(easy | (random.random(n) < chance)) for chance in (first, second)]


def test_intervals_and_tests_have_their_nominal_coverage():
  random = np.random.default_rng(0)
  held, rejected, found = [], [], []
  for _ in range(400):
    one, other = two(random, 150, 0.5, 0.4)
    each = paired_difference("a", "b", "d", one, other)
    held.append(each.ci_low <= 0.05 <= each.ci_high)
    found.append(each.ci_high - each.ci_low)
    null = paired_difference("a", "b", "d", *two(random, 150, 0.4, 0.4))
    rejected.append(null.p_value < 0.05)
  assert 0.92 < np.mean(held) < 0.98
  assert 0.02 < np.mean(rejected) < 0.09
  apart = 3.92 * np.sqrt(2 * 0.72 * 0.28 / 150)
  assert np.mean(found) < 0.85 * apart  # pairing helps


def test_verdicts_are_plain_and_corrected():
  n = 400
  good, bad = np.arange(n) < 360, np.arange(n) < 280
  runs = {
    "a": {"x": judged(good), "y": judged(good)},
    "b": {"x": judged(bad), "y": judged(bad)},
    "c": {"x": judged(np.roll(good, 3))},
  }
  found = {(c.first, c.second, c.dataset): c for c in compare(runs)}
  assert len(found) == 5
  assert found["a", "b", "x"].verdict == "a is better"
  assert found["a", "b", None].verdict == "a is better" and found["a", "b", None].n == 2
  assert found["b", "c", "x"].verdict == "c is better"
  assert found["a", "c", "x"].verdict == "can't be told apart"
  assert all(c.p_corrected >= c.p_value for c in found.values())


def test_identical_hits_do_not_give_a_zero_width_interval():
  same = judged(np.ones(50))
  each = paired_difference("a", "b", "d", same, same)
  assert each.ci_low < 0 < each.ci_high and each.p_value == 1


def test_other_external_images_widen_the_interval():
  one, other = two(np.random.default_rng(0), 200, 0.6, 0.3)
  near = paired_difference("a", "b", "d", one, other)
  wide = paired_difference("a", "b", "d", judged(one.values, external_variance=0.01), other)
  assert wide.ci_high - wide.ci_low > near.ci_high - near.ci_low
  assert wide.ci_high - wide.ci_low > 3.9 * 0.1 and wide.p_value > near.p_value


def test_different_test_images_are_rejected():
  with pytest.raises(UsageError, match="different test images of d"):
    paired_difference("a", "b", "d", judged([1, 0], images="p"), judged([1, 0], images="q"))


def test_a_comparison_has_the_formula_of_agresti_and_min():
  """Half an image is added to each of the four outcomes, so b + c grows by one and n by two."""
  ours, theirs = judged([1, 1, 1, 1, 0, 0, 1, 1]), judged([0, 1, 0, 1, 1, 0, 1, 0])
  found = paired_difference("a", "b", "d", ours, theirs)
  b, c, n = 3, 1, 8
  center = (b - c) / (n + 2)
  variance = ((b + c + 1) / (n + 2) - center**2) / (n + 2)
  assert found.difference == pytest.approx((b - c) / n)
  assert (found.ci_low + found.ci_high) / 2 == pytest.approx(center)
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(stats.norm.ppf(0.975) * variance**0.5)
  assert found.p_value == pytest.approx(2 * stats.norm.sf(center / variance**0.5))
  assert found.n == n


def test_equal_weights_are_the_default_and_weights_count():
  ours, theirs = [1, 0, 1, 1], [0, 0, 1, 0]
  plain = paired_difference("a", "b", "d", judged(ours), judged(theirs))
  equal = np.full(4, 0.25)
  assert plain == paired_difference("a", "b", "d", judged(ours, weights=equal), judged(theirs))
  uneven = np.array([0.7, 0.1, 0.1, 0.1])
  found = paired_difference("a", "b", "d", judged(ours, weights=uneven), judged(theirs))
  assert found.difference == pytest.approx(0.8)
  # Kish's number of images falls from 4 to 1 / .52, so the interval is wider.
  assert found.ci_high - found.ci_low > plain.ci_high - plain.ci_low


def test_the_mean_over_datasets_has_the_variance_of_a_mean():
  ours, theirs = judged([1, 1, 0, 1] * 20), judged([0, 1, 1, 0] * 20)
  x, y = judged([1, 0] * 30), judged([0, 0] * 30)
  first, second, mean = compare({"a": {"u": ours, "v": x}, "b": {"u": theirs, "v": y}})
  assert mean.dataset is None and mean.n == 2
  assert mean.difference == pytest.approx((first.difference + second.difference) / 2)
  halves = [(each.ci_high - each.ci_low) / 2 for each in (first, second, mean)]
  assert halves[2] == pytest.approx(np.hypot(*halves[:2]) / 2)
  error = halves[2] / stats.norm.ppf(0.975)
  center = (mean.ci_low + mean.ci_high) / 2
  assert mean.p_value == pytest.approx(2 * stats.norm.sf(center / error), rel=1e-6)


def test_runs_without_a_shared_dataset_are_left_out():
  hits = judged([1, 0])
  assert compare({"a": {"x": hits}, "b": {"y": hits}}) == []
  assert compare({"a": {"x": hits}}) == []


def test_different_numbers_of_images_are_rejected():
  with pytest.raises(UsageError, match="cannot compare a and b on d"):
    paired_difference("a", "b", "d", judged([1, 0]), judged([1, 0, 1]))
