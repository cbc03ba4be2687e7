"""MIND: sliced Wasserstein distances, also of sets of different sizes."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import mind as module
from genbench_jax.metrics.mind import mind, sliced, transport, unit_directions
from genbench_jax.metrics.registry import Sets, measured


def test_transport_of_sets_of_different_sizes_repeats_their_values():
  """Quantile functions of 2 and 3 values are those of their 3 and 2 copies."""
  first, second = np.array([[0.0], [6.0]]), np.array([[1.0], [2.0], [9.0]])
  expected = np.mean((np.repeat(first, 3) - np.repeat(second, 2)) ** 2)
  assert transport(first, second) == pytest.approx([expected])
  assert transport(second, first) == pytest.approx([expected])
  two = np.array([[0.0, 1.0], [6.0, 2.0]])
  np.testing.assert_allclose(transport(two, two[:1]), [18, 0.5])


@pytest.mark.parametrize("count", [1, 100, 101, 250])
def test_directions_are_summed_in_parts(count):
  random = np.random.default_rng(0)
  x, y = random.normal(size=(2, 7, 3))
  lines = unit_directions(count, 3, random)
  steps = [np.mean((np.sort(x @ u) - np.sort(y @ u)) ** 2) for u in lines]
  assert sliced(x, y, lines) == pytest.approx(9 * np.mean(steps))


def test_directions_are_unit_vectors():
  lines = unit_directions(400, 3, np.random.default_rng(0))
  np.testing.assert_allclose(np.sum(lines**2, axis=1), 1)
  # Uniform on the sphere: every coordinate has mean 0 and mean square 1 / d.
  np.testing.assert_allclose(np.mean(lines**2, axis=0), 1 / 3, atol=0.06)
  np.testing.assert_allclose(np.mean(lines, axis=0), 0, atol=0.1)


def test_the_larger_set_is_cut_to_the_size_of_the_smaller_one():
  random = np.random.default_rng(0)
  x, y = random.normal(size=(12, 2)), random.normal(size=(5, 2))
  line = np.array([[1.0, 0.0]])
  found = mind(x, y, line, seed=3)
  assert found == mind(x, y, line, seed=3) != mind(x, y, line, seed=4)
  # All images are alike, so any five of them give the value.
  alike = np.full((12, 2), 2.0)
  assert mind(alike, y, line) == pytest.approx(6 * np.mean((2 - y[:, 0]) ** 2))
  assert mind(y, alike, line) == pytest.approx(mind(alike, y, line))


def test_the_default_is_a_thousand_directions_of_seed_0():
  random = np.random.default_rng(0)
  x, y = random.normal(size=(2, 5, 2))
  assert mind(x, y) == mind(x, y, 1000, 0)
  assert mind(x, y, 1000, 1) != mind(x, y)


@pytest.mark.parametrize("directions", [np.ones(2), np.ones((3, 4))])
def test_directions_of_another_width_are_rejected(directions):
  with pytest.raises(UsageError, match=r"directions must be \[r, 2\]"):
    mind(np.ones((3, 2)), np.ones((3, 2)), directions)
  for x, y in (
    (np.full((2, 2), np.nan), np.ones((2, 2))),
    (np.ones((2, 2)), np.full((2, 2), np.inf)),
  ):
    with pytest.raises(UsageError, match="NaN or infinite"):
      mind(x, y)


def sets_of(external, tests, labels, test_labels):
  return Sets(external, tests, labels, test_labels, num_classes=3, resamples=4)


def test_two_images_per_set_are_enough_and_one_is_not():
  random = np.random.default_rng(0)
  x, y = random.normal(size=(2, 2, 4)).astype(np.float32)
  labels = np.zeros(2, int)
  (found,) = (r for _, r in measured(sets_of(x, y, labels, labels), ("mind",)))
  assert found.value.value > 0
  assert list(measured(sets_of(x[:1], y, labels[:1], labels), ("mind",))) == []


def test_parts_of_sorted_values_stay_sorted():
  values = np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
  kept = np.array([[True, False], [False, True], [True, True]])
  assert module._sorted_part(values, kept).tolist() == [[1, 5], [3, 6]]


def test_the_interval_has_the_spread_of_fresh_sets():
  """A shift by half a deviation in 2 dimensions; parts of few images tell a variance to a factor of 3."""
  random = np.random.default_rng(1)
  zeros = np.zeros(40, int)

  def draw():
    rows = random.normal(size=(2, 40, 3)) + np.array([2.0, 0, 0])
    rows[0, :, 1] += 0.8
    return rows.astype(np.float32)

  found = []
  for _ in range(12):
    x, y = draw()
    sets = Sets(x, y, zeros, zeros, num_classes=1, resamples=30)
    found.append(next(r.value for _, r in measured(sets, ("mind",))))
  spread = np.std([one.value for one in found], ddof=1)
  width = np.mean([one.generator_high - one.generator_low for one in found]) / 3.92
  assert 0.5 < width / spread < 4
