"""Exact top-k inner products over more rows than a device holds: blocks stream through the mesh.

A block's rows are split over the devices. Each device goes through its rows tile by tile and keeps the best it has seen of
every query; the devices' lists are merged once, at the end. Of a tile only what beats the k-th best so far is looked at:
after the first tiles that is next to nothing, and the cost is that of the matrix product.
"""

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import HIGHEST, fetch
from genbench_jax.metrics.ring import tiles, untiled
from genbench_jax.parallel.mesh import DATA_AXIS, batch_sharding, pad_rows, padded_size, replicated

# Rows that meet the queries at once. On CPU the products of a tile stay in the cache; accelerators want larger ones.
CPU_TILE, ACCELERATOR_TILE = 2048, 16_384
FEW_QUERIES, QUERY_TILE = 128, 512
GROUP = 64
Item = TypeVar("Item")


class Best(NamedTuple):
  """The k best of each query so far, best first: inner product, and row in the pool (-1: none)."""

  score: Float[Any, "q k"]
  row: Int[Any, "q k"]


class Block(NamedTuple):
  """Rows on the mesh, with their numbers in the pool; -1 is padding and stands behind all others."""

  features: Float[Any, "n d"]
  row: Int[Any, "n"]


class _Tile(NamedTuple):
  """The products of a tile in groups of neighbouring columns, and what of them is still to be looked at.

  Attributes:
    maximum: the best of each group that has not been taken.
    first: the column of its group from which on values equal to `maximum` count; earlier ones were taken.
  """

  maximum: Float[Array, "q g"]
  first: Int[Array, "q g"]


def best_rows(
  queries: Float[np.ndarray, "q d"],
  blocks: Iterable[Float[np.ndarray, "n d"]],
  k: int,
  mesh: Mesh,
  recall_target: float = 1.0,
) -> Best:
  """The k rows of the largest inner products with each query, over all blocks; of equals the lower row.

  The result doesn't depend on how the rows are cut into blocks, nor on the number of devices. The next block is read and
  sent while one computes.

  Args:
    queries: float32, finite.
    blocks: float16 or float32 rows, in order.
    k: rows a query; where there are fewer in all, minus infinity and row -1 stand for the rest.
    recall_target: below 1, TPUs search each tile with `approx_max_k` at this expected recall; CPU and GPU stay exact.

  Raises:
    FloatingPointError: a block holds NaN or infinity; says from which row on.
  """
  size = _query_tile(len(queries))
  query = jax.device_put(pad_rows(queries, padded_size(len(queries), size)), replicated(mesh))
  best = _nothing_yet(mesh, len(query), k)
  search, finite, starts = _search_program(mesh, size, recall_target), [], []
  for start, block in _ahead(_placed(blocks, mesh)):
    best, is_finite = search(best, query, block)
    finite.append(is_finite)
    starts.append(start)
  for start, is_finite in zip(starts, finite, strict=True):
    if not bool(is_finite):
      raise FloatingPointError(f"rows from {start} on hold NaN or infinity")
  merged = _merge_program(mesh)(best)
  return Best(*(part[: len(queries)] for part in fetch(mesh, merged)))


