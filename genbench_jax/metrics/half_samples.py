"""Sampling variance of a statistic, from random halves of the external images.

The images of each class are dealt into groups. A replicate keeps a random half of the groups of
every class and recomputes the statistic. Over halves drawn without replacement, the statistic
varies as it would over fresh draws (delete-half jackknife, Shao & Wu 1989). Unlike in a bootstrap,
no image occurs twice; duplicates would distort votes and nearest neighbors.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# A class with up to this many images has one group per image.
MOST_GROUPS = 16
REPEATS = 60


class Halves(NamedTuple):
  """Random halves of labeled images.

  Attributes:
    group: group of each image, within its stratum.
    stratum: stratum of each image.
    kept: for each replicate and stratum, which groups it keeps.
    factor: factor for the variance over the replicates; 1 if all strata have an even number of
      groups.
  """

  group: Int[np.ndarray, "n"]
  stratum: Int[np.ndarray, "n"]
  kept: Bool[np.ndarray, "r s g"]
  factor: float

  def rows(self, replicate: int) -> Bool[np.ndarray, "n"]:
    """Return a mask of the images that a replicate keeps."""
    return self.kept[replicate, self.stratum, self.group]


def halves_of(strata: Int[np.ndarray, "n"], seed: int, repeats: int = REPEATS) -> Halves:
  """Draw random halves within the strata. An image alone in its stratum is always kept.

  Args:
    strata: stratum of each image.
    seed: of the halves.
    repeats: number of halves.
  """
  random = np.random.default_rng([seed, 0x4A1F])
  counts = np.bincount(strata)
  groups = np.minimum(counts, MOST_GROUPS)
  order = random.permutation(len(strata))
  place = np.empty(len(strata), np.int64)
  # Position of the image within its stratum in random order, modulo the number of groups.
  for stratum in range(len(counts)):
    own = order[strata[order] == stratum]
    place[own] = np.arange(len(own)) % max(groups[stratum], 1)
  kept = np.stack([_half_of_groups(groups, random) for _ in range(repeats)])
  return Halves(place, strata, kept, _factor(groups))


def _half_of_groups(
  groups: Int[np.ndarray, "s"], random: np.random.Generator
) -> Bool[np.ndarray, "s g"]:
  """Return a random half of each stratum's groups; an odd number rounds up or down at random."""
  half = np.maximum((groups + random.integers(0, 2, len(groups))) // 2, np.minimum(groups, 1))
  # The `half` smallest of random keys are a random subset; groups beyond a stratum's number sort
  # last.
  keys = random.random((len(groups), int(groups.max())))
  keys[np.arange(keys.shape[1]) >= groups[:, None]] = np.inf
  return keys.argsort(axis=1).argsort(axis=1) < half[:, None]


def _factor(groups: Int[np.ndarray, "s"]) -> float:
  """Return (1/g) / E[1/b - 1/g], with b = g/2 rounded up or down."""
  groups = groups[groups > 1]
  if not len(groups):
    return 1.0
  lower, upper = np.maximum(groups // 2, 1), np.maximum((groups + 1) // 2, 1)
  excess = (1 / lower + 1 / upper) / 2 - 1 / groups
  return float(np.sum(1 / groups) / np.sum(excess))


def variance_of(values: Float[np.ndarray, "r v"], halves: Halves) -> Float[np.ndarray, "v"]:
  """Return the variance of each column over fresh draws of the external images."""
  return halves.factor * values.var(axis=0, ddof=1)


def common_variance(
  values: Float[np.ndarray, "r m"], weights: Float[np.ndarray, "m"], halves: Halves
) -> float:
  """Return the part of a mean's variance that external images cause for all test images in common.

  With f(x, y) the value of test image y given external images x, the variance of the mean over m
  test images is Var_x E_y f + E_x Var_y f / m. The second term already contains the changes that
  other external images cause for each test image separately. The variance of the mean over halves
  contains them again, on the diagonal of the covariance of the test images; the rest is common.

  Args:
    values: value of each test image in each replicate.
    weights: weight of each test image; they sum to 1.
    halves: the replicates.
  """
  means = values @ weights
  squares = weights**2
  alone = float(squares @ values.var(axis=0, ddof=1))
  rest = (float(means.var(ddof=1)) - alone) / max(1 - float(squares.sum()), 1e-9)
  return halves.factor * max(rest, 0.0)
