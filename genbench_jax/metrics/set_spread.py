"""Intervals of a statistic of two sets that is not a mean, from its values on parts of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.bootstrap import ONE_A_CLASS, Measurement
from genbench_jax.metrics.half_samples import REPEATS, halves_of
from genbench_jax.metrics.intervals import wilson
from genbench_jax.metrics.manifold_spread import MOST_ROWS
from genbench_jax.metrics.strata import are_paired
from genbench_jax.runtime.protocol import NORMAL

OnParts = Callable[[Bool[np.ndarray, "n"], Bool[np.ndarray, "m"]], Float[np.ndarray, "v"]]
Prepare = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], OnParts]


class Replicates(NamedTuple):
  """Random parts of a set.

  Attributes:
    kept: images of each part.
    factor: converts the variance over parts into the variance over fresh draws of the set.
  """

  kept: Bool[np.ndarray, "r n"]
  factor: float


class Variances(NamedTuple):
  """Variance of each value over fresh test images, fresh external images, and both."""

  test: Float[np.ndarray, "v"]
  external: Float[np.ndarray, "v"]
  both: Float[np.ndarray, "v"]


def set_measurements(
  values: Float[np.ndarray, "v"],
  prepare: Prepare,
  external: Float[np.ndarray, "n d"],
  test: Float[np.ndarray, "m d"],
  strata: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]],
  seed: int,
  resamples: int = REPEATS,
  joint: bool = False,
  equal_sizes: bool = False,
  bounded: bool = False,
  proportions: bool = False,
) -> list[Measurement]:
  """Return the values with their intervals.

  The variance of the second interval is the sum over the two sets, each halved while the other is
  whole. Halving both at once would count second-order terms three times: at n / 2 they are four
  times as large, and one of the four is the value's own.

  Args:
    values: the statistics of all images.
    prepare: takes external and test images; returns a function that computes the statistics of
      parts of them. If it returns a multiple of the number of values, the repetitions are
      alternatives whose variances are averaged.
    external, test: features of both sets.
    strata: strata of both sets, see `strata`.
    seed: of the subsets and parts.
    resamples: number of parts, at most `REPEATS`.
    joint: whether to halve both sets at once nevertheless, for statistics that saturate.
    equal_sizes: whether the statistic uses equally many images of both sets.
    bounded: whether values lie between 0 and 1.
    proportions: whether values are shares of images, which have Wilson's intervals.
  """
  random = np.random.default_rng([seed, 0x5E7])
  rows = [np.sort(random.permutation(len(images))[:MOST_ROWS]) for images in (external, test)]
  parts = [np.asarray(e[r], np.float64) for e, r in zip((external, test), rows, strict=True)]
  own = [np.unique(s[r], return_inverse=True)[1] for s, r in zip(strata, rows, strict=True)]
  sizes = [len(part) for part in parts]
  full = [len(external), len(test)]
  if equal_sizes:
    sizes, full = [min(sizes)] * 2, [min(full)] * 2
  repeats = min(resamples, REPEATS)
  replicates = [
    _replicates(s, size, seed + turn, repeats)
    for turn, (s, size) in enumerate(zip(own, sizes, strict=True))
  ]
  found = _variances(prepare(*parts), replicates, len(values), joint)
  # A variance is proportional to 1 / n: scale it from the subset to the full set.
  share = [size / count for size, count in zip(sizes, full, strict=True)]
  of_test, of_external = found.test * share[1], found.external * share[0]
  apart = found.test + found.external
  both = (of_test + of_external) * np.where(
    apart > 0, found.both / np.where(apart > 0, apart, 1), 1
  )

  def ends(value: float, variance: float, count: int) -> tuple[float, float]:
    if proportions or (bounded and variance == 0):
      return wilson(value, variance, count)
    half = NORMAL * float(np.sqrt(variance))
    return max(value - half, 0.0), min(value + half, 1.0) if bounded else value + half

  measurements = []
  for value, near, wide in zip(values.tolist(), of_test, np.maximum(both, of_test), strict=True):
    first = ends(value, float(near), full[1])
    if are_paired(own[0]):
      measurements.append(Measurement(value, *first, *ends(value, float(wide), full[0])))
    else:
      measurements.append(Measurement(value, *first, note=ONE_A_CLASS))
  return measurements


def _replicates(strata: Int[np.ndarray, "n"], size: int, seed: int, repeats: int) -> Replicates:
  """Return parts for a statistic of `size` images: halves of all, or smaller random subsets."""
  count = len(strata)
  if size == count:
    halves = halves_of(strata if are_paired(strata) else np.zeros_like(strata), seed, repeats)
    return Replicates(np.stack([halves.rows(r) for r in range(repeats)]), halves.factor)
  part = max(min(size, count // 2), 1)
  ranks = np.random.default_rng([seed, 0x5B5]).random((repeats, count)).argsort(axis=1)
  # The mean of `part` out of `count` images has variance s^2 (1 / part - 1 / count); the target is
  # s^2 / size.
  return Replicates(ranks.argsort(axis=1) < part, 1 / size / (1 / part - 1 / count))


def _variances(
  statistic: OnParts, replicates: list[Replicates], count: int, joint: bool
) -> Variances:
  external, test = replicates
  every = [np.ones(side.kept.shape[1], bool) for side in replicates]
  of_test = np.array([statistic(every[0], kept) for kept in test.kept])
  of_external = np.array([statistic(kept, every[1]) for kept in external.kept])
  first, second = (
    _variance(values, side.factor, count)
    for values, side in ((of_test, test), (of_external, external))
  )
  if not joint:
    return Variances(first, second, first + second)
  of_both = np.array([statistic(*pair) for pair in zip(external.kept, test.kept, strict=True)])
  return Variances(first, second, _variance(of_both, external.factor, count))


def _variance(
  values: Float[np.ndarray, "r c"], factor: float, count: int
) -> Float[np.ndarray, "v"]:
  """Return the variance of each value, the mean over its columns."""
  return factor * values.var(axis=0, ddof=1).reshape(-1, count).mean(axis=0)