def _query_tile(queries: int) -> int:
  """Queries that meet a tile at once: evenly cut, and the same whatever the pool."""
  if queries <= FEW_QUERIES:
    return FEW_QUERIES
  return padded_size(-(-queries // -(-queries // QUERY_TILE)), 8)


def _row_tile() -> int:
  return CPU_TILE if jax.default_backend() == "cpu" else ACCELERATOR_TILE


def _placed(blocks: Iterable[Float[np.ndarray, "n d"]], mesh: Mesh) -> Iterator[tuple[int, Block]]:
  """Each block on the mesh, padded to whole tiles on every device, and its first row."""
  start, multiple = 0, mesh.size * _row_tile()
  for block in blocks:
    row = np.full(padded_size(len(block), multiple), -1, np.int32)
    row[: len(block)] = np.arange(start, start + len(block))
    placed = Block(block if len(block) == len(row) else pad_rows(block, len(row)), row)
    yield start, jax.device_put(placed, batch_sharding(mesh))
    start += len(block)


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
  """The same items, each made on a thread while the one before is used."""
  iterator = iter(items)
  with ThreadPoolExecutor(1) as pool:
    following = pool.submit(next, iterator, None)
    while (item := following.result()) is not None:
      following = pool.submit(next, iterator, None)
      yield item


def _nothing_yet(mesh: Mesh, queries: int, k: int) -> Best:
  """For each device [devices, q, k]."""
  shape = (mesh.size, queries, k)
  best = Best(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))
  return jax.device_put(best, batch_sharding(mesh))


@functools.cache
def _search_program(mesh: Mesh, query_tile: int, recall_target: float) -> jax.stages.Wrapped:
  row_tile = _row_tile()

  def local(best: Best, query: Float[Array, "q d"], block: Block) -> tuple[Best, Bool[Array, ""]]:
    queries = tiles(query, query_tile)

    def one_tile(best: Best, tile: Block) -> tuple[Best, None]:
      columns = tile.features.astype(jnp.float32).T

      def one_query_tile(part: tuple[Best, Float[Array, "t d"]]) -> Best:
        best, query = part
        values = jnp.matmul(query, columns, precision=HIGHEST)
        if recall_target < 1:
          return _better_approximately(best, values, tile.row, recall_target)
        return _better(best, values, tile.row)

      return jax.lax.map(one_query_tile, (best, queries)), None

    best_tiles = jax.tree.map(lambda array: tiles(array[0], query_tile), best)
    block_tiles = jax.tree.map(lambda array: tiles(array, row_tile), block)
    found = jax.lax.scan(one_tile, best_tiles, block_tiles)[0]
    finite = jax.lax.pmin(jnp.isfinite(block.features).all().astype(jnp.int32), DATA_AXIS)
    return jax.tree.map(lambda array: untiled(array, len(query))[None], found), finite

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  program = jax.shard_map(
    local, mesh=mesh, in_specs=(rows, whole, rows), out_specs=(rows, whole), check_vma=False
  )
  return jax.jit(program, donate_argnums=0)


def _better(best: Best, values: Float[Array, "q c"], row: Int[Array, "c"]) -> Best:
  """The best so far with what is better in a tile, one value of every query a turn, until nothing is.

  Columns stand in the order of their rows, behind all rows seen before: a later equal never displaces.
  """
  queries, columns = values.shape
  grouped = values.reshape(queries, columns // GROUP, GROUP)
  real = (row >= 0).reshape(-1, GROUP)
  state = _Tile(jnp.where(real, grouped, -jnp.inf).max(-1), jnp.zeros(grouped.shape[:2], jnp.int32))

  def unfinished(carry: tuple[Best, _Tile]) -> Bool[Array, ""]:
    best, state = carry
    return (state.maximum.max(-1) > best.score[:, -1]).any()

  def take_one(carry: tuple[Best, _Tile]) -> tuple[Best, _Tile]:
    best, state = carry
    group = state.maximum.argmax(-1)
    value, first = (jnp.take_along_axis(part, group[:, None], 1) for part in state)
    members = jnp.take_along_axis(grouped, group[:, None, None], 1)[:, 0]
    members = jnp.where(real[group], members, -jnp.inf)
    place = jnp.arange(GROUP)
    taken = jnp.where((members == value) & (place >= first), place, GROUP).min(-1, keepdims=True)
    left = (members < value) | ((members == value) & (place > taken))
    following = jnp.where(left, members, -jnp.inf).max(-1, keepdims=True)
    here = jnp.arange(columns // GROUP) == group[:, None]
    state = _Tile(
      jnp.where(here, following, state.maximum),
      jnp.where(here, jnp.where(following == value, taken + 1, 0), state.first),
    )
    return _inserted(best, value, row[group[:, None] * GROUP + taken]), state

  return jax.lax.while_loop(unfinished, take_one, (best, state))[0]


def _inserted(best: Best, score: Float[Array, "q 1"], row: Int[Array, "q 1"]) -> Best:
  """One more candidate a query, behind those that are as good; the last one drops out."""
  at = (best.score >= score).sum(-1, keepdims=True)
  place = jnp.arange(best.row.shape[1])

  def placed(list_: Array, one: Array) -> Array:
    return jnp.where(place < at, list_, jnp.where(place == at, one, jnp.roll(list_, 1, axis=1)))

  return Best(placed(best.score, score), placed(best.row, row))


def _better_approximately(
  best: Best, values: Float[Array, "q c"], row: Int[Array, "c"], recall_target: float
) -> Best:
  """The best so far with the tile's, found by the TPU's approximate top-k."""
  values = jnp.where(row >= 0, values, -jnp.inf)
  count = min(best.row.shape[1], len(row))
  found, at = jax.lax.approx_max_k(values, count, recall_target=recall_target)
  both = Best(*(jnp.concatenate(pair, 1) for pair in zip(best, (found, row[at]), strict=True)))
  return _first(both, best.row.shape[1])


def _first(lists: Best, k: int) -> Best:
  """The k best of longer lists, best first; of equals the lower row."""
  negative, row = jax.lax.sort((-lists.score, lists.row), num_keys=2)
  return Best(-negative[:, :k], jnp.where(jnp.isinf(negative[:, :k]), -1, row[:, :k]))


@functools.cache
def _merge_program(mesh: Mesh) -> jax.stages.Wrapped:
  """The best of all devices [q, k]."""

  def merge(best: Best) -> Best:
    devices, queries, k = best.row.shape
    joined = jax.tree.map(lambda part: jnp.moveaxis(part, 0, 1).reshape(queries, devices * k), best)
    return _first(joined, k)

  return jax.jit(merge, out_shardings=replicated(mesh))
