"""The k best rows: how lists are merged, tiled and updated."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.metrics import top_k
from genbench_jax.metrics.ring import Rows, placed_rows, row_tiles, tiles, untiled
from genbench_jax.metrics.top_k import Nearest, _inserted, search_rows


def state(scores, rows):
  return Nearest(jnp.asarray(scores, jnp.float32), jnp.asarray(rows, jnp.int32))


def lists(found):
  return np.asarray(found.score).tolist(), np.asarray(found.row).tolist()


def test_nothing_has_no_rows():
  assert lists(Nearest.nothing(1, 2)) == ([[-np.inf, -np.inf]], [[-1, -1]])
  found = Nearest.nothing(2, 3)
  assert found.score.shape == (2, 3) and found.row.dtype == np.int32


def test_the_best_of_two_lists_are_kept_with_ties_to_the_lower_row():
  one, other = state([[5, 3, 1]], [[7, 2, 4]]), state([[5, 3, 2]], [[1, 9, 8]])
  expected = ([[5, 5, 3]], [[1, 7, 2]])
  assert lists(one.merge(other)) == lists(other.merge(one)) == expected
  few = state([[5, -np.inf, -np.inf]], [[0, -1, -1]])
  assert lists(few.merge(Nearest.nothing(1, 3))) == ([[5, -np.inf, -np.inf]], [[0, -1, -1]])
  assert lists(state([[1, 4, 4, 2]], [[0, 3, 2, 1]]).first(2)) == ([[4, 4]], [[2, 3]])


@pytest.mark.parametrize(
  ("score", "row", "expected"),
  [
    (4, 9, ([[5, 4, 3]], [[1, 9, 5]])),
    (3, 4, ([[5, 3, 3]], [[1, 4, 5]])),  # a tie goes to the lower row
    (3, 6, ([[5, 3, 3]], [[1, 5, 6]])),
    (9, 0, ([[9, 5, 3]], [[0, 1, 5]])),
    (2, 6, ([[5, 3, 2]], [[1, 5, 6]])),
    (2, 8, ([[5, 3, 2]], [[1, 5, 7]])),
    (1, 9, ([[5, 3, 2]], [[1, 5, 7]])),  # falls out again
  ],
)
def test_a_candidate_is_inserted_at_its_rank(score, row, expected):
  best = state([[5, 3, 2]], [[1, 5, 7]])
  found = _inserted(best, jnp.asarray([[float(score)]]), jnp.asarray([[row]]))
  assert lists(found) == expected


@pytest.mark.parametrize(("count", "queries"), [(1, 1), (63, 5), (64, 4), (130, 3)])
def test_rows_are_searched_whatever_their_number(count, queries, monkeypatch):
  """Tiles of two queries and of 64 rows: the last ones hold padding, which never wins."""
  monkeypatch.setattr(top_k, "QUERY_TILE", 2)
  monkeypatch.setattr(top_k, "CPU_ROW_TILE", 64)
  random = np.random.default_rng(count)
  query, base = (random.integers(-3, 4, (n, 3)).astype(np.float32) for n in (queries, count))
  numbers = np.arange(count)
  numbers[count // 2 + 1 :] = -1
  penalty = random.integers(0, 3, count).astype(np.float32)
  found = search_rows(
    jnp_state(queries, 4), Rows(jnp.asarray(query), jnp.arange(queries)),
    Rows(jnp.asarray(base), jnp.asarray(numbers)), jnp.asarray(penalty),
  )  # fmt: skip
  scores = np.where(numbers >= 0, query @ base.T - penalty, -np.inf)
  order = np.argsort(-scores, axis=1, kind="stable")[:, :4]
  best = np.take_along_axis(scores, order, axis=1)
  np.testing.assert_array_equal(np.asarray(found.score)[:, : best.shape[1]], best)
  expected = np.where(np.isinf(best), -1, order)
  np.testing.assert_array_equal(np.asarray(found.row)[:, : best.shape[1]], expected)


def jnp_state(*shape):
  return Nearest(*map(jnp.asarray, Nearest.nothing(*shape)))


def test_tiles_are_filled_and_joined():
  array = np.arange(10.0).reshape(5, 2)
  split = tiles(array, 2)
  assert split.shape == (3, 2, 2) and not np.asarray(split[2, 1]).any()
  np.testing.assert_array_equal(untiled(split, 5), array)
  assert tiles(array, 9).shape == (1, 5, 2) and tiles(array, 5).shape == (1, 5, 2)
  found = row_tiles(Rows(jnp.asarray(array), jnp.arange(5)), 3)
  assert np.asarray(found.number).tolist() == [[0, 1, 2], [3, 4, -1]]


def test_placed_rows_are_numbered_from_the_start_of_their_block(one_device_mesh):
  features = np.ones((6, 2), np.float32)
  found = placed_rows(features[:5], slice(2, 5), one_device_mesh)
  numbers = np.asarray(found.number)
  assert numbers[:3].tolist() == [2, 3, 4] and (numbers[3:] == -1).all()
