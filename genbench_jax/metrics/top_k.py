"""The k best rows for each query, exact, over rows that come tile by tile.

Of a tile only what beats the k-th best so far is looked at: after the first tiles that is next to nothing, and the cost is
that of the matrix product.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import HIGHEST
from genbench_jax.metrics.ring import Rows, row_tiles, tiles, untiled

# Queries and rows that meet at once. On CPU their products stay in the cache; accelerators want larger tiles.
QUERY_TILE = 512
CPU_ROW_TILE, ACCELERATOR_ROW_TILE = 2048, 16_384
GROUP = 64


class Nearest(NamedTuple):
  """State: the k best of each query so far, best first: score, and number of the row (-1: none)."""

  score: Float[Any, "*m q k"]
  row: Int[Any, "*m q k"]

  @classmethod
  def nothing(cls, *shape: int) -> "Nearest":
    """Before the first row, on the host."""
    return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))

  def merge(self, other: "Nearest") -> "Nearest":
    """The k best of both; of equals the lower row, so that the order of arrival does not matter."""
    both = Nearest(*(jnp.concatenate(pair, -1) for pair in zip(self, other, strict=True)))
    return both.first(self.row.shape[-1])

  def first(self, k: int) -> "Nearest":
    """The k best of longer lists in any order."""
    negative, row = jax.lax.sort((-self.score, self.row), num_keys=2)
    return Nearest(-negative[..., :k], jnp.where(jnp.isinf(negative[..., :k]), -1, row[..., :k]))


Update = Callable[
  [Nearest, Float[Array, "q n"], Float[Array, "n"], Int[Array, "n"]],
  Nearest,
]


class _Left(NamedTuple):
  """What of a tile is still to be looked at, in groups of neighboring columns.

  Attributes:
    maximum: the best of each group that has not been taken.
    first: the column of its group from which on values equal to `maximum` count; earlier ones were taken.
  """

  maximum: Float[Array, "q g"]
  first: Int[Array, "q g"]


def row_tile() -> int:
  """Rows that meet the queries at once on the default device."""
  return CPU_ROW_TILE if jax.default_backend() == "cpu" else ACCELERATOR_ROW_TILE


def search_rows(
  best: Nearest,
  query: Rows,
  rows: Rows,
  penalty: Float[Array, "n"],
  update: Update | None = None,
) -> Nearest:
  """The best so far with those of more rows; scores are inner products less the penalty of the row.

  Args:
    query, rows: numbers go up by one, padding stands last.
    update: how a tile is looked through; by default exactly.
  """
  update = update or with_tile
  missing = -len(rows.number) % GROUP
  rows = Rows(
    jnp.pad(rows.features, ((0, missing), (0, 0))),
    jnp.pad(rows.number, (0, missing), constant_values=-1),
  )
  penalty = jnp.where(rows.number >= 0, jnp.pad(penalty, (0, missing)), jnp.inf)

  def one_row_tile(best: Nearest, tile: tuple[Rows, Array]) -> tuple[Nearest, None]:
    rows, penalty = tile
    columns = rows.features.astype(jnp.float32).T

    def one_query_tile(part: tuple[Nearest, Rows]) -> Nearest:
      best, query = part

      def found(best: Nearest) -> Nearest:
        products = jnp.matmul(query.features, columns, precision=HIGHEST)
        return update(best, products, penalty, rows.number)

      # Padding comes last: a tile that begins with it holds nothing else.
      some = (query.number[0] >= 0) & (rows.number[0] >= 0)
      return jax.lax.cond(some, found, lambda best: best, best)

    return jax.lax.map(one_query_tile, (best, query_tiles)), None

  size = -(-len(query.number) // -(-len(query.number) // QUERY_TILE))  # evenly cut
  query_tiles = row_tiles(query, size)
  best_tiles = jax.tree.map(lambda array: tiles(array, size), best)
  every = row_tiles(rows, row_tile()), tiles(penalty, row_tile(), fill=jnp.inf)
  found = jax.lax.scan(one_row_tile, best_tiles, every)[0]
  return jax.tree.map(lambda array: untiled(array, len(query.number)), found)


def with_tile(
  best: Nearest,
  products: Float[Array, "q n"],
  penalty: Float[Array, "n"],
  row: Int[Array, "n"],
) -> Nearest:
  """The best so far with those of a tile, of equals the lower row: one of every query a turn, until no query gains.

  Args:
    products: the scores are these less the penalty of their column; a multiple of 64 columns.
    penalty: infinite where a column is padding.
    row: number of each column, one more each; -1 where it is padding.
  """
  queries, columns = products.shape
  grouped = products.reshape(queries, columns // GROUP, GROUP)
  penalties, rows = penalty.reshape(-1, GROUP), row.reshape(-1, GROUP)
  maximum = (grouped - penalties).max(-1)
  place = jnp.arange(GROUP)

  def gaining(carry: tuple[Nearest, _Left]) -> Bool[Array, ""]:
    best, left = carry
    last, last_row = best.score[:, -1:], best.row[:, -1:]
    # An equal counts where its row may be lower, as in blocks that come out of order.
    lower = rows[:, 0] + left.first < last_row
    return ((left.maximum > last) | ((left.maximum == last) & lower)).any()

  def take_one(carry: tuple[Nearest, _Left]) -> tuple[Nearest, _Left]:
    best, left = carry
    group = left.maximum.argmax(-1)
    value, first = (jnp.take_along_axis(part, group[:, None], 1) for part in left)
    members = jnp.take_along_axis(grouped, group[:, None, None], 1)[:, 0] - penalties[group]
    taken = jnp.where((members == value) & (place >= first), place, GROUP).min(-1, keepdims=True)
    later = (members < value) | ((members == value) & (place > taken))
    following = jnp.where(later, members, -jnp.inf).max(-1, keepdims=True)
    here = jnp.arange(columns // GROUP) == group[:, None]
    left = _Left(
      jnp.where(here, following, left.maximum),
      jnp.where(here, jnp.where(following == value, taken + 1, 0), left.first),
    )
    return _inserted(best, value, jnp.take_along_axis(rows[group], taken, 1)), left

  left = _Left(maximum, jnp.zeros_like(maximum, jnp.int32))
  return jax.lax.while_loop(gaining, take_one, (best, left))[0]


def _inserted(best: Nearest, score: Float[Array, "q 1"], row: Int[Array, "q 1"]) -> Nearest:
  """One more candidate a query at its place; the last one drops out, which may be itself."""
  before = (best.score > score) | ((best.score == score) & (best.row < row))
  at = before.sum(-1, keepdims=True)
  place = jnp.arange(best.row.shape[1])

  def placed(list_: Array, one: Array) -> Array:
    return jnp.where(place < at, list_, jnp.where(place == at, one, jnp.roll(list_, 1, axis=1)))

  return Nearest(placed(best.score, score), placed(best.row, row))
