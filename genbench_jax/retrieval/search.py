"""Exact top-k inner products over more rows than a device holds: blocks stream through the mesh.

A block's rows are split over the devices. Each device goes through its rows tile by tile and keeps the best it has seen of
every query; the devices' lists are merged once, at the end.
"""

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import fetch
from genbench_jax.metrics.ring import Rows
from genbench_jax.metrics.top_k import Nearest, row_tile, search_rows, with_tile
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding, pad_rows, padded_size, replicated

QUERIES = 128  # multiple to pad to: few programs, and products that don't depend on how many ask
# Squared lengths of unit-norm rows in half precision are off by 1e-3 at most; zero rows stand for "no caption".
UNIT_NORM_SLACK = 0.02
Item = TypeVar("Item")


class NotUnitNormError(ValueError):
  """A block holds rows that are not of unit norm."""


def best_rows(
  queries: Float[np.ndarray, "q d"],
  blocks: Iterable[Float[np.ndarray, "n d"]],
  k: int,
  mesh: Mesh,
  recall_target: float = 1.0,
  check_unit_norm: bool = False,
) -> Nearest:
  """The k rows of the largest inner products with each query, over all blocks; of equals the lower row.

  The result doesn't depend on how the rows are cut into blocks, nor on the number of devices. The next block is read and
  sent while one computes.

  Args:
    queries: float32, finite.
    blocks: float16 or float32 rows, in order.
    k: rows a query; where there are fewer in all, minus infinity and row -1 stand for the rest.
    recall_target: below 1, TPUs search each tile with `approx_max_k` at this expected recall; CPU and GPU stay exact.
    check_unit_norm: whether rows that are neither of unit norm nor zero are refused.

  Raises:
    FloatingPointError: a block holds NaN or infinity; says from which row on.
    NotUnitNormError: a block holds rows of another length, where that is checked.
  """
  padded = padded_size(len(queries), QUERIES)
  numbered = pad_rows(queries, padded), _numbered(0, len(queries), padded)
  query = Rows(*jax.device_put(numbered, replicated(mesh)))
  best = jax.device_put(Nearest.nothing(mesh.size, padded, k), batch_sharding(mesh))
  search, checks = _search_program(mesh, recall_target), []
  for start, block in _ahead(_placed(blocks, mesh)):
    best, is_finite, is_unit = search(best, query, block)
    checks.append((start, is_finite, is_unit))
  for start, is_finite, _ in checks:  # looked at in the end: a look waits for the device
    if not bool(is_finite):
      raise FloatingPointError(f"rows from {start} on hold NaN or infinity")
  for start, _, is_unit in checks:
    if check_unit_norm and not bool(is_unit):
      raise NotUnitNormError(f"rows from {start} on are not of unit norm")
  merged = _merge_program(mesh)(best)
  return Nearest(*(part[: len(queries)] for part in fetch(mesh, merged)))


def _placed(blocks: Iterable[Float[np.ndarray, "n d"]], mesh: Mesh) -> Iterator[tuple[int, Rows]]:
  """Each block on the mesh, padded to whole tiles on every device, and its first row."""
  start, multiple = 0, mesh.size * row_tile()
  for block in blocks:
    padded = padded_size(len(block), multiple)
    features = block if len(block) == padded else pad_rows(block, padded)
    numbered = features, _numbered(start, len(block), padded)
    yield start, Rows(*jax.device_put(numbered, batch_sharding(mesh)))
    start += len(block)


def _numbered(start: int, rows: int, padded: int) -> Int[np.ndarray, "padded"]:
  """Row numbers from `start`, and -1 for what is padding."""
  number = np.full(padded, -1, np.int32)
  number[:rows] = np.arange(start, start + rows)
  return number


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
  """The same items, each made on a thread while the one before is used."""
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
  ) -> tuple[Nearest, Bool[Array, ""], Bool[Array, ""]]:
    own = jax.tree.map(lambda part: part[0], best)
    found = search_rows(own, query, rows, jnp.zeros(len(rows.number)), update)
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
  """The best so far with those of a tile, found by the TPU's approximate top-k."""
  count = min(best.row.shape[1], len(row))
  score, at = jax.lax.approx_max_k(products - penalty, count, recall_target=recall_target)
  return best.merge(Nearest(score, row[at]))


@functools.cache
def _merge_program(mesh: Mesh) -> jax.stages.Wrapped:
  """The best of all devices [q, k]."""

  def merge(best: Nearest) -> Nearest:
    devices, queries, k = best.row.shape
    joined = jax.tree.map(lambda part: jnp.moveaxis(part, 0, 1).reshape(queries, devices * k), best)
    return joined.first(k)

  return jax.jit(merge, out_shardings=replicated(mesh))
