"""The rows of a pool on disk that are nearest to queries."""

import os
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, or_default
from genbench_jax.retrieval.pool import Modality, Pool, open_pool
from genbench_jax.retrieval.search import best_rows

BLOCK_ROWS = 65_536


def retrieve(
  query_features: Float[Any, "q d"],
  pool: str | os.PathLike[str] | Pool,
  k: int = 30,
  modality: Modality | None = None,
  recall_target: float = 1.0,
  block_rows: int = BLOCK_ROWS,
  mesh: Mesh | None = None,
) -> tuple[Float32[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
  """The k rows of a pool with the largest inner products with each query, exact, best first.

  The pool may be larger than the memory of the devices and of the host: its shards are mapped and streamed. Of equal scores
  the lower row comes first. The result depends neither on the block size nor on the number of devices.

  Args:
    query_features: taken as they are; cosines come out where both they and the pool have unit norm.
    pool: a folder of float16 or float32 `.npy` shards, see `genbench_jax.retrieval.pool`.
    k: rows a query.
    modality: `image` or `text`: which features of the pool; by default image features where there are any.
    recall_target: below 1, TPUs use `jax.lax.approx_max_k` on each tile of the pool, which finds the expected share
      `recall_target` of the k rows or more, in less time. CPU and GPU find all of them whatever is said here.
    block_rows: rows read and sent at once.
    mesh: by default all devices.

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
  blocks = opened.blocks(modality, block_rows)
  try:
    found = best_rows(queries, blocks, k, or_default(mesh), recall_target)
  except FloatingPointError as error:
    raise UsageError(
      f"the {modality} features of {opened.folder} can't be used: {error}."
    ) from error
  return found.score, found.row
