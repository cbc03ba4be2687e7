"""Nearest rows against the full matrix of similarities."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.metrics import top_k
from genbench_jax.metrics.neighbors import _without_self, nearest
from genbench_jax.metrics.ring import tiles, untiled


def by_hand(values, k):
  """Return the rows of the k highest values, ties to the lower row; -1 where nothing is left."""
  order = np.argsort(-values, axis=1, kind="stable")[:, :k]
  found = np.take_along_axis(values, order, 1)
  return np.where(np.isinf(found), -1, order)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 60))
def test_agrees_with_all_similarities(seed, queries, rows):
  """Integers are exact and make ties common."""
  random = np.random.default_rng(seed)
  query, base = (random.integers(-2, 3, (n, 4)).astype(np.float32) for n in (queries, rows))
  distances = ((query[:, None] - base) ** 2).sum(-1)
  similarity, found = nearest(query, base, 3, "euclidean")
  expected = by_hand(-distances, 3)
  assert (found[:, : expected.shape[1]] == expected).all() and (found[:, rows:] == -1).all()
  real = found >= 0
  assert (-similarity[real] == np.take_along_axis(distances, found, 1)[real]).all()
  assert np.isneginf(similarity[~real]).all()


def test_a_row_is_not_its_own_neighbor(one_device_mesh, monkeypatch):
  random = np.random.default_rng(0)
  rows = random.normal(size=(50, 4)).astype(np.float32)
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  values = unit @ unit.T
  np.fill_diagonal(values, -np.inf)
  options = {"k": 4, "skip_self": True}
  _, found = nearest(rows, rows, **options)
  assert (found == by_hand(values, 4)).all()
  assert (nearest(rows, rows, mesh=one_device_mesh, **options)[1] == found).all()
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 16)
  assert (nearest(rows, rows, **options)[1] == found).all()


@pytest.mark.parametrize("values", [2, 2000])
def test_tiles_in_any_order_keep_the_best_and_ties_the_lower_rows(values):
  """Integer scores, few or many; some columns have a penalty, and the last ones are padding."""
  random = np.random.default_rng(0)
  products = random.integers(0, values, (3, 4, 192)).astype(np.float32)
  penalty = random.integers(0, 2, (3, 192)).astype(np.float32)
  rows = np.arange(3 * 192).reshape(3, 192)
  rows[2, 100:], penalty[2, 100:] = -1, np.inf
  scores = np.concatenate(list(products - penalty[:, None]), axis=1).astype(float)
  expected = by_hand(scores, 7)
  for order in ([0, 1, 2], [2, 0, 1]):
    best = top_k.Nearest.nothing(4, 7)
    for tile in order:
      arrays = (jnp.asarray(array[tile]) for array in (products, penalty, rows))
      best = top_k.with_tile(best, *arrays)
    assert (np.asarray(best.row) == expected).all()
    assert (np.asarray(best.score) == np.take_along_axis(scores, expected, 1)).all()


def test_tiles_can_be_split_and_merged():
  rows = jnp.arange(10.0).reshape(10, 1)
  split = tiles(rows, 4, fill=-1)
  assert split.shape == (3, 4, 1) and (split[2, 2:] == -1).all()
  assert (untiled(split, 10) == rows).all()


def test_a_row_is_dropped_from_its_own_neighbors_or_the_last_one():
  """Row 1 was crowded out by duplicates of it: then its last neighbor is dropped."""
  similarities = np.array([[0.0, -1, -2], [0, 0, 0], [0, -3, -5]])
  numbers = np.array([[0, 2, 1], [0, 3, 4], [5, 2, 6]])
  found = _without_self(similarities, numbers)
  assert found[0].tolist() == [[-1, -2], [0, 0], [0, -5]]
  assert found[1].tolist() == [[2, 1], [0, 3], [5, 6]]


def test_distances_and_cosines_are_those_of_the_definitions():
  query, base = np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [0, 2], [-6, -8], [30, 40]])
  similarity, rows = nearest(query, base, 4)
  assert rows.tolist() == [[0, 3, 1, 2]]
  np.testing.assert_allclose(similarity, [[1, 1, 0.8, -1]], rtol=1e-6)
  similarity, rows = nearest(query, base, 2, "euclidean")
  assert rows.tolist() == [[0, 1]]
  np.testing.assert_allclose(similarity, [[0, -13]], atol=1e-5)


def test_duplicates_of_a_row_are_its_neighbors():
  rows = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]], np.float32)
  similarity, found = nearest(rows, rows, 2, "euclidean", skip_self=True)
  assert found.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
  np.testing.assert_allclose(similarity, [[0, 0]] * 3 + [[-2, -2]], atol=1e-6)
  _, all_rows = nearest(rows[:2], rows[:2], 3, skip_self=True)
  assert all_rows.tolist() == [[1, -1, -1], [0, -1, -1]]
