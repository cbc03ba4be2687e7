"""Intervals from parts of two sets, where the variance is known."""

import numpy as np
import pytest

from genbench_jax.metrics.bootstrap import ONE_A_CLASS
from genbench_jax.metrics.half_samples import REPEATS, halves_of
from genbench_jax.metrics.intervals import wilson
from genbench_jax.metrics.manifold_spread import MOST_ROWS
from genbench_jax.metrics.set_spread import _replicates, set_measurements
from genbench_jax.runtime.protocol import NORMAL


def means(external, test):
  """Statistics: the mean of each set, and their sum."""

  def of_parts(own, other):
    first, second = external[own].mean(), test[other].mean()
    return np.array([first, second, first + second])

  return of_parts


def measured(n, m, strata=None, seed=0, prepare=means, values=None, **settings):
  """The measurements of two normal sets of n and m values with deviations 1 and 3."""
  random = np.random.default_rng(seed)
  external, test = random.normal(5, 1, (n, 1)), random.normal(50, 3, (m, 1))
  strata = strata or (np.zeros(n, int), np.zeros(m, int))
  if values is None:
    values = np.array([external.mean(), test.mean(), external.mean() + test.mean()])
  return set_measurements(values, prepare, external, test, strata, seed, **settings), external, test


def half_widths(found):
  return (
    np.array([(each.ci_high - each.ci_low) / 2 for each in found]),
    np.array([(each.generator_high - each.generator_low) / 2 for each in found]),
  )


@pytest.mark.parametrize(("n", "m"), [(60, 100), (MOST_ROWS + 200, 900)])
def test_a_mean_has_the_interval_of_a_mean(n, m):
  """The standard error of a deviation from 60 parts is 9 %."""
  found, external, test = measured(n, m)
  near, wide = half_widths(found)
  first, second = NORMAL * external.std(ddof=1) / n**0.5, NORMAL * test.std(ddof=1) / m**0.5
  assert near[0] == pytest.approx(0, abs=1e-9)  # other test images change nothing
  assert near[1:] == pytest.approx([second] * 2, rel=0.3)
  assert wide[0] == pytest.approx(first, rel=0.3)
  assert wide[2] == pytest.approx(np.hypot(first, second), rel=0.3)
  assert wide[1] == pytest.approx(near[1])


def test_both_sets_halved_at_once_add_up_for_a_sum():
  near, wide = half_widths(measured(80, 80, joint=True)[0])
  assert wide[2] == pytest.approx(NORMAL * np.hypot(1, 3) / 80**0.5, rel=0.35)
  assert wide[2] > near[2]


def test_equal_sizes_have_the_variance_of_the_smaller_set():
  """A statistic of 40 images of each set varies with 9 / 40, though there are 400 test images."""
  found = measured(40, 400, equal_sizes=True)[0]
  near, _ = half_widths(found)
  assert near[1] == pytest.approx(NORMAL * 3 / 40**0.5, rel=0.35)


def test_values_lie_in_the_middle_of_their_intervals():
  for each in measured(30, 30)[0]:
    assert (each.ci_low + each.ci_high) / 2 == pytest.approx(each.value)


def test_an_interval_never_begins_below_zero_and_ends_at_one_if_bounded():
  values = np.array([0.01, 0.99, 0.5])
  found = measured(12, 12, values=values, bounded=True)[0]
  assert min(each.ci_low for each in found) >= 0
  assert max(each.ci_high for each in found) <= 1
  assert max(each.generator_high for each in found) <= 1
  assert found[1].generator_high == 1


def constant(external, test):
  return lambda own, other: np.array([1.0])


def test_a_bounded_value_without_variance_has_wilsons_interval():
  (found,) = measured(20, 30, prepare=constant, values=np.array([1.0]), bounded=True)[0]
  assert (found.ci_low, found.ci_high) == pytest.approx(wilson(1.0, 0.0, 30))
  assert (found.generator_low, found.generator_high) == pytest.approx(wilson(1.0, 0.0, 20))
  (free,) = measured(20, 30, prepare=constant, values=np.array([1.0]))[0]
  assert free.ci_low == free.ci_high == 1


def test_one_external_image_a_class_has_no_interval_for_the_generator():
  found = measured(8, 20, strata=(np.arange(8), np.zeros(20, int)))[0]
  assert all(each.generator_low is None and each.note == ONE_A_CLASS for each in found)
  assert all(each.ci_low is not None for each in found)


