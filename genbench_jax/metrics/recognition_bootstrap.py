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
from genbench_jax.runtime.mesh import DATA_AXIS, pad_rows, replicated


class Ranking(NamedTuple):
  """Test images in the order of their scores, for one column and class, and where the positives stand in it.

  Attributes:
    order: image at each rank; padding last, as images that are never drawn.
    positive: the positives in this order; real: False where one is padding.
    start, end: for each positive, the first rank with its score, and the first rank after that score.
    first, last: the same among the positives.
  """

  order: Int[Any, "n"]
  positive: Int[Any, "p"]
  real: Bool[Any, "p"]
  start: Int[Any, "p"]
  end: Int[Any, "p"]
  first: Int[Any, "p"]
  last: Int[Any, "p"]


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
  """Rankings [v, k, ...] in ascending order."""
  most = bucket_rows(int(positive.sum(0).max()), 1)
  ranked = [
    [_ranking(columns[:, v, c], positive[:, c], size, most) for c in range(columns.shape[2])]
    for v in range(columns.shape[1])
  ]
  rows = [jax.tree.map(lambda *parts: np.stack(parts), *row) for row in ranked]
  return jax.tree.map(lambda *parts: np.stack(parts), *rows)


def _ranking(
  scores: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], size: int, most: int
) -> Ranking:
  order = np.argsort(scores, kind="stable")
  ranked, found = scores[order], order[positive[order]]
  of_positives = scores[found]
  padding = np.zeros(most - len(found), np.int32)

  def padded(ranks: Int[np.ndarray, "p"], fill: int) -> Int[np.ndarray, "q"]:
    return np.append(ranks, padding + fill).astype(np.int32)

  return Ranking(
    order=np.append(order, np.arange(len(order), size)).astype(np.int32),
    positive=padded(found, 0),
    real=np.arange(most) < len(found),
    start=padded(np.searchsorted(ranked, of_positives, "left"), len(order)),
    end=padded(np.searchsorted(ranked, of_positives, "right"), len(order)),
    first=padded(np.searchsorted(of_positives, of_positives, "left"), len(found)),
    last=padded(np.searchsorted(of_positives, of_positives, "right"), len(found)),
  )


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
    drawn = jnp.where(ranking.real, weights[ranking.positive], 0)
    return statistic(_from_zero(weights[ranking.order]), _from_zero(drawn), drawn, ranking)

  values, defined = jax.vmap(jax.vmap(of_class))(ranking)
  return jnp.sum(jnp.where(defined, values, 0), 1) / jnp.sum(defined, 1)


def _from_zero(counts: Int[Array, "n"]) -> Int[Array, "n+1"]:
  """Sums of the first 0, 1, ..., n counts."""
  return jnp.pad(jnp.cumsum(counts), (1, 0))


def _area_under_roc(
  seen: Int[Array, "n+1"], found: Int[Array, "p+1"], drawn: Int[Array, "p"], ranking: Ranking
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
  """`area_under_roc` in ascending order, from how many images were drawn among the first of all (`seen`) and
  among the first of the positives (`found`). Defined with both classes."""
  below = seen[ranking.start] - found[ranking.first]
  through = seen[ranking.end] - found[ranking.last]
  negatives = seen[-1] - found[-1]
  # In float32 from here on: the product of two counts overflows 32 bits.
  area = jnp.sum((drawn / found[-1]) * ((below + through) / (2 * negatives)))
  return area, (found[-1] > 0) & (negatives > 0)


def _eleven_point_precision(
  seen: Int[Array, "n+1"], found: Int[Array, "p+1"], drawn: Int[Array, "p"], ranking: Ranking
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
  """`eleven_point_precision` in descending order, from the same sums. Precision is highest at a positive; defined
  with one."""
  at_positive = found[ranking.last]
  precision = at_positive / jnp.maximum(seen[ranking.end], 1)
  best_from_here = jax.lax.cummax(precision, reverse=True)
  reached = jnp.searchsorted(10 * at_positive, jnp.arange(1, 11) * found[-1])
  return (1 + best_from_here[reached].sum()) / 11, found[-1] > 0
