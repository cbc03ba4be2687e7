"""Fréchet distance extrapolated to infinitely many images."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.fd_infinity import fd_infinity, measure_fd_infinity
from genbench_jax.metrics.frechet import frechet_distance


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