def test_halves_are_taken_within_classes():
  """Classes of equal values: every half has the same mean, so nothing varies."""

  def by_class(external, test):
    return lambda own, other: np.array([external[own].mean()])

  strata = np.repeat(np.arange(10), 2)
  external = strata[:, None].astype(float)
  test = np.zeros((20, 1))
  for own, varies in ((strata, False), (np.zeros(20, int), True)):
    (found,) = set_measurements(
      np.array([4.5]), by_class, external, test, (own, np.zeros(20, int)), 0
    )
    assert (found.generator_high - found.generator_low > 0.1) is varies


def test_repetitions_are_averaged():
  """A statistic given twice, once shifted, has the variance of one."""

  def twice(external, test):
    def of_parts(own, other):
      mean = test[other].mean()
      return np.array([mean, mean + 1])

    return of_parts

  once = measured(20, 50, values=np.array([50.0]), prepare=lambda e, t: lambda a, b: twice(e, t)(a, b)[:1])  # fmt: skip
  both = measured(20, 50, values=np.array([50.0]), prepare=twice)
  assert half_widths(once[0])[0] == pytest.approx(half_widths(both[0])[0])


def test_the_number_of_parts_has_a_limit():
  calls = []

  def counting(external, test):
    def of_parts(own, other):
      calls.append((own.sum(), other.sum()))
      return np.array([0.0])

    return of_parts

  measured(20, 20, values=np.array([0.0]), prepare=counting, resamples=10**6)
  assert len(calls) == 2 * REPEATS
  assert all(own == 20 or other == 20 for own, other in calls)
  del calls[:]
  measured(20, 20, values=np.array([0.0]), prepare=counting, resamples=3, joint=True)
  assert len(calls) == 9
  assert all(9 <= own <= 11 and 9 <= other <= 11 for own, other in calls[6:])


def test_a_smaller_statistic_has_parts_of_its_own_size():
  """Twelve of 40 images, and half of 12; the variance of a mean of 12 is s^2 / 12 by either."""
  sizes = []

  def counting(external, test):
    def of_parts(own, other):
      sizes.append((int(own.sum()), int(other.sum())))
      return np.array([0.0])

    return of_parts

  measured(12, 40, values=np.array([0.0]), prepare=counting, resamples=4, equal_sizes=True)
  assert sizes == [(12, 12)] * 4 + [(6, 40)] * 4


@pytest.mark.parametrize("settings", [{}, {"joint": True}])
def test_the_intervals_have_the_variance_over_the_parts(settings):
  """By hand: each set halved while the other is whole, or both at once."""
  random = np.random.default_rng(0)
  external, test = random.normal(size=(12, 1)), random.normal(size=(16, 1))
  strata = np.zeros(12, int), np.zeros(16, int)
  statistic = lambda a, b: lambda i, j: np.array([a[i].max() * b[j].mean()])  # noqa: E731
  (found,) = set_measurements(np.array([2.0]), statistic, external, test, strata, 3, 20, **settings)
  halves = [halves_of(own, 3 + turn, 20) for turn, own in enumerate(strata)]
  every = [np.ones(12, bool), np.ones(16, bool)]
  of = statistic(external, test)
  of_test = np.var([of(every[0], halves[1].rows(r)) for r in range(20)], ddof=1)
  of_external = np.var([of(halves[0].rows(r), every[1]) for r in range(20)], ddof=1)
  wide = of_test + of_external
  if settings:
    wide = np.var([of(halves[0].rows(r), halves[1].rows(r)) for r in range(20)], ddof=1)
  assert found.ci_high == pytest.approx(2 + NORMAL * of_test**0.5)
  assert found.generator_high == pytest.approx(2 + NORMAL * max(wide, of_test) ** 0.5)


def test_proportions_have_wilsons_interval():
  values = np.array([0.3])
  statistic = lambda a, b: lambda i, j: np.array([np.mean(a[i] > 5.2)])  # noqa: E731
  (found,), _, _ = measured(40, 30, prepare=statistic, values=values, proportions=True)
  assert (found.ci_low, found.ci_high) == pytest.approx(wilson(0.3, 0.0, 30))
  low, high = found.generator_low, found.generator_high
  assert 0 < low < found.ci_low or low == found.ci_low
  assert high < 1


@pytest.mark.parametrize(("size", "count"), [(7, 7), (1, 5), (3, 8), (30, 40), (6, 9)])
def test_parts_of_a_set_and_their_factor(size, count):
  """A mean of b of n values has the variance s^2 (1/b - 1/n), and one of `size` values s^2 / size."""
  found = _replicates(np.zeros(count, int), size, 0, 4)
  kept = found.kept.sum(axis=1)
  if size == count:
    assert set(kept) <= {count // 2, count // 2 + 1}
    return
  part = min(size, count // 2)
  assert (kept == part).all()
  assert found.factor == pytest.approx(1 / size / (1 / part - 1 / count))
  assert len({row.tobytes() for row in found.kept}) > 1
