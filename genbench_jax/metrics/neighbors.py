"""Exact nearest neighbors between two sets, without storing the matrix of similarities.

Both sets are sharded. Each device keeps its queries and their best neighbors so far, while the
blocks of the other set travel round the ring of devices. A device holds one tile of similarities at
a time.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float, Int

from genbench_jax.metrics.inputs import blocks, fetch, or_default, placed_once, unit_rows
from genbench_jax.metrics.ring import Rows, placed_rows, ring
from genbench_jax.metrics.top_k import Nearest, search_rows
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding

Similarity = Literal["cosine", "euclidean"]


def nearest(
  queries: Float[Any, "q d"],
  base: Float[Any, "n d"],
  k: int,
  similarity: Similarity = "cosine",
  skip_self: bool = False,
  mesh: Mesh | None = None,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """Find the k rows of `base` nearest to each query, best first.

  Args:
    queries, base: checked features, not normalized.
    k: number of neighbors. If `base` has fewer rows, the rest is filled with minus infinity and row
      -1.
    similarity: `cosine`, or `euclidean`: minus the squared distance.
    skip_self: the sets are the same; exclude each row from its own neighbors.
    mesh: devices to compute on; None for all.

  Returns:
    Similarities and row numbers, both [q, k].
  """
  mesh = or_default(mesh)
  search, values = _search_program(mesh, similarity), _values_program(mesh, similarity)
  found = []
  of_base = placed_once(lambda cut: placed_rows(base, cut, mesh), len(base))
  for cut in blocks(len(queries)):
    query = placed_rows(queries, cut, mesh)
    nothing = Nearest.nothing(len(query.number), k + skip_self)
    # [q, k], or [q, k + 1] to make room for the row itself.
    best = jax.device_put(nothing, batch_sharding(mesh))
    for rows in of_base():
      best = search(best, query, rows)
    count = cut.stop - cut.start
    found.append([part[:count] for part in fetch(mesh, values(best, query))])
  similarities, numbers = (np.concatenate(parts) for parts in zip(*found, strict=True))
  return _without_self(similarities, numbers) if skip_self else (similarities, numbers)


@functools.cache
def _search_program(mesh: Mesh, similarity: Similarity) -> jax.stages.Wrapped:
  """Return a program that updates the best neighbors with one block of base rows.

  Rows are ranked by q . b, less |b|^2 / 2 for distances. |q|^2 does not change the order and is
  added at the end.
  """

  def local(best: Nearest, query: Rows, base: Rows) -> Nearest:
    if similarity == "cosine":
      query, base = (rows._replace(features=unit_rows(rows.features)) for rows in (query, base))

    def visit(best: Nearest, base: Rows) -> tuple[Nearest, Rows]:
      penalty = jnp.zeros(len(base.number))
      if similarity == "euclidean":
        penalty = jnp.sum(base.features**2, 1) / 2
      return search_rows(best, query, base, penalty), base

    return ring(visit, best, base, mesh.size)[0]

  return _by_rows(mesh, local)


@functools.cache
def _values_program(mesh: Mesh, similarity: Similarity) -> jax.stages.Wrapped:
  """Return a program that turns ranking scores into similarities."""

  def local(best: Nearest, query: Rows) -> Nearest:
    if similarity == "cosine":
      return best
    lengths = jnp.sum(query.features**2, 1, keepdims=True)
    # -|q - b|^2 = 2 (q . b - |b|^2 / 2) - |q|^2. Rounding can make it positive for equal rows.
    return best._replace(score=jnp.minimum(2 * best.score - lengths, 0))

  return _by_rows(mesh, local)


def _by_rows(mesh: Mesh, local: Any) -> jax.stages.Wrapped:
  rows = PartitionSpec(DATA_AXIS)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows), donate_argnums=0)


def _without_self(
  similarities: Float[np.ndarray, "q found"], numbers: Int[np.ndarray, "q found"]
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """Drop each query's own row, or its last neighbor if exact duplicates have crowded it out."""
  own = numbers == np.arange(len(numbers))[:, None]
  # Exactly one column per row is True, so that the boolean index keeps k of k + 1 columns.
  own[:, -1] |= ~own.any(1)
  shape = len(numbers), numbers.shape[1] - 1
  return similarities[~own].reshape(shape), numbers[~own].reshape(shape)
