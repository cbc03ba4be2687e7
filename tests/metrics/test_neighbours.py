"""The nearest rows against all similarities written out."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.metrics.neighbours import best_in_tile, nearest
from genbench_jax.metrics.ring import tiles, untiled


def by_hand(values, k):
  """Row numbers of the k highest, of equals the lower row; -1 where nothing is left."""
  order = np.argsort(-values, axis=1, kind="stable")[:, :k]
  found = np.take_along_axis(values, order, 1)
  return np.where(np.isinf(found), -1, order)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 60))
def test_agrees_with_all_similarities(seed, queries, rows):
  """Whole numbers, so that nothing is rounded and equal distances are common."""
  random = np.random.default_rng(seed)
  query, base = (random.integers(-2, 3, (n, 4)).astype(np.float32) for n in (queries, rows))
  distances = ((query[:, None] - base) ** 2).sum(-1)
  similarity, found = nearest(query, base, 3, "euclidean")
  expected = by_hand(-distances, 3)
  assert (found[:, : expected.shape[1]] == expected).all() and (found[:, rows:] == -1).all()
  real = found >= 0
  assert (-similarity[real] == np.take_along_axis(distances, found, 1)[real]).all()
  assert np.isneginf(similarity[~real]).all()


def test_a_row_is_not_its_own_neighbour(one_device_mesh, monkeypatch):
  random = np.random.default_rng(0)
  rows = random.normal(size=(50, 4)).astype(np.float32)
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  values = unit @ unit.T
  np.fill_diagonal(values, -np.inf)
  options = {"k": 4, "skip_self": True}
  _, found = nearest(rows, rows, **options)
  assert (found == by_hand(values, 4)).all()
  assert (nearest(rows, rows, mesh=one_device_mesh, **options)[1] == found).all()
  for module in ("neighbours", "ring"):
    monkeypatch.setattr(f"genbench_jax.metrics.{module}.BLOCK_ROWS", 16)
  assert (nearest(rows, rows, **options)[1] == found).all()


@pytest.mark.parametrize("columns", [64, 1000, 2048])
def test_the_best_of_a_tile_are_found_through_their_groups(columns):
  """2,048 columns are searched by groups of 64; the others straight."""
  values = np.random.default_rng(0).permuted(np.tile(np.arange(columns), (3, 1)), axis=1)
  values[0, :5] = columns  # five equal ones
  found, rows = best_in_tile(jnp.asarray(values, jnp.float32), jnp.arange(columns), 5)
  assert (np.asarray(rows) == by_hand(values.astype(float), 5)).all()
  assert (np.asarray(found) == np.take_along_axis(values, np.asarray(rows), 1)).all()


def test_tiles_come_apart_and_together():
  rows = jnp.arange(10.0).reshape(10, 1)
  split = tiles(rows, 4, fill=-1)
  assert split.shape == (3, 4, 1) and (split[2, 2:] == -1).all()
  assert (untiled(split, 10) == rows).all()
