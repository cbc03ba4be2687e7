"""Kernel distances against the kernel matrices written out."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.kernels import (
  cmmd,
  kernel_distance,
  measure_cmmd,
  measure_kernel_distance,
)


def polynomial(a, b):
  return (a @ b.T / a.shape[1] + 1) ** 3


def gaussian(a, b):
  a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
  return np.exp(-((a[:, None] - b) ** 2).sum(-1) / 200)


def by_hand(x, y, kernel, unbiased):
  x, y = x.astype(float), y.astype(float)
  within = []
  for rows in (x, y):
    matrix = kernel(rows, rows)
    off = matrix.sum() - np.trace(matrix)
    within.append(off / (len(rows) * (len(rows) - 1)) if unbiased else matrix.mean())
  return sum(within) - 2 * kernel(x, y).mean()


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(300, 16)) + 0.3
  y = rng.normal(size=(230, 16)) * 1.2
  return x.astype(np.float32), y.astype(np.float32)


def test_agrees_with_the_matrices(sets):
  expected = by_hand(*sets, polynomial, unbiased=True)
  assert kernel_distance(*sets) == pytest.approx(expected, rel=1e-5)
  expected = by_hand(*sets, gaussian, unbiased=True)
  assert kernel_distance(*sets, kernel="gaussian") == pytest.approx(expected, rel=1e-5)
  assert cmmd(*sets) == pytest.approx(1000 * by_hand(*sets, gaussian, unbiased=False), rel=1e-5)


def test_unit_features_whose_kernel_values_are_all_near_one(sets):
  """As with CLIP: a distance of 1e-6 between kernel values of 1.03."""
  x, y = ((rows + 2) / np.linalg.norm(rows + 2, axis=1, keepdims=True) for rows in sets)
  expected = by_hand(x, y, polynomial, unbiased=True)
  assert abs(expected) < 1e-2
  assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_devices_blocks_and_order_do_not_matter(sets, one_device_mesh, monkeypatch):
  x, y = sets
  for distance in (kernel_distance, cmmd):
    whole = distance(x, y)
    assert distance(y, x) == pytest.approx(whole, rel=1e-5)
    assert distance(x[::-1], y, mesh=one_device_mesh) == pytest.approx(whole, rel=1e-5)
  whole = kernel_distance(x, y)
  for module in ("kernels", "ring"):
    monkeypatch.setattr(f"genbench_jax.metrics.{module}.BLOCK_ROWS", 100)
  assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-5)


def test_known_values(sets):
  x, _ = sets
  assert cmmd(x, x) == pytest.approx(0, abs=1e-5)
  one_way = np.tile(np.eye(16)[:1], (5, 1))
  assert cmmd(one_way, -one_way) == pytest.approx(2000 * (1 - np.exp(-4 / 200)), rel=1e-5)
  halves = kernel_distance(x[:150], x[150:], kernel="gaussian")
  assert abs(halves) < abs(kernel_distance(*sets, kernel="gaussian")) / 10


@pytest.mark.parametrize("kernel", [polynomial, gaussian])
def test_the_interval_is_that_of_a_full_bootstrap(sets, kernel):
  """Against images drawn again and again, pairs of an image with itself left out."""
  x, y = (rows[:, :4].astype(float) for rows in sets)
  found = measure_kernel_distance(x, y, kernel=kernel.__name__)
  matrix, across = kernel(x, x), kernel(x, y).mean(1)
  np.fill_diagonal(matrix, 0)
  rng = np.random.default_rng(0)
  samples = []
  for _ in range(500):
    weights = np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x))
    pairs = weights.sum() ** 2 - (weights**2).sum()
    samples.append(weights @ matrix @ weights / pairs - 2 * weights @ across / len(x))
  low, high = np.quantile(samples, [0.025, 0.975])
  assert found.ci_high - found.ci_low == pytest.approx(high - low, rel=0.15)
  assert found.ci_low < found.value < found.ci_high


def test_what_is_not_defined_is_said(sets):
  x, y = sets
  with pytest.raises(UsageError, match="at least 2 images"):
    kernel_distance(x, y[:1])
  with pytest.raises(UsageError, match="Did you mean 'gaussian'"):
    kernel_distance(x, y, kernel="gauss")
  with pytest.raises(UsageError, match="NaN"):
    cmmd(x * np.nan, y)


def test_the_interval_of_cmmd_is_that_of_a_full_bootstrap(sets):
  """To first order: the other set stays as it is, an image's pair with itself counts."""
  x, y = (rows[:, :4].astype(float) for rows in sets)
  found = measure_cmmd(x, y)
  matrix, across = gaussian(x, x), gaussian(x, y).mean(1)
  rng = np.random.default_rng(0)
  samples = []
  for _ in range(500):
    weights = np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x)) / len(x)
    samples.append(1000 * (weights @ matrix @ weights - 2 * weights @ across))
  low, high = np.quantile(samples, [0.025, 0.975])
  assert found.ci_high - found.ci_low == pytest.approx(high - low, rel=0.2)
  assert 0 <= found.ci_low < found.value < found.ci_high


def test_two_images_a_set_are_enough(sets):
  x, y = (rows[:2] for rows in sets)
  assert kernel_distance(x, y) == pytest.approx(by_hand(x, y, polynomial, True), rel=1e-4)
  assert cmmd(x, y) == pytest.approx(1000 * by_hand(x, y, gaussian, False), rel=1e-4)
