"""Paired comparison of two recognizers on the same test images.

Two recognizers tend to fail on the same hard images, so their difference varies less than their
separate intervals suggest. The variance due to external images (the second interval of a row) is
added for both sides.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.statistics import holm
from genbench_jax.errors import UsageError
from genbench_jax.runtime.protocol import NORMAL

LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class ImageOutcomes:
  """Outcomes of one recognizer on the test images of one dataset.

  Attributes:
    values: contribution of each image: 1 if it was recognized, else 0.
    images: digest of the test images' ids; outcomes are comparable only if it is equal.
    weights: weight of each image; they sum to 1. None means equal weights, which gives accuracy; 1
      / (images of its class x classes) gives the mean per class.
    external_variance: variance of the score over fresh draws of the external images.
  """

  values: Float[np.ndarray, "n"]
  images: str = ""
  weights: Float[np.ndarray, "n"] | None = None
  external_variance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Difference of two recognizers, the first minus the second.

  Attributes:
    first, second: their names.
    dataset: the dataset, or None for the mean over all shared datasets.
    difference: difference of the scores, in their unit.
    ci_low, ci_high: 95 % interval of the difference.
    p_value: two-sided p-value of no difference.
    p_corrected: p-value corrected for all comparisons of one call (Holm).
    n: number of test images, or of datasets.
    verdict: `NAME is better` if p_corrected is below 0.05, else `can't be told apart`.
  """

  first: str
  second: str
  dataset: str | None
  difference: float
  ci_low: float
  ci_high: float
  p_value: float
  n: int
  p_corrected: float = 1.0
  verdict: str = ""


def compare(runs: Mapping[str, Mapping[str, ImageOutcomes]]) -> list[Comparison]:
  """Compare every pair of recognizers on each shared dataset, and over their shared datasets.

  Args:
    runs: outcomes by name and dataset.

  Returns:
    For each pair, its datasets in order and then their mean, each dataset counted once. Pairs
    without a shared dataset are left out.

  Raises:
    UsageError: two recognizers were tested on different images of a dataset.
  """
  found = [
    comparison
    for (first, ours), (second, theirs) in itertools.combinations(runs.items(), 2)
    for comparison in _of_pair(first, second, ours, theirs)
  ]
  corrected = holm(np.array([comparison.p_value for comparison in found])).tolist() if found else []
  return [_with_verdict(comparison, p) for comparison, p in zip(found, corrected, strict=True)]


def _of_pair(
  first: str, second: str, ours: Mapping[str, ImageOutcomes], theirs: Mapping[str, ImageOutcomes]
) -> list[Comparison]:
  shared = [dataset for dataset in ours if dataset in theirs]
  comparisons = [
    paired_difference(first, second, dataset, ours[dataset], theirs[dataset]) for dataset in shared
  ]
  return [*comparisons, _mean(comparisons)] if len(comparisons) > 1 else comparisons


def paired_difference(
  first: str, second: str, dataset: str, ours: ImageOutcomes, theirs: ImageOutcomes
) -> Comparison:
  """Compare two recognizers on the same images (Agresti & Min 2005).

  As for matched pairs, half a pseudo-image is added to each of the four outcomes (both, first,
  second, neither); otherwise, observing no difference would give a zero-width interval. The p-value
  uses the same normal approximation, so test and interval agree.

  Args:
    first, second: names of the recognizers.
    dataset: name of the dataset.
    ours, theirs: outcomes of the first and of the second.

  Raises:
    UsageError: the test images differ.
  """
  if ours.images != theirs.images or len(ours.values) != len(theirs.values):
    raise UsageError(
      f"cannot compare {first} and {second} on {dataset}: they were tested on different test images of {dataset}"
    )
  differences = np.asarray(ours.values, float) - np.asarray(theirs.values, float)
  weights = (
    ours.weights if ours.weights is not None else np.full(len(differences), 1 / len(differences))
  )
  # Kish's effective number of images: n for equal weights.
  count = 1 / float(np.sum(weights**2))
  # Half an image for each outcome: two more images, the same sum, and 1 more in the sum of squares.
  center = float(weights @ differences) * count / (count + 2)
  square = float(weights @ differences**2)
  variance = ((square * count + 1) / (count + 2) - center**2) / (count + 2)
  variance += ours.external_variance + theirs.external_variance
  half = NORMAL * math.sqrt(variance)
  return Comparison(
    first,
    second,
    dataset,
    float(weights @ differences),
    center - half,
    center + half,
    math.erfc(abs(center) / math.sqrt(2 * variance)),
    len(differences),
  )


def _mean(comparisons: Sequence[Comparison]) -> Comparison:
  """Return the mean over datasets. Their test images are disjoint, so variances add."""
  value = float(np.mean([each.difference for each in comparisons]))
  center = float(np.mean([(each.ci_low + each.ci_high) / 2 for each in comparisons]))
  errors = np.array([(each.ci_high - each.ci_low) / (2 * NORMAL) for each in comparisons])
  # The variance of a mean of independent differences.
  error = math.sqrt(float(np.sum(errors**2))) / len(comparisons)
  return Comparison(
    comparisons[0].first,
    comparisons[0].second,
    None,
    value,
    center - NORMAL * error,
    center + NORMAL * error,
    math.erfc(abs(center) / error / math.sqrt(2)),
    len(comparisons),
  )


def _with_verdict(found: Comparison, p_corrected: float) -> Comparison:
  better = found.first if found.difference > 0 else found.second
  verdict = f"{better} is better" if p_corrected < LEVEL else "can't be told apart"
  return dataclasses.replace(found, p_corrected=p_corrected, verdict=verdict)
