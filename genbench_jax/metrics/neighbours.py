"""The nearest rows of one set to each row of another, exact, without the matrix between them.

Both sets are split over the devices. Each device keeps its queries and the best it has seen; the blocks of the
other set travel round the ring of devices. In memory stands one tile of similarities a device.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from genbench_jax.metrics.inputs import BLOCK_ROWS, HIGHEST, fetch, or_default, place, unit_rows
from genbench_jax.parallel.mesh import DATA_AXIS, batch_sharding

State = TypeVar("State")
Block = TypeVar("Block")
Similarity = Literal["cosine", "euclidean"]
QUERY_TILE = 512
BASE_TILE = 4096
GROUP = 64


class Nearest(NamedTuple):
  """The k best of each query so far, best first: similarity, and row in the other set (-1: none)."""

  similarity: Float[Any, "q k"]
  row: Int[Any, "q k"]


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
    k: at most the rows of `base` (less one with `skip_self`).
    similarity: `cosine`, or `euclidean`: minus the squared distance.
    skip_self: the sets are the same, and a row is not its own neighbour.
  """
  mesh = or_default(mesh)
  search = _search_program(mesh, similarity, skip_self)
  found = []
  for query_start in range(0, len(queries), BLOCK_ROWS):
    query_rows = queries[query_start : query_start + BLOCK_ROWS]
    query, _ = place("features", mesh, query_rows)
    best = _nothing_yet(mesh, len(query), k)
    for base_start in range(0, len(base), BLOCK_ROWS):
      block, mask = place("features", mesh, base[base_start : base_start + BLOCK_ROWS])
      best = search(best, query, block, mask, np.array([query_start, base_start], np.int32))
    found.append([part[: len(query_rows)] for part in fetch(mesh, best)])
  similarities, rows = zip(*found, strict=True)
  return np.concatenate(similarities), np.concatenate(rows)


def _nothing_yet(mesh: Mesh, queries: int, k: int) -> Nearest:
  similarity = np.full((queries, k), -np.inf, np.float32)
  row = np.full((queries, k), -1, np.int32)
  return jax.device_put(Nearest(similarity, row), batch_sharding(mesh))


@functools.cache
def _search_program(mesh: Mesh, similarity: Similarity, skip_self: bool) -> jax.stages.Wrapped:
  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()

  def local(
    best: Nearest,
    query: Float[Array, "q d"],
    base: Float[Array, "n d"],
    mask: Bool[Array, "n"],
    first: Int[Array, "2"],
  ) -> Nearest:
    device = jax.lax.axis_index(DATA_AXIS)
    query_row = first[0] + device * len(query) + jnp.arange(len(query))
    base_row = first[1] + device * len(base) + jnp.arange(len(base))
    if similarity == "cosine":
      query, base = unit_rows(query), unit_rows(base)

    def visit(best: Nearest, block: tuple[Float[Array, "n d"], Int[Array, "n"]]) -> Nearest:
      return search_block(best, query, query_row if skip_self else None, *block, similarity)

    return ring(visit, best, (base, jnp.where(mask, base_row, -1)), mesh.size)

  specs = (rows, rows, rows, rows, whole)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows), donate_argnums=0)


def ring(visit: Callable[[State, Block], State], state: State, block: Block, devices: int) -> State:
  """Inside shard_map: lets every device's block visit every device, and folds it into the state there."""
  if devices == 1:
    return visit(state, block)
  following = [(device, (device + 1) % devices) for device in range(devices)]

  def step(_: int, carry: tuple[State, Block]) -> tuple[State, Block]:
    state, block = carry
    state = visit(state, block)
    return state, jax.lax.ppermute(block, DATA_AXIS, following)

  return jax.lax.fori_loop(0, devices, step, (state, block))[0]


def tiles(array: Shaped[Array, "n ..."], rows: int, fill: int = 0) -> Shaped[Array, "t r ..."]:
  """The rows in tiles of at most `rows`; `fill` stands in what is missing of the last tile."""
  rows = min(rows, len(array))
  missing = -len(array) % rows
  padding = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
  padded = jnp.pad(array, padding, constant_values=fill) if missing else array
  return padded.reshape(-1, rows, *array.shape[1:])


def search_block(
  best: Nearest,
  query: Float[Array, "q d"],
  query_row: Int[Array, "q"] | None,
  base: Float[Array, "n d"],
  base_row: Int[Array, "n"],
  similarity: Similarity,
) -> Nearest:
  """The best so far, and what is better in this block, tile by tile. A row number of -1 is padding."""
  own = jnp.full(len(query), -2) if query_row is None else query_row
  base_tiles = (tiles(base, BASE_TILE), tiles(base_row, BASE_TILE, fill=-1))

  def one_query_tile(tile: tuple[Nearest, Float[Array, "t d"], Int[Array, "t"]]) -> Nearest:
    best, query, own = tile

    def one_base_tile(
      best: Nearest, tile: tuple[Float[Array, "m d"], Int[Array, "m"]]
    ) -> tuple[Nearest, None]:
      base, base_row = tile
      values = similarities(query, base, similarity)
      real = (base_row >= 0) & (base_row != own[:, None])
      values = jnp.where(real, values, -jnp.inf)
      return better_of(best, *best_in_tile(values, base_row, best.row.shape[1])), None

    return jax.lax.scan(one_base_tile, best, base_tiles)[0]

  split = jax.tree.map(lambda array: tiles(array, QUERY_TILE), (best, query, own))
  found = jax.lax.map(one_query_tile, split)
  return jax.tree.map(lambda array: array.reshape(-1, array.shape[-1])[: len(query)], found)


def similarities(
  query: Float[Array, "t d"], base: Float[Array, "m d"], similarity: Similarity
) -> Float[Array, "t m"]:
  """Inner products, or minus the squared distances."""
  products = jnp.matmul(query, base.T, precision=HIGHEST)
  if similarity == "cosine":
    return products
  squares = jnp.sum(query**2, 1)[:, None] + jnp.sum(base**2, 1)
  return jnp.minimum(2 * products - squares, 0)


def best_in_tile(
  values: Float[Array, "t m"], base_row: Int[Array, "m"], k: int
) -> tuple[Float[Array, "t j"], Int[Array, "t j"]]:
  """The k best of a tile. They lie in the k groups of columns with the highest maxima: one cheap pass over all
  values, and a search in a few of them. Of equals the earlier column is taken."""
  queries, columns = values.shape
  if columns % GROUP or columns <= 2 * k * GROUP:
    found, at = jax.lax.top_k(values, min(k, columns))
    return found, base_row[at]
  grouped = values.reshape(queries, columns // GROUP, GROUP)
  _, groups = jax.lax.top_k(grouped.max(-1), k)
  groups = jnp.sort(groups, axis=-1)
  candidates = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(queries, -1)
  found, at = jax.lax.top_k(candidates, k)
  column = jnp.take_along_axis(groups, at // GROUP, axis=1) * GROUP + at % GROUP
  return found, base_row[column]


def better_of(best: Nearest, values: Float[Array, "t j"], rows: Int[Array, "t j"]) -> Nearest:
  """The k best of both, best first; of equals the lower row, so that the order of arrival does not matter."""
  k = best.row.shape[1]
  every = jnp.concatenate([-best.similarity, -values], 1), jnp.concatenate([best.row, rows], 1)
  negative, row = jax.lax.sort(every, num_keys=2)
  return Nearest(-negative[:, :k], jnp.where(jnp.isinf(negative[:, :k]), -1, row[:, :k]))
