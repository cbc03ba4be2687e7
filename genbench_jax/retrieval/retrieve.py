"""Nearest rows of a pool on disk."""

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
# Rows that are tested for unit norm before the search.
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
  """Find the k rows of a pool with the largest inner products with each query, best first.

  The search is exact. Rows are normalized: if the pool is not of unit norm, its rows are scaled,
  and a message says so. The pool may be larger than the memory of devices and host, because shards
  are mapped and streamed. Ties go to the lower row. The result depends neither on the block size
  nor on the number of devices.

  Args:
    query_features: queries, not normalized; with unit norm the scores are cosines.
    pool: a folder of float16 or float32 `.npy` shards, see `genbench_jax.retrieval.pool`.
    k: rows per query.
    modality: features to search, `image` or `text`; None for image features if there are any.
    recall_target: below 1, TPUs use `jax.lax.approx_max_k` on each tile of the pool, which is
      faster and finds at least this expected share of the k rows. CPUs and GPUs always find all.
    block_rows: rows that are read and transferred at once.
    mesh: devices to search on; None for all.
    normalize: whether to scale rows to unit norm. Without it, long rows are near every query.

  Returns:
    Scores [q, k] in float32, and row numbers [q, k] over the pool's shards in name order. If the
    pool has fewer than k rows, the rest is filled with minus infinity and -1.

  Raises:
    UsageError: queries or pool cannot be used, or hold NaN or infinity.

  Reference:
    Recall of `approx_max_k`: Chern et al., arXiv 2206.14286.
  """
  opened = pool if isinstance(pool, Pool) else open_pool(os.fspath(pool))
  queries = np.asarray(feature_rows("query_features", query_features, opened.width), np.float32)
  check_finite("query_features", queries)
  if k < 1 or block_rows < 1:
    raise UsageError(f"k is {k} and block_rows is {block_rows}, expected at least 1.")
  if not 0 < recall_target <= 1:
    raise UsageError(f"recall_target is {recall_target}, expected more than 0 and at most 1.")
  if modality is None:
    modality = "image" if "image" in opened.shards else "text"
  search = functools.partial(
    best_rows, queries, k=k, mesh=or_default(mesh), recall_target=recall_target
  )
  # Search without scaling first: it reads half-precision rows as they are. Fall back if a later
  # block is not unit-norm.
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
  """Return whether the first rows have unit norm, to avoid reading a raw pool twice."""
  first = pool.of(modality)[0].read(0, _SAMPLE_ROWS).astype(np.float32)
  # NaN passes here; the search reports it.
  squared = np.square(first).sum(axis=1)
  return not ((np.abs(squared - 1) > UNIT_NORM_SLACK) & (squared > 0)).any()


def _scaled(
  pool: Pool, modality: Modality, block_rows: int
) -> Iterator[Float32[np.ndarray, "n d"]]:
  """Yield the blocks with rows scaled to unit norm; zero rows stay zero."""
  say(f"the {modality} features of {pool.folder} do not have unit norm and are normalized")
  for block in pool.blocks(modality, block_rows):
    rows = block.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    yield rows / np.where(length > 0, length, 1)
