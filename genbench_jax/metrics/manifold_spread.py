"""How precision, recall, density and coverage vary with the images of both sets.

They are means over the images of one set, but an image of the other set makes or moves the balls that many of them lie in.
On random halves of a few hundred images of each set the whole is computed anew; how much more it varies there than the
mean alone would is taken over to the full sets.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.metrics.half_samples import REPEATS, Halves, halves_of, variance_of
from genbench_jax.metrics.strata import are_paired

NAMES = ("precision", "recall", "density", "coverage")
# Images of each set that are looked at; their halves must hold more than the k neighbors of a radius.
MOST_ROWS = 400


class Spread(NamedTuple):
  """Variances of the four numbers, as shares of the variance of a mean of independent values.

  Attributes:
    test: with real images drawn anew, as a share of `both`; both: with both sets drawn anew, over that of the mean.
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
  """The spread of the four numbers; None where halves would have too few images."""
  random = np.random.default_rng([seed, 0xBA11])
  rows, columns = (np.sort(random.permutation(len(each))[:MOST_ROWS]) for each in (real, generated))
  if min(len(rows), len(columns)) < 2 * (k + 2):
    return None
  first, second = (
    np.asarray(each[some], np.float64) for each, some in ((real, rows), (generated, columns))
  )
  within_real, within_generated = squared_distances(first, first), squared_distances(second, second)
  across = squared_distances(first, second)
  halves = (
    _halves(real_strata[rows], seed, repeats),
    _halves(generated_strata[columns], seed + 1, repeats),
  )
  every = np.ones(len(columns), bool)

  # Half as many neighbors among half as many generated images, for balls of about the same size: recall saturates
  # otherwise. What lies in real balls is a count of many, which a smaller k only makes noisier.
  fewer = (k + 1) // 2

  def values(own: np.ndarray, other: np.ndarray) -> list[float]:
    parts = _each(
      within_real[np.ix_(own, own)],
      within_generated[np.ix_(other, other)],
      across[np.ix_(own, other)],
      k,
      k if other.all() else fewer,
    )
    return [float(part.mean()) for part in parts]

  test = [values(halves[0].rows(r), every) for r in range(repeats)]
  both = [values(halves[0].rows(r), halves[1].rows(r)) for r in range(repeats)]
  # The variance of a mean over one set, as the whole sets have it.
  inside = _each(within_real, within_generated, across, k, k)
  alone = np.array([part.var() / len(part) for part in inside])
  of_test, of_both = variance_of(np.array(test), halves[0]), variance_of(np.array(both), halves[0])
  of_both = np.maximum(of_both, of_test)
  ratio = np.where(alone > 0, of_both / np.where(alone > 0, alone, 1), 1.0)
  share = np.where(of_both > 0, of_test / np.where(of_both > 0, of_both, 1), 1.0)
  return Spread(
    dict(zip(NAMES, share.tolist(), strict=True)), dict(zip(NAMES, ratio.tolist(), strict=True))
  )


def _halves(strata: Int[np.ndarray, "n"], seed: int, repeats: int) -> Halves:
  """Within the strata where these have pairs, else of all."""
  strata = np.unique(strata, return_inverse=True)[1]
  return halves_of(strata if are_paired(strata) else np.zeros_like(strata), seed, repeats)


def _each(
  within_real: Float[np.ndarray, "n n"],
  within_generated: Float[np.ndarray, "m m"],
  across: Float[np.ndarray, "n m"],
  k: int,
  k_generated: int,
) -> list[np.ndarray]:
  """What each of the four is the mean of, radii from k real and `k_generated` generated neighbors."""
  real, generated = squared_radii(within_real, k), squared_radii(within_generated, k_generated)
  in_real = across < real[:, None]
  return [
    in_real.any(axis=0),
    (across < generated).any(axis=1),
    in_real.sum(axis=0) / k,
    in_real.any(axis=1),
  ]


def squared_radii(within: Float[np.ndarray, "n n"], k: int) -> Float[np.ndarray, "n"]:
  """Squared distance to the k-th nearest other image: the k-th after the zero on the diagonal."""
  return np.partition(within, k, axis=1)[:, k]


def squared_distances(
  rows: Float[np.ndarray, "n d"], columns: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
  """In float64; what float32 features can't tell from zero is zero."""
  rows, columns = rows.astype(np.float64), columns.astype(np.float64)
  lengths = np.sum(rows**2, 1)[:, None] + np.sum(columns**2, 1)
  distances = lengths - 2 * rows @ columns.T
  return np.where(distances > np.finfo(np.float32).eps * lengths, distances, 0)
