"""Strata of a set of images, and deviations within them."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from genbench_jax.metrics.strata import (
  are_paired,
  centered_within,
  has_pairs,
  is_drawn_by_class,
  sampled_strata,
  strata_of,
)

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=40).map(np.array)


def test_without_labels_there_is_one_stratum():
  np.testing.assert_array_equal(strata_of(None, 3), [0, 0, 0])


@given(LABELS)
def test_strata_number_the_classes_that_occur(labels):
  found = strata_of(labels, len(labels))
  np.testing.assert_array_equal(np.unique(labels)[found], labels)


def test_one_hot_labels_are_classes_and_several_labels_are_none():
  one_hot = np.eye(3, dtype=bool)[[2, 0, 2]]
  np.testing.assert_array_equal(strata_of(one_hot, 3), [1, 0, 1])
  several = one_hot | np.array([[True, False, False]] * 3)
  np.testing.assert_array_equal(strata_of(several, 3), [0, 0, 0])
  none = one_hot & np.array([[False], [True], [True]])
  np.testing.assert_array_equal(strata_of(none, 3), [0, 0, 0])


@pytest.mark.parametrize("counts", [[5, 5, 5], [100, 100], [20] * 50])
def test_equal_counts_are_drawn_by_class(counts):
  assert is_drawn_by_class(np.array(counts))


@pytest.mark.parametrize("counts", [[7], [5, 1, 9], [90, 110], [1, 400]])
def test_uneven_counts_and_a_single_class_are_not(counts):
  assert not is_drawn_by_class(np.array(counts))


def test_independent_draws_are_rarely_taken_for_draws_by_class():
  """The test has the level .001: of 2,000 independent samples about two pass."""
  random = np.random.default_rng(0)
  samples = random.multinomial(300, [1 / 12] * 12, size=2000)
  passed = sum(is_drawn_by_class(counts) for counts in samples)
  assert passed <= stats.binom.ppf(0.9999, 2000, 1e-3)


def test_the_threshold_is_the_lower_tail_of_chi_square():
  """With two classes of n +- d images, Pearson's statistic is 2 d^2 / n."""
  limit = stats.chi2.ppf(1e-3, 1)
  total = 10**7
  half = total // 2
  largest = int(np.sqrt(limit * half / 2))
  assert is_drawn_by_class(np.array([half + largest, half - largest]))
  assert not is_drawn_by_class(np.array([half + largest + 2, half - largest - 2]))


def test_a_sampled_set_keeps_its_classes_only_if_drawn_by_class():
  even = np.repeat([0, 1, 2], 4)
  np.testing.assert_array_equal(sampled_strata(even, 12), even)
  np.testing.assert_array_equal(sampled_strata(np.array([0, 0, 0, 0, 0, 0, 1, 2]), 8), [0] * 8)


@pytest.mark.parametrize(
  ("labels", "paired"),
  [([0, 0, 1, 1], True), ([0, 0, 1], True), ([0, 0, 1, 2], False), ([0, 1], False), ([3, 3], True)],
)
def test_half_of_the_classes_must_have_two_images(labels, paired):
  assert are_paired(np.array(labels)) is paired
  assert has_pairs(np.array(labels)) is paired


@given(LABELS, st.integers(0, 2**31))
def test_deviations_sum_to_zero_and_have_the_unbiased_variance(labels, seed):
  strata = strata_of(labels, len(labels))
  values = np.random.default_rng(seed).normal(0, 3, len(labels))
  found = centered_within(values, strata)
  for stratum, count in enumerate(np.bincount(strata)):
    own = strata == stratum
    if count > 1:
      assert found[own].sum() == pytest.approx(0, abs=1e-9)
      # Their mean square is the unbiased variance of the stratum.
      assert np.mean(found[own] ** 2) == pytest.approx(np.var(values[own], ddof=1), abs=1e-9)


def test_an_image_alone_in_its_class_gets_the_spread_of_the_others():
  values, strata = np.array([1.0, 3.0, 10.0, 14.0, 7.0]), np.array([0, 0, 1, 1, 2])
  found = centered_within(values, strata)
  np.testing.assert_allclose(found[:4], np.sqrt(2) * np.array([-1, 1, -2, 2]))
  assert found[4] == pytest.approx(np.sqrt(np.mean(found[:4] ** 2)))


def test_images_that_are_all_alone_have_no_deviation():
  np.testing.assert_array_equal(centered_within(np.array([1.0, 5.0]), np.array([0, 1])), [0, 0])


@pytest.mark.parametrize(("counts", "even"), [([5, 5], True), ([3, 3, 3, 0], False), ([4], False)])
def test_classes_without_images_are_classes(counts, even):
  assert is_drawn_by_class(np.array(counts)) == even


def test_numbers_without_images_are_no_classes():
  """Strata may skip a number; half of those with images must have two."""
  assert are_paired(np.array([0, 0, 5]))
  assert not are_paired(np.array([0, 0, 5, 7]))


def test_one_label_of_multi_hot_rows_keeps_the_class():
  hot = np.zeros((3, 9), bool)
  hot[[0, 1, 2], [8, 2, 8]] = True
  np.testing.assert_array_equal(strata_of(hot, 3), [1, 0, 1])
  np.testing.assert_array_equal(sampled_strata(hot[[0, 1]], 2), [1, 0])
