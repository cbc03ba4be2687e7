"""Who is better on the same test images: difference, interval, p-value and a plain verdict.

Two recognizers that are tried on the same images err on the same hard ones: their difference varies less than two separate
intervals suggest. What other external images would change (the second interval of a row) is added for either side.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.statistics import holm
from genbench_jax.errors import UsageError

NORMAL = 1.959964
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class ImageOutcomes:
  """One recognizer on the test images of one dataset.

  Attributes:
    values: what each image adds: 1 where it was recognized, 0 where not.
    images: a digest of the test images' ids: only equal ones can be compared.
    weights: what each image counts, summing to 1: all the same for accuracy, 1 / (images of its class x classes) for
      mean per class. All the same by default.
    external_variance: of the score over fresh draws of the external images.
  """

  values: Float[np.ndarray, "n"]
  images: str = ""
  weights: Float[np.ndarray, "n"] | None = None
  external_variance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
  """First less second.

  Attributes:
    first, second: their names.
    dataset: the dataset, or None for the mean over all that both have.
    difference: in the unit of the score; ci_low, ci_high: its 95 % interval.
    p_value: of no difference, two-sided; p_corrected: for all comparisons of one call (Holm).
    n: test images, or datasets.
    verdict: `NAME is better` where p_corrected is below 0.05, else `can't be told apart`.
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
  """Every two runs or sources on each dataset that both have, and over these datasets.

  Args:
    runs: name -> dataset -> what was recognized.

  Returns:
    For each pair its datasets in order, then the mean over them, each dataset counting once. Pairs without a common
    dataset are left out.

  Raises:
    UsageError: two runs have different test images of one dataset.
  """
  found = [
    comparison
    for (first, one), (second, other) in itertools.combinations(runs.items(), 2)
    for comparison in _of_pair(first, second, one, other)
  ]
  corrected = holm(np.array([each.p_value for each in found])).tolist() if found else []
  return [_with_verdict(each, p) for each, p in zip(found, corrected, strict=True)]


def _of_pair(
  first: str, second: str, one: Mapping[str, ImageOutcomes], other: Mapping[str, ImageOutcomes]
) -> list[Comparison]:
  shared = [dataset for dataset in one if dataset in other]
  each = [
    paired_difference(first, second, dataset, one[dataset], other[dataset]) for dataset in shared
  ]
  return [*each, _mean(each)] if len(each) > 1 else each


def paired_difference(
  first: str, second: str, dataset: str, one: ImageOutcomes, other: ImageOutcomes
) -> Comparison:
  """Two recognizers on the same images (Agresti & Min 2005).

  As for matched pairs two images, one for each side, are added, so that no difference seen is not taken for none
  possible. The p-value is the normal one of the same difference and variance: interval and test agree.

  Raises:
    UsageError: the test images are not the same.
  """
  if one.images != other.images or len(one.values) != len(other.values):
    raise UsageError(
      f"{first} and {second} were tried on different test images of {dataset}: they can't be compared image by image"
    )
  differences = np.asarray(one.values, float) - np.asarray(other.values, float)
  weights = (
    one.weights if one.weights is not None else np.full(len(differences), 1 / len(differences))
  )
  count = 1 / float(np.sum(weights**2))
  center = float(weights @ differences) * count / (count + 2)
  square = float(weights @ differences**2)
  variance = ((square * count + 1) / (count + 2) - center**2) / (count + 2)
  variance += one.external_variance + other.external_variance
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


def _mean(each: Sequence[Comparison]) -> Comparison:
  """Over these very datasets, each counting once; they have different test images, so that variances add."""
  value = float(np.mean([one.difference for one in each]))
  center = float(np.mean([(one.ci_low + one.ci_high) / 2 for one in each]))
  errors = np.array([(one.ci_high - one.ci_low) / (2 * NORMAL) for one in each])
  error = math.sqrt(float(np.sum(errors**2))) / len(each)
  return Comparison(
    each[0].first,
    each[0].second,
    None,
    value,
    center - NORMAL * error,
    center + NORMAL * error,
    math.erfc(abs(center) / error / math.sqrt(2)),
    len(each),
  )


def _with_verdict(found: Comparison, p_corrected: float) -> Comparison:
  better = found.first if found.difference > 0 else found.second
  verdict = f"{better} is better" if p_corrected < LEVEL else "can't be told apart"
  return dataclasses.replace(found, p_corrected=p_corrected, verdict=verdict)
