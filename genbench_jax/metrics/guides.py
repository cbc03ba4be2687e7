"""Scores against *guides*: a few real training images that no other part of a cell uses.

Class Chamfer distance and guide ridge do not train on the guides. They use them like test images,
so that a source can be judged before any test image is touched.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.bootstrap import ONE_A_CLASS, Measurement
from genbench_jax.metrics.half_samples import REPEATS, common_variance, halves_of
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows, label_rows
from genbench_jax.metrics.intervals import wilson
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import are_paired, centered_within, sampled_strata, strata_of
from genbench_jax.runtime.protocol import NORMAL

# Ridge penalty as a share of the mean eigenvalue of the features' second moment.
PENALTY = 0.1


def class_chamfer(
  x: Float[Any, "n d"], labels: Any, guides: Float[Any, "g d"], guide_labels: Any
) -> float:
  """Compute the mean over guides of the Euclidean distance to the nearest image of the same class.

  A guide whose class has no image counts with the largest distance of any guide to any image.

  Args:
    x: features of the external images, not normalized.
    labels: their classes, indices or multi-hot.
    guides: features of the guides.
    guide_labels: their classes.

  Raises:
    UsageError: shapes or values do not fit.
  """
  hot, guide_hot, x, guides = checked_sets(x, labels, guides, guide_labels)
  return float(_chamfer(np.sqrt(squared_distances(guides, x)), hot, guide_hot).mean())


def guide_ridge(
  x: Float[Any, "n d"],
  labels: Any,
  guides: Float[Any, "g d"],
  guide_labels: Any,
  penalty: float = PENALTY,
) -> float:
  """Compute the share of guides that a ridge classifier trained on the external images recognizes.

  W = (X'X / n + penalty tr(X'X / n) / d)^-1 X'Y / n, with centered features and centered 0/1
  targets, weighted so that all classes count equally. The class with the highest score is
  predicted. For a guide with several classes, any of them is correct.

  Args:
    x, labels, guides, guide_labels: see `class_chamfer`.
    penalty: ridge penalty as a share of the mean eigenvalue.

  Raises:
    UsageError: shapes or values do not fit.
  """
  hot, guide_hot, x, guides = checked_sets(x, labels, guides, guide_labels)
  return float(_recognized(x, hot, guides, guide_hot, penalty).mean())


def checked_sets(
  x: Any, labels: Any, guides: Any, guide_labels: Any
) -> tuple[Bool[np.ndarray, "n k"], Bool[np.ndarray, "g k"], np.ndarray, np.ndarray]:
  """Return the classes of the images and of the guides, multi-hot, then both sets' features.

  Args:
    x, guides: features of the external images and of the guides.
    labels, guide_labels: class indices, or multi-hot.

  Raises:
    UsageError: features or labels are invalid or do not fit.
  """
  x = np.asarray(feature_rows("x", x), np.float64)
  guides = np.asarray(feature_rows("guides", guides, x.shape[1]), np.float64)
  check_finite("x", x)
  check_finite("guides", guides)
  classes = max(_classes(labels), _classes(guide_labels))
  hot = (
    _hot(name, given, len(rows), classes)
    for name, given, rows in (("labels", labels, x), ("guide_labels", guide_labels, guides))
  )
  return *hot, x, guides


def _classes(labels: Any) -> int:
  labels = np.asarray(labels)
  return labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=0)) + 1


def _hot(name: str, labels: Any, rows: int, classes: int) -> Bool[np.ndarray, "n k"]:
  found = label_rows(name, labels, rows, classes)
  return found if found.ndim == 2 else np.eye(classes, dtype=bool)[found]


def _chamfer(
  distances: Float[np.ndarray, "g n"],
  hot: Bool[np.ndarray, "n k"],
  guide_hot: Bool[np.ndarray, "g k"],
) -> Float[np.ndarray, "g"]:
  """Return, for each guide, the distance to the nearest image that shares a class with it."""
  shared = (guide_hot.astype(np.float32) @ hot.T.astype(np.float32)) > 0
  # [g, n] -> [g]; infinite if the class of the guide has no image.
  closest = np.where(shared, distances, np.inf).min(axis=1)
  return np.where(np.isfinite(closest), closest, distances.max())


def _recognized(
  x: Float[np.ndarray, "n d"],
  hot: Bool[np.ndarray, "n k"],
  guides: Float[np.ndarray, "g d"],
  guide_hot: Bool[np.ndarray, "g k"],
  penalty: float,
) -> Bool[np.ndarray, "g"]:
  """Return whether the class with the highest ridge score is one of the guide's classes."""
  weights, offsets = ridge_classifier(x, hot, penalty)
  # An empty class has zero weights, which could still win against negative scores.
  scores = np.where(hot.any(axis=0), guides @ weights + offsets, -np.inf)
  return guide_hot[np.arange(len(guides)), scores.argmax(axis=1)]


