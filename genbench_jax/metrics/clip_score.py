"""CLIP score: how well images match their texts."""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement, own_interval
from genbench_jax.metrics.inputs import (
  by_block,
  check_finite,
  feature_rows,
  label_rows,
  or_default,
  unit_rows,
)
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import strata_of
from genbench_jax.runtime.mesh import DATA_AXIS, replicated


@dataclasses.dataclass(frozen=True)
class ClipScoreResult:
  """Mean CLIP score with its interval over the images, and the mean of each class."""

  score: Measurement
  per_class: dict[int, float]


def clip_score(
  image_features: Float[Any, "n d"],
  text_features: Float[Any, "t d"],
  labels: Any | None = None,
  mesh: Mesh | None = None,
) -> float:
  """Compute the mean over images of 100 max(cos(image, text), 0), from 0 to 100.

  Hessel et al. 2021, with w = 100.

  Args:
    image_features: one row per image, not necessarily unit-norm.
    text_features: without `labels`, one text per image; with them, one prototype per class.
    labels: class indices [n], or multi-hot [n, k]. An image with several classes scores their mean;
      an image without classes is ignored.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes, labels or values do not fit.
  """
  scores, _ = image_scores(image_features, text_features, labels, mesh)
  return float(scores.mean())


def measure_clip_score(
  image_features: Float[Any, "n d"],
  text_features: Float[Any, "t d"],
  labels: Any | None = None,
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
) -> ClipScoreResult:
  """Measure `clip_score` with its interval by a bootstrap within classes, and by class.

  The score does not depend on test images, so both intervals are the same.

  Args:
    image_features, text_features, labels, mesh: see `clip_score`.
    seed, resamples: of the bootstrap.
  """
  scores, counted = image_scores(image_features, text_features, labels, mesh)
  strata = strata_of(counted, len(scores))
  score = own_interval(float(scores.mean()), scores, strata, resamples, seed)
  return ClipScoreResult(score, {} if counted is None else _means_by_class(scores, counted))


def image_scores(
  image_features: Float[Any, "n d"],
  text_features: Float[Any, "t d"],
  labels: Any | None = None,
  mesh: Mesh | None = None,
) -> tuple[Float[np.ndarray, "with_class"], np.ndarray | None]:
  """Return the score of each image that has a class, in float64, and the labels of these images.

  Args:
    image_features, text_features, labels, mesh: see `clip_score`.
  """
  mesh = or_default(mesh)
  images = feature_rows("image_features", image_features)
  texts = feature_rows("text_features", text_features, images.shape[1])
  if labels is None:
    return _row_scores(images, texts, mesh), None
  labels = label_rows("labels", labels, len(images), len(texts))
  check_finite("text_features", texts)
  # Prototypes are few and replicated; images are sharded.
  prototypes = jax.device_put(texts.astype(np.float32), replicated(mesh))
  program = _scores_program(mesh, by_class=True)
  scores = by_block(
    lambda features, hot, _: program(features, prototypes, hot),
    "image_features",
    mesh,
    images,
    labels,
  )
  return _that_count(scores.astype(np.float64), labels)


def _that_count(
  scores: Float[np.ndarray, "n"], labels: np.ndarray
) -> tuple[Float[np.ndarray, "m"], np.ndarray]:
  if labels.ndim == 1:
    return scores, labels
  counts = labels.any(1)
  if not counts.any():
    raise UsageError("labels name no class for any image")
  return scores[counts], labels[counts]


def _row_scores(
  images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m d"], mesh: Mesh
) -> Float[np.ndarray, "n"]:
  if len(texts) != len(images):
    raise UsageError(
      f"without labels every image needs its own text: got {len(images)} images and "
      f"{len(texts)} texts"
    )
  check_finite("text_features", texts)
  program = _scores_program(mesh, by_class=False)
  scores = by_block(
    lambda features, text, _: program(features, text, None), "image_features", mesh, images, texts
  )
  # Means and resamples are computed in float64.
  return scores.astype(np.float64)


@functools.cache
def _scores_program(mesh: Mesh, by_class: bool) -> jax.stages.Wrapped:
  def local(
    features: Float[Array, "n d"], texts: Float[Array, "t d"], labels: Array | None
  ) -> Float[Array, "n"]:
    features, texts = unit_rows(features), unit_rows(texts.astype(jnp.float32))
    if labels is None or labels.ndim == 1:
      own = texts if labels is None else texts[labels]
      # Products of rows, not a matrix product: no image needs the texts of the others.
      return 100 * jnp.maximum(jnp.sum(features * own, axis=1), 0)
    # Multi-hot labels: [n, k] scores, averaged over the classes of each image.
    every = 100 * jnp.maximum(jnp.matmul(features, texts.T, precision="highest"), 0)
    return jnp.sum(every * labels, axis=1) / jnp.maximum(jnp.sum(labels, axis=1), 1)

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  specs = (rows, whole if by_class else rows, rows)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows))


def _means_by_class(scores: Float[np.ndarray, "n"], labels: np.ndarray) -> dict[int, float]:
  hot = labels if labels.ndim == 2 else labels[:, None] == np.arange(labels.max() + 1)
  return {int(c): float(scores[hot[:, c]].mean()) for c in np.flatnonzero(hot.any(0))}


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield `clip_score`."""
  found = measure_clip_score(
    sets.external, sets.text, sets.labels, sets.seed, sets.resamples, sets.mesh
  )
  yield Result("clip_score", found.score, found.per_class)
