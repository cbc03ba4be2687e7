"""The k best rows for each query, exact, over rows that arrive tile by tile.

Only scores that beat the current k-th best are inserted. After the first tiles there are very few
of them, so that the cost is that of the matrix product.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import HIGHEST
from genbench_jax.metrics.ring import Rows, row_tiles, tiles, untiled

# Tile sizes. On CPU the product of two tiles stays in the cache; accelerators want larger tiles.
QUERY_TILE = 512
CPU_ROW_TILE, ACCELERATOR_ROW_TILE = 2048, 16_384
# Columns per group: each insertion rescans one group instead of the whole tile.
GROUP = 64


class Nearest(NamedTuple):
  """Mergeable state: the k best rows of each query, best first: score and row (-1: none)."""

  score: Float[Any, "*m q k"]
  row: Int[Any, "*m q k"]

  @classmethod
  def nothing(cls, *shape: int) -> "Nearest":
    """Return the empty state, as host arrays."""
    return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))

  def merge(self, other: "Nearest") -> "Nearest":
    """Return the k best of both; ties go to the lower row, whatever the order of merging."""
    both = Nearest(*(jnp.concatenate(pair, -1) for pair in zip(self, other, strict=True)))
    return both.first(self.row.shape[-1])

  def first(self, k: int) -> "Nearest":
    """Return the k best of longer, unsorted lists."""
    negative, row = jax.lax.sort((-self.score, self.row), num_keys=2)
    return Nearest(-negative[..., :k], jnp.where(jnp.isinf(negative[..., :k]), -1, row[..., :k]))


Update = Callable[
  [Nearest, Float[Array, "q n"], Float[Array, "n"], Int[Array, "n"]],
  Nearest,
]


class _Left(NamedTuple):
  """Candidates of a tile that have not been taken yet, in groups of neighboring columns.

  Attributes:
    maximum: best remaining score of each group.
    first: within each group, the first column at which a score equal to `maximum` still counts;
      earlier ones are taken.
  """

  maximum: Float[Array, "q g"]
  first: Int[Array, "q g"]


def row_tile() -> int:
  """Return the number of rows per tile for the default device."""
  return CPU_ROW_TILE if jax.default_backend() == "cpu" else ACCELERATOR_ROW_TILE


def search_rows(
  best: Nearest,
  query: Rows,
  rows: Rows,
  penalty: Float[Array, "n"],
  update: Update | None = None,
) -> Nearest:
  """Update the best rows with more rows, scored by inner product minus penalty.

  Args:
    best: state so far.
    query: queries.
    rows: rows to search. Numbers increase by one; padding comes last.
    penalty: subtracted from the score of each row.
    update: processes one tile; the default is exact.
  """
  update = update or with_tile
  # Whole groups only; padding has an infinite penalty, so it never wins.
  missing = -len(rows.number) % GROUP
  rows = Rows(
    jnp.pad(rows.features, ((0, missing), (0, 0))),
    jnp.pad(rows.number, (0, missing), constant_values=-1),
  )
  penalty = jnp.where(rows.number >= 0, jnp.pad(penalty, (0, missing)), jnp.inf)

  def search_row_tile(best: Nearest, tile: tuple[Rows, Array]) -> tuple[Nearest, None]:
    rows, penalty = tile
    columns = rows.features.astype(jnp.float32).T

    def search_query_tile(part: tuple[Nearest, Rows]) -> Nearest:
      best, query = part

      def found(best: Nearest) -> Nearest:
        products = jnp.matmul(query.features, columns, precision=HIGHEST)
        return update(best, products, penalty, rows.number)

      # Padding comes last, so a tile that begins with padding holds nothing else.
      has_rows = (query.number[0] >= 0) & (rows.number[0] >= 0)
      return jax.lax.cond(has_rows, found, lambda best: best, best)

    return jax.lax.map(search_query_tile, (best, query_tiles)), None

  # Query tiles of equal size, so that the last one is not mostly padding.
  size = -(-len(query.number) // -(-len(query.number) // QUERY_TILE))
  query_tiles = row_tiles(query, size)
  best_tiles = jax.tree.map(lambda array: tiles(array, size), best)
  every = row_tiles(rows, row_tile()), tiles(penalty, row_tile(), fill=jnp.inf)
  found = jax.lax.scan(search_row_tile, best_tiles, every)[0]
  return jax.tree.map(lambda array: untiled(array, len(query.number)), found)


def with_tile(
  best: Nearest,
  products: Float[Array, "q n"],
  penalty: Float[Array, "n"],
  row: Int[Array, "n"],
) -> Nearest:
  """Update the best rows with one tile: insert one candidate per query and turn.

  Args:
    best: state so far; ties go to the lower row.
    products: [q, n]; the scores are these minus the penalty. n is a multiple of 64.
    penalty: [n]; infinite for padding.
    row: [n], consecutive row numbers; -1 for padding.
  """
  queries, columns = products.shape
  grouped = products.reshape(queries, columns // GROUP, GROUP)
  penalties, rows = penalty.reshape(-1, GROUP), row.reshape(-1, GROUP)
  maximum = (grouped - penalties).max(-1)
  place = jnp.arange(GROUP)

  def gaining(carry: tuple[Nearest, _Left]) -> Bool[Array, ""]:
    best, left = carry
    last, last_row = best.score[:, -1:], best.row[:, -1:]
    # A tie can win if its row number is lower, which happens when blocks arrive out of order.
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
  """Insert one candidate per query at its rank; drop the last entry, possibly the candidate."""
  before = (best.score > score) | ((best.score == score) & (best.row < row))
  at = before.sum(-1, keepdims=True)
  place = jnp.arange(best.row.shape[1])

  def placed(ranked: Array, candidate: Array) -> Array:
    shifted = jnp.roll(ranked, 1, axis=1)
    return jnp.where(place < at, ranked, jnp.where(place == at, candidate, shifted))

  return Nearest(placed(best.score, score), placed(best.row, row))