def ridge_classifier(
  x: Float[np.ndarray, "n d"], hot: Bool[np.ndarray, "n k"], penalty: float
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, "k"]]:
  """Return weights and offsets of the ridge classifier of `guide_ridge`.

  Args:
    x: features of the training images.
    hot: their classes.
    penalty: as a share of the mean eigenvalue.
  """
  counts = hot.sum(axis=0)
  # Each class has total weight 1 / k, however many images it has.
  weights = (hot / np.maximum(counts, 1)).sum(axis=1)
  weights = weights / max(weights.sum(), 1e-12)
  middle = weights @ x
  moved, targets = x - middle, hot - weights @ hot
  second = (moved * weights[:, None]).T @ moved
  # Relative to the mean eigenvalue, the penalty does not depend on the scale of the features.
  level = penalty * (np.trace(second) / len(second) or 1.0)
  solution = np.linalg.solve(
    second + level * np.eye(len(second)), (moved * weights[:, None]).T @ targets
  )
  return solution, weights @ hot - middle @ solution


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield both scores on unit-norm features.

  The first interval resamples the guides; the second also the external images.
  """
  if sets.guides is None or not len(sets.guides):
    return
  hot, guide_hot, x, guides = checked_sets(
    host_unit_rows(sets.external), sets.labels, host_unit_rows(sets.guides), sets.guide_labels
  )
  distances = np.sqrt(squared_distances(guides, x))
  per_guide = {
    "class_chamfer": _chamfer(distances, hot, guide_hot),
    "guide_ridge": _recognized(x, hot, guides, guide_hot, PENALTY).astype(float),
  }
  external = _variances(x, hot, guides, guide_hot, distances, sets) if wanted else None
  strata = sampled_strata(sets.guide_labels, len(guides))
  for place, (name, values) in enumerate(per_guide.items()):
    extra = None if external is None else float(external[place])
    value = _measurement(name, values, strata, extra)
    per_image = values if name == "guide_ridge" else None
    yield Result(name, value, _by_class(values, guide_hot), per_image=per_image, on_guides=True)


def _variances(
  x: np.ndarray,
  hot: np.ndarray,
  guides: np.ndarray,
  guide_hot: np.ndarray,
  distances: np.ndarray,
  sets: Sets,
) -> Float[np.ndarray, "2"] | None:
  """Return the variances over draws of external images; None without pairs within classes."""
  strata: Int[np.ndarray, "n"] = strata_of(sets.labels, len(x))
  if not are_paired(strata):
    return None
  halves = halves_of(strata, sets.seed, min(sets.resamples, REPEATS // 2))
  values = []
  for replicate in range(len(halves.kept)):
    kept = halves.rows(replicate)
    values.append((
      _chamfer(distances[:, kept], hot[kept], guide_hot),
      _recognized(x[kept], hot[kept], guides, guide_hot, PENALTY),
    ))  # fmt: skip
  weights = np.full(len(guides), 1 / len(guides))
  columns = (np.array(each, float) for each in zip(*values, strict=True))
  return np.array([common_variance(each, weights, halves) for each in columns])


def _measurement(
  name: str,
  values: Float[np.ndarray, "g"],
  strata: Int[np.ndarray, "g"],
  external: float | None,
) -> Measurement:
  # Guides are drawn class by class, so differences between classes do not add variance.
  value = float(values.mean())
  variance = float(np.mean(centered_within(values, strata) ** 2)) / len(values)

  def around(total: float) -> tuple[float, float]:
    if name == "guide_ridge":
      return wilson(value, total, len(values))
    half = NORMAL * float(np.sqrt(total))
    return max(value - half, 0.0), value + half

  if external is None:
    return Measurement(value, *around(variance), note=ONE_A_CLASS)
  return Measurement(value, *around(variance), *around(variance + external))


def _by_class(
  values: Float[np.ndarray, "g"], guide_hot: Bool[np.ndarray, "g k"]
) -> dict[int, float]:
  return {int(c): float(values[guide_hot[:, c]].mean()) for c in np.flatnonzero(guide_hot.any(0))}
