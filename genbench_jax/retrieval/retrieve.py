"""The rows of a pool on disk that are nearest to queries."""

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, or_default
from genbench_jax.retrieval.pool import Modality, Pool, open_pool
from genbench_jax.retrieval.search import UNIT_NORM_SLACK, NotUnitNormError, best_rows
from genbench_jax.runtime.progress import say

BLOCK_ROWS = 65_536
_SAMPLE_ROWS = 256


def retrieve(
  query_features: Float[Any, "q d"],
  pool: str | os.PathLike[str] | Pool,
  k: int = 30,
  modality: Modality | None = None,
  recall_target: float = 1.0,
  block_rows: int = BLOCK_ROWS,
  mesh: Mesh | None = None,
  normalize: bool = True,
) -> tuple[Float32[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """The k rows of a pool with the largest inner products with each query, exact, best first.

  Rows are taken by their direction: those of a pool that is not of unit norm are scaled to it, and a line says so.

  The pool may be larger than the memory of the devices and of the host: its shards are mapped and streamed. Of equal scores
  the lower row comes first. The result depends neither on the block size nor on the number of devices.

  Args:
    query_features: taken as they are; cosines come out where they have unit norm.
    pool: a folder of float16 or float32 `.npy` shards, see `genbench_jax.retrieval.pool`.
    k: rows a query.
    modality: `image` or `text`: which features of the pool; by default image features where there are any.
    recall_target: below 1, TPUs use `jax.lax.approx_max_k` on each tile of the pool, which finds the expected share
      `recall_target` of the k rows or more, in less time. CPU and GPU find all of them whatever is said here.
    block_rows: rows read and sent at once.
    mesh: by default all devices.
    normalize: whether rows that are not of unit norm are scaled to it; without, the longest rows are found by all.

  Returns:
    Scores [q, k], float32, and row numbers [q, k] over the pool's shards in name order. Where the pool has fewer than
    k rows, minus infinity and -1 stand for the rest.

  Raises:
    UsageError: the queries or the pool can't be used, or hold NaN or infinity.

  Reference:
    The recall of `approx_max_k`: Chern et al., arXiv 2206.14286.
  """
  opened = pool if isinstance(pool, Pool) else open_pool(os.fspath(pool))
  queries = np.asarray(feature_rows("query_features", query_features, opened.width), np.float32)
  check_finite("query_features", queries)
  if k < 1 or block_rows < 1:
    raise UsageError(f"k is {k} and block_rows is {block_rows}, wanted at least 1.")
  if not 0 < recall_target <= 1:
    raise UsageError(f"recall_target is {recall_target}, wanted more than 0 and at most 1.")
  if modality is None:
    modality = "image" if "image" in opened.shards else "text"
  search = functools.partial(
    best_rows, queries, k=k, mesh=or_default(mesh), recall_target=recall_target
  )
  try:
    if normalize and not _begins_unit_norm(opened, modality):
      found = search(_scaled(opened, modality, block_rows))
    else:
      found = search(opened.blocks(modality, block_rows), check_unit_norm=normalize)
  except NotUnitNormError:
    found = search(_scaled(opened, modality, block_rows))
  except FloatingPointError as error:
    raise UsageError(
      f"the {modality} features of {opened.folder} can't be used: {error}."
    ) from error
  return found.score, found.row


def _begins_unit_norm(pool: Pool, modality: Modality) -> bool:
  """Whether the first rows are of unit norm, so that a raw pool isn't read twice; NaN is found by the search."""
  first = pool.of(modality)[0].read(0, _SAMPLE_ROWS).astype(np.float32)
  squared = np.square(first).sum(axis=1)
  return not ((np.abs(squared - 1) > UNIT_NORM_SLACK) & (squared > 0)).any()


def _scaled(
  pool: Pool, modality: Modality, block_rows: int
) -> Iterator[Float32[np.ndarray, "n d"]]:
  """The blocks with rows scaled to unit norm; zero rows stay zero."""
  say(f"the {modality} features of {pool.folder} are not of unit norm: they are scaled to it")
  for block in pool.blocks(modality, block_rows):
    rows = block.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    yield rows / np.where(length > 0, length, 1)
