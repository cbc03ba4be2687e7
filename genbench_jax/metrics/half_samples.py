"""How a number would vary if the external images were drawn anew: from random halves of them.

The images of each class are dealt into groups; a replicate keeps a random half of the groups of every class and asks what
the number is then. Of a statistic of n images, values on halves drawn without replacement vary as the statistic itself
does over fresh draws (delete-half jackknife, Shao & Wu 1989). Unlike in a bootstrap no image occurs twice, which would
change votes and nearest neighbors.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Up to this many images a class each is a group of its own.
MOST_GROUPS = 16
REPEATS = 60


class Halves(NamedTuple):
  """Random halves of labeled images.

  Attributes:
    group: of each image, within its stratum.
    stratum: of each image.
    kept: for each replicate, whether a group of a stratum is in it.
    factor: by which to multiply the variance over the replicates: 1 where groups can be halved evenly.
  """

  group: Int[np.ndarray, "n"]
  stratum: Int[np.ndarray, "n"]
  kept: Bool[np.ndarray, "r s g"]
  factor: float

  def rows(self, replicate: int) -> Bool[np.ndarray, "n"]:
    """Which images a replicate keeps."""
    return self.kept[replicate, self.stratum, self.group]


def halves_of(strata: Int[np.ndarray, "n"], seed: int, repeats: int = REPEATS) -> Halves:
  """Random halves within the strata; an image alone in its stratum is always kept."""
  random = np.random.default_rng([seed, 0x4A1F])
  counts = np.bincount(strata)
  groups = np.minimum(counts, MOST_GROUPS)
  order = random.permutation(len(strata))
  place = np.empty(len(strata), np.int64)
  for stratum in range(len(counts)):
    own = order[strata[order] == stratum]
    place[own] = np.arange(len(own)) % max(groups[stratum], 1)
  kept = np.stack([_half_of_groups(groups, random) for _ in range(repeats)])
  return Halves(place, strata, kept, _factor(groups))


def _half_of_groups(
  groups: Int[np.ndarray, "s"], random: np.random.Generator
) -> Bool[np.ndarray, "s g"]:
  """A random half of each stratum's groups; of an odd number one more or one less."""
  half = np.maximum((groups + random.integers(0, 2, len(groups))) // 2, np.minimum(groups, 1))
  keys = random.random((len(groups), int(groups.max())))
  keys[np.arange(keys.shape[1]) >= groups[:, None]] = np.inf
  return keys.argsort(axis=1).argsort(axis=1) < half[:, None]


def _factor(groups: Int[np.ndarray, "s"]) -> float:
  """The variance of a mean of g over that of b of g less that of g, b a half: (1/g) / E[1/b - 1/g]."""
  groups = groups[groups > 1]
  if not len(groups):
    return 1.0
  lower, upper = np.maximum(groups // 2, 1), np.maximum((groups + 1) // 2, 1)
  excess = (1 / lower + 1 / upper) / 2 - 1 / groups
  return float(np.sum(1 / groups) / np.sum(excess))


def variance_of(values: Float[np.ndarray, "r v"], halves: Halves) -> Float[np.ndarray, "v"]:
  """The variance of each column over fresh draws of the external images."""
  return halves.factor * values.var(axis=0, ddof=1)
