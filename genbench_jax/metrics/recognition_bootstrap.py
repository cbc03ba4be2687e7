"""The recognition metrics under bootstrap weights, on the device: one number a column for each resample.

The value of each metric itself comes from `recognition`; with all weights one the functions here agree with it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from genbench_jax.metrics.bootstrap import resampled_means, weight_slabs
from genbench_jax.metrics.inputs import bucket_rows
from genbench_jax.parallel.mesh import DATA_AXIS, pad_rows, replicated


class Ranking(NamedTuple):
  """Test images in the order of their scores, for one column and class.

  order: image at each rank; start, end: first and last rank with the same score; positive: by rank.
  """

  order: Int[Any, "n"]
  start: Int[Any, "n"]
  end: Int[Any, "n"]
  positive: Bool[Any, "n"]


def resampled_correct(
  correct: Bool[np.ndarray, "n v"],
  labels: Int[np.ndarray, "n"],
  num_classes: int,
  metric: str,
  resamples: int,
  seed: int,
  mesh: Mesh,
) -> Float[np.ndarray, "r v"]:
  """`accuracy` or `mean_per_class` of each column of right and wrong predictions, in each resample."""
  if metric == "accuracy":
    return resampled_means(correct.astype(np.float64), resamples, seed, mesh)
  size = bucket_rows(len(labels), mesh.size)
  ones = np.ones((len(labels), 1), bool)
  columns = np.concatenate([correct, ones], 1).astype(np.float32)
  arguments = jax.device_put((pad_rows(columns, size), pad_rows(labels, size)), replicated(mesh))
  program = _program(mesh, "mean_per_class", num_classes)
  return _run(program, arguments, len(labels), size, resamples, seed, mesh)


def resampled_scores(
  scores: Float[np.ndarray, "n v k"],
  labels: Any,
  metric: str,
  resamples: int,
  seed: int,
  mesh: Mesh,
) -> Float[np.ndarray, "r v"]:
  """`roc_auc` or `map_11_point` of each column of scores, in each resample.

  NaN where it is not defined (no positive, or no negative was drawn); `interval` leaves those out.
  """
  size = bucket_rows(len(scores), mesh.size)
  if metric == "roc_auc":
    columns, positive = scores[:, :, 1:], (labels == 1)[:, None]
  else:
    hot = labels if labels.ndim == 2 else np.eye(scores.shape[2], dtype=bool)[labels]
    columns, positive = -scores, hot
  ranking = jax.device_put(_rankings(columns, positive, size), replicated(mesh))
  program = _program(mesh, metric, 0)
  return _run(program, (ranking,), len(scores), size, resamples, seed, mesh)


def _run(
  program: Any,
  arguments: tuple[Any, ...],
  count: int,
  size: int,
  resamples: int,
  seed: int,
  mesh: Mesh,
) -> Float[np.ndarray, "r v"]:
  slabs = weight_slabs(count, size, resamples, seed, mesh)
  values = [np.asarray(program(weights, *arguments)) for weights in slabs]
  return np.concatenate(values)[:resamples].astype(np.float64)


def _rankings(
  columns: Float[np.ndarray, "n v k"], positive: Bool[np.ndarray, "n k"], size: int
) -> Ranking:
  """Rankings [v, k, size] in ascending order; padding comes last, as images that are never drawn."""
  ranked = [
    [_ranking(columns[:, v, c], positive[:, c], size) for c in range(columns.shape[2])]
    for v in range(columns.shape[1])
  ]
  rows = [jax.tree.map(lambda *parts: np.stack(parts), *row) for row in ranked]
  return jax.tree.map(lambda *parts: np.stack(parts), *rows)


def _ranking(scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], size: int) -> Ranking:
  order = np.argsort(scores, kind="stable")
  _, first, group = np.unique(scores[order], return_index=True, return_inverse=True)
  last = np.append(first[1:], len(scores)) - 1
  padding = np.arange(len(scores), size)
  padded = [
    np.append(ranks, padding).astype(np.int32) for ranks in (order, first[group], last[group])
  ]
  return Ranking(padded[0], padded[1], padded[2], pad_rows(positive[order], size))


@functools.cache
def _program(mesh: Mesh, metric: str, num_classes: int) -> jax.stages.Wrapped:
  if metric == "mean_per_class":
    statistic = functools.partial(_mean_per_class, num_classes=num_classes)
  else:
    statistic = functools.partial(_of_rankings, metric=metric)

  def local(weights: UInt8[Array, "r n"], *arguments: Any) -> Float[Array, "r v"]:
    def one(row: UInt8[Array, "n"]) -> Float[Array, "v"]:
      return statistic(row.astype(jnp.int32), *arguments)

    return jax.lax.map(one, weights)

  def program(weights: UInt8[Array, "r n"], *arguments: Any) -> Float[Array, "r v"]:
    specs = (PartitionSpec(DATA_AXIS), *(PartitionSpec() for _ in arguments))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA_AXIS))(
      weights, *arguments
    )

  return jax.jit(program, out_shardings=replicated(mesh))


def _mean_per_class(
  weights: Int[Array, "n"],
  columns: Float[Array, "n v+1"],
  labels: Int[Array, "n"],
  num_classes: int,
) -> Float[Array, "v"]:
  """Mean recall of the classes that occur in the resample; the last column counts the images."""
  hits = jax.ops.segment_sum(weights[:, None] * columns, labels, num_classes)
  totals = hits[:, -1:]
  recalls = hits[:, :-1] / jnp.maximum(totals, 1)
  return recalls.sum(0) / jnp.sum(totals > 0)


def _of_rankings(weights: Int[Array, "n"], ranking: Ranking, metric: str) -> Float[Array, "v"]:
  """Mean over the classes for which the metric is defined in the resample; NaN where there is none."""
  statistic = _area_under_roc if metric == "roc_auc" else _eleven_point_precision

  def of_class(ranking: Ranking) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    return statistic(weights[ranking.order], ranking)

  values, defined = jax.vmap(jax.vmap(of_class))(ranking)
  return jnp.sum(jnp.where(defined, values, 0), 1) / jnp.sum(defined, 1)


def _area_under_roc(
  drawn: Int[Array, "n"], ranking: Ranking
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
  """`area_under_roc` of images drawn so often, in ascending order; defined with both classes."""
  positives = jnp.where(ranking.positive, drawn, 0)
  negatives = drawn - positives
  through = jnp.cumsum(negatives)
  below = through[ranking.start] - negatives[ranking.start]
  # In float32 from here on: the product of two counts overflows 32 bits.
  halves = (positives / positives.sum()) * ((below + through[ranking.end]) / (2 * negatives.sum()))
  return halves.sum(), (positives.sum() > 0) & (negatives.sum() > 0)


def _eleven_point_precision(
  drawn: Int[Array, "n"], ranking: Ranking
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
  """`eleven_point_precision` of images drawn so often, in descending order; defined with a positive."""
  found = jnp.cumsum(jnp.where(ranking.positive, drawn, 0))
  precision = found[ranking.end] / jnp.maximum(jnp.cumsum(drawn)[ranking.end], 1)
  best_from_here = jax.lax.cummax(precision, reverse=True)
  reached = jnp.searchsorted(10 * found[ranking.end], jnp.arange(1, 11) * found[-1])
  return (1 + best_from_here[reached].sum()) / 11, found[-1] > 0
