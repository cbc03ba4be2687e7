"""Halves of the external images: the variance of a mean, and the shared part of several."""

import numpy as np
import pytest

from genbench_jax.metrics.half_samples import common_variance, halves_of, variance_of

STRATA = np.repeat(np.arange(4), [8, 6, 5, 1])


def test_half_of_each_stratum_is_kept():
  halves = halves_of(STRATA, 0, 40)
  kept = np.array([np.bincount(STRATA[halves.rows(r)], minlength=4) for r in range(40)])
  assert (kept[:, 0] == 4).all() and (kept[:, 1] == 3).all()
  assert set(kept[:, 2]) == {2, 3} and (kept[:, 3] == 1).all()


def test_the_variance_over_halves_equals_that_over_new_samples():
  """The mean of n values has the variance s^2 / n."""
  random = np.random.default_rng(0)
  strata = np.zeros(16, int)
  found = []
  for seed in range(40):
    values, halves = random.normal(size=16), halves_of(strata, seed)
    means = np.array([values[halves.rows(r)].mean() for r in range(len(halves.kept))])
    found.append(variance_of(means[:, None], halves)[0])
  assert np.mean(found) == pytest.approx(1 / 16, rel=0.15)


@pytest.mark.parametrize("common", [0.0, 0.1])
def test_only_the_shared_part_of_all_test_images_is_used(common):
  """Values a_r + e_rj: the mean over j varies by s_a^2 + s_e^2 / m, of which the first is in common."""
  random = np.random.default_rng(1)
  halves = halves_of(np.zeros(16, int), 0, 4000)
  values = common * random.normal(size=(4000, 1)) + random.normal(size=(4000, 30))
  weights = np.full(30, 1 / 30)
  found = common_variance(values, weights, halves)
  assert found == pytest.approx(common**2, abs=0.003)
  assert np.var(values @ weights) > 0.03


def test_the_common_part_has_its_formula():
  """(Var of the mean - sum w^2 Var_j) / (1 - sum w^2), times the factor; never negative."""
  random = np.random.default_rng(3)
  halves = halves_of(np.zeros(7, int), 0, 50)
  weights = np.array([0.5, 0.3, 0.2])
  values = random.normal(size=(50, 1)) + 0.3 * random.normal(size=(50, 3))
  alone = np.sum(weights**2 * values.var(axis=0, ddof=1))
  expected = ((values @ weights).var(ddof=1) - alone) / (1 - np.sum(weights**2))
  assert halves.factor != 1
  assert common_variance(values, weights, halves) == pytest.approx(halves.factor * expected)
  opposed = np.array([1.0, -1.0])[:, None] * np.array([[1, -1, 0]])
  pair = halves_of(np.zeros(4, int), 0, 2)
  assert common_variance(opposed, np.array([0.5, 0.5, 0.0]), pair) == 0


@pytest.mark.parametrize("count", [4, 16, 40, 3, 5, 15])
def test_an_odd_number_of_groups_changes_the_factor(count):
  """(1/g) / E[1/b - 1/g] with b = (g - 1)/2 or (g + 1)/2: (g^2 - 1) / (g^2 + 1)."""
  assert halves_of(np.zeros(count, int), 0, 1).factor == pytest.approx(
    1 if count % 2 == 0 else (count**2 - 1) / (count**2 + 1)
  )


def test_a_class_has_at_most_sixteen_groups_and_sixty_halves():
  halves = halves_of(np.repeat([0, 1], [40, 3]), 0)
  assert halves.kept.shape == (60, 2, 16)
  counts = np.bincount(halves.group[:40])
  assert len(counts) == 16 and set(counts) == {2, 3}
  assert (halves.kept[:, 0].sum(axis=1) == 8).all()
  assert set(halves.kept[:, 1].sum(axis=1)) == {1, 2} and not halves.kept[:, 1, 3:].any()
  assert halves.group[40:].max() == 2


def test_an_image_alone_is_always_kept_and_does_not_change_the_factor():
  alone = halves_of(np.arange(5), 0, 3)
  assert alone.kept.shape == (3, 5, 1) and alone.kept.all() and alone.factor == 1
  assert (
    halves_of(np.repeat([0, 1], [3, 1]), 0, 2).factor == halves_of(np.zeros(3, int), 0, 2).factor
  )
  pair = halves_of(np.zeros(2, int), 0, 9)
  assert pair.factor == 1 and (pair.kept.sum(axis=2) == 1).all()


def test_the_factor_of_classes_of_several_sizes():
  """sum 1/g over sum of E[1/b] - 1/g; for three groups b is 1 or 2, for four it is 2."""
  expected = (1 / 3 + 1 / 4) / ((1 + 1 / 2) / 2 - 1 / 3 + 1 / 2 - 1 / 4)
  assert halves_of(np.repeat([0, 1], [3, 4]), 0, 2).factor == pytest.approx(expected)


def test_a_single_test_image_has_all_variance_in_common():
  """Its own changes are those of the mean: nothing is left, and nothing is divided by zero."""
  halves = halves_of(np.zeros(4, int), 0, 9)
  values = np.random.default_rng(0).normal(size=(9, 1))
  assert common_variance(values, np.ones(1), halves) < 1e-6


def test_odd_classes_are_rounded_both_ways_by_chance():
  halves = halves_of(np.zeros(5, int), 0, 400)
  kept = halves.kept[:, 0].sum(axis=1)
  assert np.mean(kept == 3) == pytest.approx(0.5, abs=0.1) and set(kept) == {2, 3}
  # Every group is kept as often as any other.
  np.testing.assert_allclose(halves.kept[:, 0].mean(axis=0), 0.5, atol=0.1)
