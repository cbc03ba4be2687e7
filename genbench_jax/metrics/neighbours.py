"""The nearest rows of one set to each row of another, exact, without the matrix between them.

Both sets are split over the devices. Each device keeps its queries and the best it has seen; the blocks of the
other set travel round the ring of devices. In memory stands one tile of similarities a device.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from genbench_jax.metrics.inputs import BLOCK_ROWS, fetch, or_default, unit_rows
from genbench_jax.metrics.ring import (
  COLUMN_TILE,
  ROW_TILE,
  Rows,
  placed_rows,
  products,
  ring,
  row_tiles,
  squared_distances,
  tiles,
  untiled,
)
from genbench_jax.parallel.mesh import DATA_AXIS, batch_sharding

Similarity = Literal["cosine", "euclidean"]
GROUP = 64


class Nearest(NamedTuple):
  """State: the k best of each query so far, best first: similarity, and row in the other set (-1: none)."""

  similarity: Float[Any, "q k"]
  row: Int[Any, "q k"]

  def merge(self, other: "Nearest") -> "Nearest":
    """The k best of both; of equals the lower row, so that the order of arrival does not matter."""
    k = self.row.shape[1]
    every = (
      jnp.concatenate([-self.similarity, -other.similarity], 1),
      jnp.concatenate([self.row, other.row], 1),
    )
    negative, row = jax.lax.sort(every, num_keys=2)
    return Nearest(-negative[:, :k], jnp.where(jnp.isinf(negative[:, :k]), -1, row[:, :k]))


def nearest(
  queries: Float[Any, "q d"],
  base: Float[Any, "n d"],
  k: int,
  similarity: Similarity = "cosine",
  skip_self: bool = False,
  mesh: Mesh | None = None,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """The k rows of `base` nearest to each query: similarities and row numbers, best first.

  Args:
    queries, base: checked features, not normalised.
    k: neighbours; where there are fewer, minus infinity and row -1 stand for the rest.
    similarity: `cosine`, or `euclidean`: minus the squared distance.
    skip_self: the sets are the same, and a row is not its own neighbour.
  """
  mesh = or_default(mesh)
  search = _search_program(mesh, similarity, skip_self)
  found = []
  for query_start in range(0, len(queries), BLOCK_ROWS):
    query = placed_rows(queries, query_start, mesh)
    best = _nothing_yet(mesh, len(query.number), k)
    for base_start in range(0, len(base), BLOCK_ROWS):
      best = search(best, query, placed_rows(base, base_start, mesh))
    rows = min(BLOCK_ROWS, len(queries) - query_start)
    found.append([part[:rows] for part in fetch(mesh, best)])
  similarities, rows_found = zip(*found, strict=True)
  return np.concatenate(similarities), np.concatenate(rows_found)


def _nothing_yet(mesh: Mesh, queries: int, k: int) -> Nearest:
  similarity = np.full((queries, k), -np.inf, np.float32)
  row = np.full((queries, k), -1, np.int32)
  return jax.device_put(Nearest(similarity, row), batch_sharding(mesh))


@functools.cache
def _search_program(mesh: Mesh, similarity: Similarity, skip_self: bool) -> jax.stages.Wrapped:
  def local(best: Nearest, query: Rows, base: Rows) -> Nearest:
    if similarity == "cosine":
      query, base = (rows._replace(features=unit_rows(rows.features)) for rows in (query, base))

    def visit(best: Nearest, base: Rows) -> tuple[Nearest, Rows]:
      return search_block(best, query, base, similarity, skip_self), base

    return ring(visit, best, base, mesh.size)[0]

  rows = PartitionSpec(DATA_AXIS)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows), donate_argnums=0)


def search_block(
  best: Nearest, query: Rows, base: Rows, similarity: Similarity, skip_self: bool
) -> Nearest:
  """The best so far, and what is better in this block, tile by tile."""
  base_tiles = row_tiles(base, COLUMN_TILE)

  def one_query_tile(tile: tuple[Nearest, Rows]) -> Nearest:
    best, query = tile

    def one_base_tile(best: Nearest, base: Rows) -> tuple[Nearest, None]:
      # Padding comes last: a tile that begins with it holds nothing else.
      some = (query.number[0] >= 0) & (base.number[0] >= 0)
      return jax.lax.cond(some, better, lambda best, _: best, best, base), None

    def better(best: Nearest, base: Rows) -> Nearest:
      values = similarities(query.features, base.features, similarity)
      allowed = base.number >= 0
      if skip_self:
        allowed = allowed & (base.number != query.number[:, None])
      values = jnp.where(allowed, values, -jnp.inf)
      return best.merge(best_in_tile(values, base.number, best.row.shape[1]))

    return jax.lax.scan(one_base_tile, best, base_tiles)[0]

  best_tiles = jax.tree.map(lambda array: tiles(array, ROW_TILE), best)
  found = jax.lax.map(one_query_tile, (best_tiles, row_tiles(query, ROW_TILE)))
  return jax.tree.map(lambda array: untiled(array, len(query.number)), found)


def similarities(
  query: Float[Array, "t d"], base: Float[Array, "m d"], similarity: Similarity
) -> Float[Array, "t m"]:
  """Inner products, or minus the squared distances."""
  return products(query, base) if similarity == "cosine" else -squared_distances(query, base)


def best_in_tile(values: Float[Array, "t m"], base_row: Int[Array, "m"], k: int) -> Nearest:
  """The k best of a tile. They lie in the k groups of columns with the highest maxima: one cheap pass over all
  values, and a search in a few of them. Of equals the earlier column is taken."""
  queries, columns = values.shape
  if columns % GROUP or columns <= 2 * k * GROUP:
    found, at = jax.lax.top_k(values, min(k, columns))
    return Nearest(found, base_row[at])
  grouped = values.reshape(queries, columns // GROUP, GROUP)
  _, groups = jax.lax.top_k(grouped.max(-1), k)
  groups = jnp.sort(groups, axis=-1)
  candidates = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(queries, -1)
  found, at = jax.lax.top_k(candidates, k)
  column = jnp.take_along_axis(groups, at // GROUP, axis=1) * GROUP + at % GROUP
  return Nearest(found, base_row[column])
