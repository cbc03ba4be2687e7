"""Seeded bootstrap intervals, computed on the host.

A resample is a vector of weights: how often each image was drawn. The weights depend only on the
number of images and the seed. All quantities of a cell, and all cells of a dataset, therefore share
their resamples, and differences between them are paired (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 6 and 13).

NumPy draws them: 20,000 images have a thousand resamples in .3 seconds, while a program for a
device takes a second to compile for every number of images.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int, UInt8

from genbench_jax.metrics.strata import are_paired, centered_within

RESAMPLES = 1000
LEVEL = 0.95
# Larger sets are resampled as this many random groups of images. The variance of a mean over groups
# is that over images, known to 1 % from so many.
MOST_UNITS = 2**15
# Resamples whose weights are in memory as floats at once.
RESAMPLES_AT_ONCE = 64
ONE_A_CLASS = "with one image per class, the variation within classes is unknown"


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A value and its two 95 % intervals, in the unit of the quantity.

  Attributes:
    value: the point estimate.
    ci_low, ci_high: interval for *these images*: only the test images vary.
    generator_low, generator_high: interval for *this generator* at this budget: external images
      vary, too. None if unknown; `note` then says why.
    note: why an interval is missing or should be read with care.
  """

  value: float
  ci_low: float
  ci_high: float
  generator_low: float | None = None
  generator_high: float | None = None
  note: str = ""


def interval(value: float, samples: Float[np.ndarray, "r"]) -> Measurement:
  """Return the percentile interval of resampled values; NaN marks an undefined resample."""
  defined = samples[~np.isnan(samples)]
  # Percentile interval (Efron & Tibshirani, chapter 13).
  low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Measurement(value, float(low), float(high))


@functools.lru_cache(maxsize=4)
def resample_weights(count: int, resamples: int, seed: int) -> UInt8[np.ndarray, "r n"]:
  """Return how often each of `count` units occurs in `count` draws, for each resample.

  Cached because the quantities of a cell share their images.

  Args:
    count: number of units.
    resamples: number of resamples; the first ones do not depend on it.
    seed: of the draws.
  """
  random = np.random.default_rng([seed % 2**32, count, 0xB007])
  weights = np.empty((resamples, count), np.uint8)
  for row in weights:
    drawn = random.integers(0, count, count)
    # uint8 is enough: the chance that a unit is drawn 256 times among n is below 1e-500.
    row[:] = np.bincount(drawn, minlength=count)
  return weights


def resampled_means(
  values: Float[np.ndarray, "n"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "r"]:
  """Return the mean of the values in each resample of the images.

  Args:
    values: one per image.
    resamples: number of resamples.
    seed: of the draws.
  """
  center = float(values.mean())
  sums = _sums_of_units(values - center, seed)
  weights = resample_weights(len(sums), resamples, seed)
  # The weights become floats slab by slab; sums of centered values keep the digits that vary.
  slabs = range(0, resamples, RESAMPLES_AT_ONCE)
  moved = np.concatenate([weights[s : s + RESAMPLES_AT_ONCE].astype(float) @ sums for s in slabs])
  return center + moved / len(values)


def _sums_of_units(values: Float[np.ndarray, "n"], seed: int) -> Float[np.ndarray, "u"]:
  """Return the values, or their sums over `MOST_UNITS` random groups of equal size."""
  if len(values) <= MOST_UNITS:
    return values
  order = np.random.default_rng([seed % 2**32, 0x6409]).permutation(len(values))
  return np.bincount(order % MOST_UNITS, values)


def own_interval(
  value: float,
  influences: Float[np.ndarray, "n"],
  strata: Int[np.ndarray, "n"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  lowest: float = -np.inf,
) -> Measurement:
  """Return the interval of a statistic of the external images alone, linearized in their weights.

  In a resample the statistic moves by the mean influence of the drawn images minus the mean
  influence of all images (Efron & Tibshirani, chapter 21). No test image is involved, so both
  intervals are the same.

  Args:
    value: the statistic of all images.
    influences: influence of each image; for a mean, the values themselves.
    strata: images are resampled within strata. If most strata have one image, all are resampled
      together, the generator interval is missing, and the note says so.
    resamples: number of resamples.
    seed: of the draws.
    lowest: smallest possible value of the statistic.
  """
  paired = are_paired(strata)
  moved = centered_within(influences, strata if paired else np.zeros_like(strata))
  samples = resampled_means(moved, resamples, seed) - moved.mean()
  found = interval(value, np.maximum(value + samples, lowest))
  if not paired:
    return dataclasses.replace(found, note=ONE_A_CLASS)
  return dataclasses.replace(found, generator_low=found.ci_low, generator_high=found.ci_high)


def two_sided_interval(
  value: float,
  external: Float[np.ndarray, "n"] | None,
  test: Float[np.ndarray, "m"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  lowest: float = -np.inf,
  shrink: tuple[float, float] = (1.0, 1.0),
) -> Measurement:
  """Return both intervals of a statistic of two sets, linearized in the weights of their images.

  Args:
    value: the statistic of all images.
    external: influence of each external image, centered within strata (`strata.centered_within`);
      None if the variation of external images is unknown.
    test: influence of each test image, centered within strata.
    resamples: number of resamples.
    seed: of the draws.
    lowest: smallest possible value of the statistic.
    shrink: factors on the deviations of the first and of the second interval, for influences that
      overstate them.
  """
  moved = resampled_means(test, resamples, seed) - test.mean()
  both = interval(value, np.maximum(value + shrink[0] * moved, lowest))
  if external is None:
    return dataclasses.replace(both, note=ONE_A_CLASS)
  # Another seed: external and test images are drawn independently.
  drawn = resampled_means(external, resamples, seed + 1) - external.mean()
  wide = interval(value, np.maximum(value + shrink[1] * (moved + drawn), lowest))
  return dataclasses.replace(both, generator_low=wide.ci_low, generator_high=wide.ci_high)
