"""Intervals of a statistic of two sets that is not a mean, from its values on random halves."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.metrics.bootstrap import ONE_A_CLASS, Measurement
from genbench_jax.metrics.half_samples import REPEATS, halves_of, variance_of
from genbench_jax.metrics.intervals import NORMAL
from genbench_jax.metrics.strata import are_paired

# Images of each set that are used, to bound the cost of a replicate.
MOST_ROWS = 400

Statistic = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], Float[np.ndarray, "v"]]


def set_measurements(
  values: Float[np.ndarray, "v"],
  statistic: Statistic,
  external: Float[np.ndarray, "n d"],
  test: Float[np.ndarray, "m d"],
  strata: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]],
  seed: int,
  resamples: int = REPEATS,
  limits: tuple[float, float] = (-np.inf, np.inf),
) -> list[Measurement]:
  """Return the values with normal intervals; variances come from halves of both sets.

  Args:
    values: the statistics of all images.
    statistic: computes the same statistics from a subset of external and of test images.
    external, test: features of both sets.
    strata: strata of both sets, see `strata`.
    seed: of the subsets and halves.
    resamples: number of halves, at most `REPEATS`.
    limits: smallest and largest possible value.
  """
  random = np.random.default_rng([seed, 0x5E7])
  rows = [np.sort(random.permutation(len(images))[:MOST_ROWS]) for images in (external, test)]
  parts = [np.asarray(e[r], np.float64) for e, r in zip((external, test), rows, strict=True)]
  own = [np.unique(s[r], return_inverse=True)[1] for s, r in zip(strata, rows, strict=True)]
  paired = are_paired(own[0])
  repeats = min(resamples, REPEATS)
  halves = [
    halves_of(s if are_paired(s) else np.zeros_like(s), seed + turn, repeats)
    for turn, s in enumerate(own)
  ]
  tests = [parts[1][halves[1].rows(r)] for r in range(repeats)]
  of_test = np.array([statistic(parts[0], half) for half in tests])
  of_both = np.array([
    statistic(parts[0][halves[0].rows(r)], half) for r, half in enumerate(tests)
  ])  # fmt: skip
  # A variance is proportional to 1 / n: scale it from the subset to the full set.
  share = len(rows[1]) / len(test), len(rows[0]) / len(external)
  test_variance = variance_of(of_test, halves[1]) * share[0]
  both_variance = np.maximum(variance_of(of_both, halves[0]) * max(share), test_variance)
  return [
    _measurement(*columns, paired, limits)
    for columns in zip(values, test_variance, both_variance, strict=True)
  ]


def _measurement(
  value: float, test: float, both: float, paired: bool, limits: tuple[float, float]
) -> Measurement:
  ends = [
    float(np.clip(value + sign * NORMAL * np.sqrt(variance), *limits))
    for variance in (test, both)
    for sign in (-1, 1)
  ]
  if not paired:
    return Measurement(float(value), ends[0], ends[1], note=ONE_A_CLASS)
  return Measurement(float(value), ends[0], ends[1], ends[2], ends[3])
