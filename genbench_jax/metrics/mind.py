"""Monge Inception distance: a sliced 2-Wasserstein distance (Berthet et al. 2026, 2605.06797)."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.class_distances import distances_by_class
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import OnParts, set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of

DIRECTIONS = 1000
# Directions for the spread, and directions that are projected at once (bounds the memory of the
# projections).
FEW_DIRECTIONS, AT_ONCE = 100, 100


def mind(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  directions: Float[Any, "r d"] | int = DIRECTIONS,
  seed: int = 0,
) -> float:
  """Compute 3 d times the mean over directions u of the squared W2 distance of u . x and u . y.

  In one dimension, the squared 2-Wasserstein distance is the mean squared difference of the sorted
  values. If the sets differ in size, a random subset of the larger one is used, as published. The
  distance is 0 for equal sets and biased
  upward for few images: compare equal n.

  Args:
    x: features of the external images, not normalized.
    y: features of the images to compare with.
    directions: unit vectors, [r, d], or how many to draw.
    seed: of the directions and of the subset.

  Raises:
    UsageError: shapes or values do not fit.
  """
  x = np.asarray(feature_rows("x", x), np.float64)
  y = np.asarray(feature_rows("y", y, x.shape[1]), np.float64)
  check_finite("x", x)
  check_finite("y", y)
  random = np.random.default_rng([seed, 0x313D])
  x, y = (_drawn(rows, min(len(x), len(y)), random) for rows in (x, y))
  lines = (
    unit_directions(directions, x.shape[1], random) if isinstance(directions, int) else directions
  )
  if np.ndim(lines) != 2 or np.shape(lines)[1] != x.shape[1]:
    raise UsageError(f"directions must be [r, {x.shape[1]}], got {np.shape(lines)}")
  return sliced(x, y, np.asarray(lines, np.float64))


def unit_directions(
  count: int, width: int, random: np.random.Generator
) -> Float[np.ndarray, "r d"]:
  """Draw unit vectors, uniform on the sphere.

  Args:
    count: number of vectors.
    width: their width.
    random: draws them.
  """
  # A normalized Gaussian vector is uniform on the sphere.
  lines = random.normal(size=(count, width))
  return lines / np.linalg.norm(lines, axis=1, keepdims=True)


def sliced(
  x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], directions: Float[np.ndarray, "r d"]
) -> float:
  """Compute `mind` for sets of equal size, `AT_ONCE` directions at a time.

  Args:
    x, y: features of equally many images.
    directions: unit vectors.
  """
  total = 0.0
  for start in range(0, len(directions), AT_ONCE):
    lines = directions[start : start + AT_ONCE].T
    # In one dimension, optimal transport matches the i-th smallest values of both sets.
    first, second = (np.sort(rows @ lines, axis=0) for rows in (x, y))
    total += float(np.sum(np.mean((first - second) ** 2, axis=0)))
  return 3 * x.shape[1] * total / len(directions)


def _drawn(
  rows: Float[np.ndarray, "n d"], count: int, random: np.random.Generator
) -> Float[np.ndarray, "c d"]:
  return rows if len(rows) == count else rows[random.permutation(len(rows))[:count]]


def transport(
  first: Float[np.ndarray, "n r"], second: Float[np.ndarray, "m r"]
) -> Float[np.ndarray, "r"]:
  """Return the squared W2 distance of the sorted values in each column; n and m may differ.

  It is the integral of the squared difference of both quantile functions, which are constant
  between the multiples of 1 / n and 1 / m.
  """
  n, m = len(first), len(second)
  # Steps in units of 1 / (n m) are integers, so nothing is rounded.
  steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
  starts, lengths = steps[:-1], np.diff(steps) / (n * m)
  return lengths @ (first[starts // m] - second[starts // n]) ** 2


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield `mind` on unit-norm features."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) < 2:
    return
  random = np.random.default_rng([sets.seed, 0x313E])
  lines = unit_directions(FEW_DIRECTIONS, x.shape[1], random).T

  def on_parts(external: Float[np.ndarray, "n d"], tests: Float[np.ndarray, "m d"]) -> OnParts:
    first, second = (np.sort(rows @ lines, axis=0) for rows in (external, tests))
    places = [np.argsort(rows @ lines, axis=0) for rows in (external, tests)]

    def of(images: Bool[np.ndarray, "n"], others: Bool[np.ndarray, "m"]) -> Float[np.ndarray, "1"]:
      parts = [
        _sorted_part(values, kept[place])
        for values, kept, place in zip((first, second), (images, others), places, strict=True)
      ]
      return np.array([3 * x.shape[1] * transport(*parts).mean()])

    return of

  strata = strata_of(sets.labels, len(x)), sampled_strata(sets.test_labels, len(y))
  (found,) = set_measurements(
    np.array([mind(x, y, seed=sets.seed)]), on_parts, x, y, strata, sets.seed, sets.resamples,
    equal_sizes=True,
  )  # fmt: skip
  # Fewer directions per class: there are many classes with few images each.
  of_class = lambda external, tests: mind(external, tests, lines.T)  # noqa: E731
  by_class = distances_by_class(x, y, sets.labels, sets.test_labels, of_class)
  yield Result("mind", found, by_class)


def _sorted_part(
  values: Float[np.ndarray, "n r"], kept: Bool[np.ndarray, "n r"]
) -> Float[np.ndarray, "p r"]:
  """Return the kept entries of each sorted column, still sorted; every column keeps as many."""
  return values.T[kept.T].reshape(values.shape[1], -1).T
