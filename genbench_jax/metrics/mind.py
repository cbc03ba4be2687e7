"""Monge Inception distance: the sliced 2-Wasserstein distance of two sets of features (Berthet et al. 2026, 2605.06797)."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of

DIRECTIONS = 1000
# Directions that the spread is looked at in, and that are projected at once.
FEW_DIRECTIONS, AT_ONCE = 100, 100


def mind(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  directions: Float[Any, "r d"] | int = DIRECTIONS,
  seed: int = 0,
) -> float:
  """3 d times the mean over directions u of the squared 2-Wasserstein distance of u . x and u . y, 0 for equal sets.

  In one dimension that is the mean squared difference of the sorted values. Of sets of unequal size as many of the larger
  one are drawn as the smaller one has, as published. Biased upward for few images: compare equal n.

  Args:
    x, y: features of the external images and of those to compare with, as they are.
    directions: unit vectors, or how many to draw.
    seed: draws directions and images.

  Raises:
    UsageError: shapes or values that do not fit.
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
  """Random unit vectors."""
  lines = random.normal(size=(count, width))
  return lines / np.linalg.norm(lines, axis=1, keepdims=True)


def sliced(
  x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], directions: Float[np.ndarray, "r d"]
) -> float:
  """`mind` of sets of equal size, some directions at a time."""
  total = 0.0
  for start in range(0, len(directions), AT_ONCE):
    lines = directions[start : start + AT_ONCE].T
    first, second = (np.sort(rows @ lines, axis=0) for rows in (x, y))
    total += float(np.sum(np.mean((first - second) ** 2, axis=0)))
  return 3 * x.shape[1] * total / len(directions)


def _drawn(
  rows: Float[np.ndarray, "n d"], count: int, random: np.random.Generator
) -> Float[np.ndarray, "c d"]:
  return rows if len(rows) == count else rows[random.permutation(len(rows))[:count]]


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """For the registry: of unit-norm features."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) < 2:
    return
  random = np.random.default_rng([sets.seed, 0x313E])
  lines = unit_directions(FEW_DIRECTIONS, x.shape[1], random)

  def of_few(some: Float[np.ndarray, "a d"], tests: Float[np.ndarray, "b d"]) -> np.ndarray:
    size = min(len(some), len(tests))
    return np.array([sliced(_drawn(some, size, random), _drawn(tests, size, random), lines)])

  strata = strata_of(sets.labels, len(x)), sampled_strata(sets.test_labels, len(y))
  found = set_measurements(
    np.array([mind(x, y, seed=sets.seed)]),
    of_few,
    x,
    y,
    strata,
    sets.seed,
    sets.resamples,
    (0.0, np.inf),
  )
  yield Result("mind", found[0])
