"""Variance of precision, recall, density and coverage over the images of both sets.

Each is a mean over the images of one set. But an image of the other set creates or moves the balls
that many of them lie in, so the variance exceeds that of a mean. All four are recomputed on random
halves of a few hundred images per set; the ratio of their variance to that of a mean is applied to
the full sets.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.metrics.half_samples import REPEATS, Halves, halves_of, variance_of
from genbench_jax.metrics.strata import are_paired

NAMES = ("precision", "recall", "density", "coverage")
# Images per set that are used. A half must have more images than the k neighbors of a radius.
MOST_ROWS = 400


class Spread(NamedTuple):
  """Variances of the four metrics, relative to that of a mean of independent values.

  Attributes:
    test: variance with real images redrawn, relative to `both`.
    both: variance with both sets redrawn, relative to the variance of the mean.
  """

  test: dict[str, float]
  both: dict[str, float]


def spread_of(
  real: Float[np.ndarray, "n d"],
  generated: Float[np.ndarray, "m d"],
  real_strata: Int[np.ndarray, "n"],
  generated_strata: Int[np.ndarray, "m"],
  k: int,
  seed: int,
  repeats: int = REPEATS,
) -> Spread | None:
  """Return the spread of the four metrics; None if halves would have too few images.

  Args:
    real, generated: features of both sets.
    real_strata, generated_strata: strata of both sets.
    k: neighbors that define a radius.
    seed: of the subsets and halves.
    repeats: number of halves.
  """
  random = np.random.default_rng([seed, 0xBA11])
  rows, columns = (
    np.sort(random.permutation(len(images))[:MOST_ROWS]) for images in (real, generated)
  )
  if min(len(rows), len(columns)) < 2 * (k + 2):
    return None
  first, second = (
    np.asarray(images[drawn], np.float64) for images, drawn in ((real, rows), (generated, columns))
  )
  within_real, within_generated = squared_distances(first, first), squared_distances(second, second)
  across = squared_distances(first, second)
  halves = (
    _halves(real_strata[rows], seed, repeats),
    _halves(generated_strata[columns], seed + 1, repeats),
  )
  every = np.ones(len(columns), bool)

  # Half as many neighbors among half as many generated images keep the balls about equally large;
  # otherwise recall saturates.
  fewer = (k + 1) // 2

  def values(own: np.ndarray, other: np.ndarray, k_real: int = k) -> list[float]:
    parts = _each(
      within_real[np.ix_(own, own)],
      within_generated[np.ix_(other, other)],
      across[np.ix_(own, other)],
      k_real,
      k if other.all() else fewer,
    )
    return [float(part.mean()) for part in parts]

  # Among half of the real images k neighbors make balls of twice the share, which hides half of
  # what other real images change (precision); k / 2 neighbors make balls as large, whose counts are
  # noisier. The true variance lies in the middle: .51 and 1.45 of it for precision, .80 and 1.27
  # for density (benchmarks/intervals.py).
  test = [
    [values(halves[0].rows(r), every, k_real) for r in range(repeats)] for k_real in (k, fewer)
  ]
  both = [values(halves[0].rows(r), halves[1].rows(r)) for r in range(repeats)]
  # Variance of a mean over one full set.
  inside = _each(within_real, within_generated, across, k, k)
  alone = np.array([part.var() / len(part) for part in inside])
  of_test = np.mean([variance_of(np.array(each), halves[0]) for each in test], axis=0)
  of_both = variance_of(np.array(both), halves[0])
  of_both = np.maximum(of_both, of_test)
  ratio = np.where(alone > 0, of_both / np.where(alone > 0, alone, 1), 1.0)
  share = np.where(of_both > 0, of_test / np.where(of_both > 0, of_both, 1), 1.0)
  return Spread(
    dict(zip(NAMES, share.tolist(), strict=True)), dict(zip(NAMES, ratio.tolist(), strict=True))
  )


def _halves(strata: Int[np.ndarray, "n"], seed: int, repeats: int) -> Halves:
  """Return halves within strata if these have pairs, else of all images."""
  strata = np.unique(strata, return_inverse=True)[1]
  return halves_of(strata if are_paired(strata) else np.zeros_like(strata), seed, repeats)


def _each(
  within_real: Float[np.ndarray, "n n"],
  within_generated: Float[np.ndarray, "m m"],
  across: Float[np.ndarray, "n m"],
  k: int,
  k_generated: int,
) -> list[np.ndarray]:
  """Return the per-image values whose means are the four metrics."""
  real, generated = squared_radii(within_real, k), squared_radii(within_generated, k_generated)
  in_real = across < real[:, None]
  return [
    in_real.any(axis=0),
    (across < generated).any(axis=1),
    in_real.sum(axis=0) / k,
    in_real.any(axis=1),
  ]


def squared_radii(within: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n"]:
  """Return the squared distance to the k-th nearest other image, after the diagonal's zero."""
  return np.partition(within, k, axis=1)[:, k]


def squared_distances(
  rows: Float[np.ndarray, "n d"], columns: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
  """Return squared distances in float64; those below float32 resolution become zero."""
  rows, columns = rows.astype(np.float64), columns.astype(np.float64)
  lengths = np.sum(rows**2, 1)[:, None] + np.sum(columns**2, 1)
  distances = lengths - 2 * rows @ columns.T
  return np.where(distances > np.finfo(np.float32).eps * lengths, distances, 0)
