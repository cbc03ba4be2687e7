"""Exact top-k inner products over more rows than fit on a device: blocks stream through the mesh.

The rows of a block are split over the devices. Each device processes its rows tile by tile and
keeps the best so far for every query. The devices' lists are merged once, at the end.
"""

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from genbench_jax.metrics.inputs import fetch
from genbench_jax.metrics.ring import Rows
from genbench_jax.metrics.top_k import Nearest, row_tile, search_rows, with_tile
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding, pad_rows, padded_size, replicated

QUERIES = 128  # pad to a multiple of this: few programs, and products that do not depend on the number of queries
# Rounding to half precision changes the squared length of a unit-norm row by at most 1e-3. Zero
# rows mean "no caption".
UNIT_NORM_SLACK = 0.02
Item = TypeVar("Item")


class NotUnitNormError(ValueError):
  """Raised for a block with rows that do not have unit norm."""


def best_rows(
  queries: Float[np.ndarray, "q d"],
  blocks: Iterable[Float[np.ndarray, "n d"]],
  k: int,
  mesh: Mesh,
  recall_target: float = 1.0,
  check_unit_norm: bool = False,
) -> Nearest:
  """Find the k rows with the largest inner products with each query, over all blocks.

  Ties go to the lower row. The result depends neither on the division into blocks nor on the number
  of devices. The next block is read and transferred while one is searched.

  Args:
    queries: float32, finite.
    blocks: float16 or float32 rows, in order.
    k: rows per query. If there are fewer in total, the rest is filled with minus infinity and row
      -1.
    mesh: devices to search on.
    recall_target: below 1, TPUs search each tile with `approx_max_k` at this expected recall; CPUs
      and GPUs stay exact.
    check_unit_norm: whether to reject rows that are neither zero nor of unit norm.

  Raises:
    FloatingPointError: a block holds NaN or infinity; the message names its first row.
    NotUnitNormError: a block holds rows of another length, if this is checked.
  """
  padded = padded_size(len(queries), QUERIES)
  numbered = pad_rows(queries, padded), _numbered(0, len(queries), padded)
  # Queries are replicated and rows are sharded, so the search itself needs no communication.
  query = Rows(*jax.device_put(numbered, replicated(mesh)))
  best = jax.device_put(Nearest.nothing(mesh.size, padded, k), batch_sharding(mesh))
  search, checks = _search_program(mesh, recall_target), []
  for start, block in _ahead(_placed(blocks, mesh)):
    best, is_finite, is_unit = search(best, query, block)
    checks.append((start, is_finite, is_unit))
  for start, is_finite, _ in checks:  # only now: reading a result waits for the device
    if not bool(is_finite):
      raise FloatingPointError(f"rows from {start} on hold NaN or infinity")
  for start, _, is_unit in checks:
    if check_unit_norm and not bool(is_unit):
      raise NotUnitNormError(f"rows from {start} on are not of unit norm")
  merged = _merge_program(mesh)(best)
  return Nearest(*(part[: len(queries)] for part in fetch(mesh, merged)))


def _placed(blocks: Iterable[Float[np.ndarray, "n d"]], mesh: Mesh) -> Iterator[tuple[int, Rows]]:
  """Yield each block on the mesh, padded to whole tiles per device, with its first row number."""
  start, multiple = 0, mesh.size * row_tile()
  for block in blocks:
    padded = padded_size(len(block), multiple)
    features = block if len(block) == padded else pad_rows(block, padded)
    numbered = features, _numbered(start, len(block), padded)
    yield start, Rows(*jax.device_put(numbered, batch_sharding(mesh)))
    start += len(block)


def _numbered(start: int, rows: int, padded: int) -> Int[np.ndarray, "padded"]:
  """Return row numbers from `start`, and -1 for padding."""
  number = np.full(padded, -1, np.int32)
  number[:rows] = np.arange(start, start + rows)
  return number


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
  """Yield the same items; each is produced on a thread while the previous one is in use."""
  iterator = iter(items)
  with ThreadPoolExecutor(1) as pool:
    following = pool.submit(next, iterator, None)
    while (item := following.result()) is not None:
      following = pool.submit(next, iterator, None)
      yield item


@functools.cache
def _search_program(mesh: Mesh, recall_target: float) -> jax.stages.Wrapped:
  update = with_tile if recall_target == 1 else functools.partial(_approximately, recall_target)

  def local(
    best: Nearest, query: Rows, rows: Rows
  ) -> tuple[Nearest, Int[Array, ""], Int[Array, ""]]:
    own = jax.tree.map(lambda part: part[0], best)
    found = search_rows(own, query, rows, jnp.zeros(len(rows.number)), update)
    # Checks run on the device in the same pass; their results are read at the end.
    squared = jnp.square(rows.features.astype(jnp.float32)).sum(axis=1)
    unit = (jnp.abs(squared - 1) <= UNIT_NORM_SLACK) | (squared == 0)
    finite, unit = (
      jax.lax.pmin(found.all().astype(jnp.int32), DATA_AXIS)
      for found in (jnp.isfinite(rows.features), unit)
    )
    return jax.tree.map(lambda part: part[None], found), finite, unit

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  program = jax.shard_map(
    local, mesh=mesh, in_specs=(rows, whole, rows), out_specs=(rows, whole, whole), check_vma=False
  )
  return jax.jit(program, donate_argnums=0)


def _approximately(
  recall_target: float,
  best: Nearest,
  products: Float[Array, "q n"],
  penalty: Float[Array, "n"],
  row: Int[Array, "n"],
) -> Nearest:
  """Update the best rows with one tile, using the TPU's approximate top-k."""
  count = min(best.row.shape[1], len(row))
  score, at = jax.lax.approx_max_k(products - penalty, count, recall_target=recall_target)
  return best.merge(Nearest(score, row[at]))


@functools.cache
def _merge_program(mesh: Mesh) -> jax.stages.Wrapped:
  """Return a program that merges the lists of all devices into [q, k]."""

  def merge(best: Nearest) -> Nearest:
    devices, queries, k = best.row.shape
    # [p, q, k] -> [q, p k] for p devices.
    joined = jax.tree.map(lambda part: jnp.moveaxis(part, 0, 1).reshape(queries, devices * k), best)
    return joined.first(k)

  return jax.jit(merge, out_shardings=replicated(mesh))
