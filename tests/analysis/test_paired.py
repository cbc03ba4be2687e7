"""Paired comparisons: coverage of intervals, level of tests, and verdicts."""

import numpy as np
import pytest

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
