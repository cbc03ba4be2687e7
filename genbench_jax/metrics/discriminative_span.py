"""Discriminative span (Desai & Narendra 2026, arXiv 2605.09697): is a classifier in the span of the images?

A synthetic image minus a real image of another class is a direction in which features can be moved.
With D the differences, one per row, the metric is |w - P w| / |w| for the weights w of a linear
classifier of real images, P the projection onto the span of D. It is 0 if the synthetic images
contain every direction that the classifier needs, 1 if they contain none.

With more differences than dimensions the span is everything, so the projection is regularized, as
in ridge regression: with C = D'D / n and a penalty l, w - P w = l (C + l)^-1 w.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.guides import PENALTY, checked_sets, ridge_classifier
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import OnParts, set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of


def discriminative_span(
  synthetic: Float[Any, "n d"],
  negatives: Float[Any, "m d"],
  weights: Float[Any, "d"],
  penalty: float = PENALTY,
) -> float:
  """Compute the relative error of a classifier's weights on the span of paired differences.

  Args:
    synthetic: features of synthetic positives.
    negatives: features of the real negatives that they were made from, row by row.
    weights: of a linear classifier of positives against negatives.
    penalty: of the projection, relative to the mean eigenvalue of the second moment of the
      differences; 0 for the exact projection.

  Raises:
    UsageError: shapes or values do not fit, or the weights are zero.
  """
  first = np.asarray(feature_rows("synthetic", synthetic), np.float64)
  second = np.asarray(feature_rows("negatives", negatives, first.shape[1]), np.float64)
  direction = np.asarray(weights, np.float64)
  for name, array in (("synthetic", first), ("negatives", second), ("weights", direction)):
    check_finite(name, array)
  if first.shape != second.shape or direction.shape != first.shape[1:]:
    raise UsageError(
      f"negatives must be paired with synthetic {first.shape} and weights be {first.shape[1]} wide, got"
      f" {second.shape} and {direction.shape}"
    )
  if not direction.any():
    raise UsageError("weights are all zero: there is no direction to express")
  return _relative_error(first - second, direction, penalty)


def _relative_error(
  differences: Float[np.ndarray, "n d"], weights: Float[np.ndarray, "d"], penalty: float
) -> float:
  """Return |l (C + l)^-1 w| / |w|, from the singular values of the differences."""
  # C = V S^2 V' / n: along the k-th axis, the share l / (s_k^2 / n + l) of w remains.
  _, singular, axes = np.linalg.svd(differences, full_matrices=False)
  eigenvalues = singular**2 / len(differences)
  level = penalty * eigenvalues.sum() / differences.shape[1]
  along = axes @ weights
  # Rounding leaves singular values of rank-deficient differences slightly above zero.
  spanned = eigenvalues > np.finfo(float).eps * len(singular) * eigenvalues.max()
  kept = np.where(spanned, level / np.where(spanned, eigenvalues + level, 1), 1)
  # Orthogonal parts: what the axes cannot express, and what the penalty keeps from them.
  outside = weights - along @ axes
  return float(
    np.hypot(np.linalg.norm(outside), np.linalg.norm(kept * along)) / np.linalg.norm(weights)
  )


def span_of_classes(
  x: Float[np.ndarray, "n d"],
  hot: Bool[np.ndarray, "n k"],
  real: Float[np.ndarray, "g d"],
  real_hot: Bool[np.ndarray, "g k"],
) -> dict[int, float]:
  """Return the metric of each class that has external images, real images and real negatives.

  Generated images are not made from a real negative; the nearest one takes its place. The
  classifier is the ridge classifier of the real images, one class against the others.

  Args:
    x, hot: features and classes of the external images.
    real, real_hot: features and classes of real images.
  """
  weights, _ = ridge_classifier(real, real_hot, PENALTY)
  distances = squared_distances(x, real)
  found = {}
  for c in np.flatnonzero(hot.any(axis=0) & real_hot.any(axis=0) & ~real_hot.all(axis=0)):
    own, others = hot[:, c], np.flatnonzero(~real_hot[:, c])
    negatives = real[others[distances[np.ix_(own, others)].argmin(axis=1)]]
    if weights[:, c].any():
      found[int(c)] = _relative_error(x[own] - negatives, weights[:, c], PENALTY)
  return found


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield the mean over classes, on unit-norm features, with the guides as real images."""
  if sets.guides is None or not len(sets.guides):
    return
  hot, guide_hot, x, guides = checked_sets(
    host_unit_rows(sets.external), sets.labels, host_unit_rows(sets.guides), sets.guide_labels
  )
  by_class = span_of_classes(x, hot, guides, guide_hot)
  if not by_class:
    return
  strata = strata_of(sets.labels, len(x)), sampled_strata(sets.guide_labels, len(guides))
  # Labels travel as further columns of the features, because parts of the sets need both.
  (value,) = set_measurements(
    np.array([np.mean(list(by_class.values()))]), _on_parts(hot.shape[1]),
    np.concatenate([x, hot], axis=1), np.concatenate([guides, guide_hot], axis=1), strata,
    sets.seed, sets.resamples, bounded=True,
  )  # fmt: skip
  yield Result("discriminative_span", value, by_class)


def _on_parts(classes: int) -> Any:
  """Return a function for `set_measurements`, of rows that end with `classes` columns of labels."""

  def prepare(external: Float[np.ndarray, "n w"], guides: Float[np.ndarray, "g w"]) -> OnParts:
    (x, hot), (real, real_hot) = (
      (rows[:, :-classes], rows[:, -classes:] > 0) for rows in (external, guides)
    )

    def of(images: Bool[np.ndarray, "n"], others: Bool[np.ndarray, "g"]) -> Float[np.ndarray, "1"]:
      found = span_of_classes(x[images], hot[images], real[others], real_hot[others])
      return np.array([np.mean(list(found.values())) if found else 1.0])

    return of

  return prepare
