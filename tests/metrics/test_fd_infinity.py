"""Fréchet distance extrapolated to infinitely many images."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import fd_infinity as fd_module
from genbench_jax.metrics.fd_infinity import fd_infinity, measure_fd_infinity
from genbench_jax.metrics.frechet import frechet_distance, measure_frechet_distance
from genbench_jax.metrics.registry import Sets


def draw(random, n, shift):
  return random.normal(size=(n, 8)) + shift


def test_extrapolation_removes_the_bias_of_few_images():
  random = np.random.default_rng(0)
  tests = draw(random, 4000, 0)
  limit = frechet_distance(draw(random, 40_000, 0.1), tests)
  values = [(frechet_distance(x, tests), fd_infinity(x, tests))
            for x in (draw(random, 80, 0.1) for _ in range(30))]  # fmt: skip
  at_n, infinite = np.mean(values, axis=0)
  assert at_n > 2 * limit
  assert infinite == pytest.approx(limit, abs=4 * np.std(values, axis=0)[1] / 30**0.5)


def test_the_extrapolation_is_the_published_one():
  """Least squares in 1 / n over the same parts, written out."""
  random = np.random.default_rng(1)
  x, y = draw(random, 200, 0.3), draw(random, 300, 0)
  found = [fd_infinity(x, y, seed=seed) for seed in range(8)]
  sizes = np.linspace(50, 200, 15).astype(int)
  expected = []
  for _ in range(8):
    distances = [frechet_distance(x[random.permutation(200)[:size]], y) for size in sizes]
    expected.append(np.polyfit(1 / sizes, distances, 1)[1])
  assert np.mean(found) == pytest.approx(np.mean(expected), abs=3 * np.std(expected))


def test_intervals_contain_the_limit():
  random = np.random.default_rng(2)
  labels = np.arange(120) % 4, np.arange(400) % 4
  centers = 2 * random.normal(size=(4, 6))

  def sample(which, shift):
    return centers[which] + random.normal(size=(len(which), 6)) + shift

  held, values = [], []
  for seed in range(12):
    found = measure_fd_infinity(
      sample(labels[0], 0.3), sample(labels[1], 0), labels, seed, resamples=200
    )
    assert found.generator_low < found.ci_low < found.value < found.ci_high < found.generator_high
    values.append(found.value)
    held.append((found.generator_low, found.generator_high))
  assert np.mean([low < np.mean(values) < high for low, high in held]) > 0.7


def test_too_few_images_are_rejected():
  with pytest.raises(UsageError, match="more than 32 images of 8 dimensions, got 30"):
    fd_infinity(np.ones((30, 8)), np.ones((40, 8)))


def test_the_intercept_of_a_line_and_its_standard_error():
  x, y = np.array([1.0, 2, 4, 5, 7]), np.array([2.0, 2.9, 5.2, 5.8, 8.3])
  line, covariance = np.polyfit(x, y, 1, cov=True)
  found = fd_module._intercept(x, y)
  assert found == pytest.approx((line[1], covariance[1, 1] ** 0.5))


def test_an_interval_is_moved_and_widened_in_quadrature():
  low, high = fd_module._widened(5.0, 7.0, 4.0, 11.0, 2.0)
  error = 1.959964 * 2
  assert (low, high) == pytest.approx((5 - np.hypot(3, error), 5 + np.hypot(4, error)))


@pytest.mark.parametrize("counts", [[40, 40], [60, 20], [79, 1]])
def test_every_stretch_has_the_proportions_of_the_whole(counts):
  strata = np.repeat(np.arange(len(counts)), counts)
  order = fd_module._evenly(strata, np.random.default_rng(0))
  assert sorted(order) == list(range(80))
  for start in range(0, 60, 5):
    part = np.bincount(strata[order[start : start + 20]], minlength=2)
    assert np.abs(part - np.array(counts) / 4).max() <= 1


def test_the_interval_is_that_of_the_distance_and_of_the_extrapolation():
  random = np.random.default_rng(0)
  x, y = draw(random, 60, 0.3), draw(random, 90, 0)
  labels = np.arange(60) % 3, np.arange(90) % 3
  found = measure_fd_infinity(x, y, labels, 4, 50)
  value, error = fd_module._extrapolated(x, y, labels[0], 4, None)
  at_n = measure_frechet_distance(x, y, "strict", False, 4, 50, labels=labels)
  assert found.value == value == fd_infinity(x, y, labels[0], 4)
  for kind in ("ci", "generator"):
    low, high = (getattr(at_n, f"{kind}_{end}") for end in ("low", "high"))
    expected = fd_module._widened(value, at_n.value, low, high, error)
    assert (getattr(found, f"{kind}_low"), getattr(found, f"{kind}_high")) == pytest.approx(
      expected
    )
  alone = measure_fd_infinity(x, y, (np.arange(60), labels[1]), 4, 50)
  assert alone.generator_low is None and alone.note


@pytest.mark.parametrize(("images", "enough"), [(32, False), (33, True)])
def test_more_than_four_times_as_many_images_as_dimensions(images, enough):
  random = np.random.default_rng(0)
  x, y = draw(random, images, 0), draw(random, 40, 0)
  sets = Sets(x, y, np.arange(images) % 2, np.arange(40) % 2, num_classes=2, resamples=4)
  assert [r.name for r in fd_module.measure(sets, ())] == ["fd_infinity"] * enough
  if not enough:
    with pytest.raises(UsageError, match="more than 32 images"):
      fd_infinity(x, y)
  with pytest.raises(UsageError, match="fd_infinity needs"):
    fd_infinity(draw(random, 50, 0), y[:1])


def test_the_scale_of_the_features_is_that_of_the_distance():
  random = np.random.default_rng(0)
  x, y = draw(random, 60, 0.3).astype(np.float32), draw(random, 90, 0).astype(np.float32)
  scale = np.float32(2.0**60)
  expected = fd_infinity(x, y)
  assert fd_infinity(scale * x, scale * y) == pytest.approx(2.0**120 * expected, rel=1e-3)


def test_the_default_seed_is_0():
  random = np.random.default_rng(5)
  x, y = draw(random, 60, 0.3), draw(random, 90, 0)
  assert fd_infinity(x, y) == fd_infinity(x, y, seed=0) != fd_infinity(x, y, seed=1)
