"""Mean and covariance of tiles, blocks and devices."""

import numpy as np
import pytest

from genbench_jax.metrics import moments as module
from genbench_jax.metrics.moments import Moments, _upper_gram, moments


def state(rows):
  """Moments of rows, on the host."""
  mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
  return Moments(np.float64(len(rows)), mean, (rows - mean).T @ (rows - mean))


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (0, 4), (4, 0), (0, 0)])
def test_merged_moments_are_those_of_the_union(sizes):
  random = np.random.default_rng(0)
  first, second = (random.normal(size=(n, 3)) + n for n in sizes)
  found, expected = state(first).merge(state(second)), state(np.concatenate([first, second]))
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_covariance_is_divided_by_one_less_than_the_count():
  mean, covariance = state(np.array([[0.0, 0], [2, 4]])).compute()
  np.testing.assert_allclose(mean, [1, 2])
  np.testing.assert_allclose(covariance, [[2, 4], [4, 8]])


@pytest.mark.parametrize("width", [1, 5, 128, 150, 517])
def test_the_upper_triangle_of_a_gram_matrix_is_complete(width):
  """Strips of at least 128 columns, of a quarter of the width if that is more."""
  rows = np.random.default_rng(0).integers(-2, 3, (4, width)).astype(np.float32)
  found = np.asarray(_upper_gram(rows))
  np.testing.assert_array_equal(np.triu(found), np.triu(rows.T @ rows))


def test_tiles_with_padding_and_an_origin_have_the_moments_of_the_rows(monkeypatch):
  monkeypatch.setattr(module, "TILE_ROWS", 4)
  rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
  mask = np.arange(10) % 3 != 1
  origin = np.float32([1, 2, 3])
  found = Moments.from_batch(rows, mask, origin)
  expected = state((rows - origin)[mask].astype(float))
  assert float(found.count) == mask.sum()
  np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
  np.testing.assert_allclose(found.scatter, expected.scatter, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_blocks_and_devices_have_the_moments_of_all_rows(normalize, mesh, monkeypatch):
  rows = (np.random.default_rng(0).normal(size=(37, 4)) + np.array([3, 0, 0, 9])).astype(np.float32)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 16)
  found = moments("x", rows, mesh, normalize)
  if normalize:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  expected = state(rows.astype(float))
  assert found.count == 37
  np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
  np.testing.assert_allclose(found.scatter, expected.scatter, atol=2e-5)
