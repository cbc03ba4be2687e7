"""How a set of images was drawn: class by class, or as it came.

A set with s images of every class has fewer pairs of one class than a sample of independent images would have, and its
class proportions do not vary. Estimators and intervals have to know which of the two they are looking at.
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

# A set whose class counts are more even than one in a thousand independent samples was made even.
EVENNESS = 1e-3
# Within-class terms of classes with a single image are taken from the others, which must be this share of all.
FEWEST_PAIRED = 0.5


def strata_of(labels: Any | None, rows: int) -> Int[np.ndarray, "n"]:
  """The stratum of each image: its class, or 0 for all where images have no label or not exactly one."""
  if labels is None:
    return np.zeros(rows, np.int64)
  labels = np.asarray(labels)
  if labels.ndim == 2:
    if not (labels.sum(axis=1) == 1).all():
      return np.zeros(rows, np.int64)
    labels = labels.argmax(axis=1)
  return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def sampled_strata(labels: Any | None, rows: int) -> Int[np.ndarray, "n"]:
  """`strata_of` a test set: its classes if it was drawn class by class, else one stratum."""
  strata = strata_of(labels, rows)
  return strata if is_drawn_by_class(np.bincount(strata)) else np.zeros(rows, np.int64)


def is_drawn_by_class(counts: Int[np.ndarray, "k"]) -> bool:
  """Whether classes of these sizes are more even than independent draws would be.

  Pearson's statistic against equal proportions, in the lower tail of its chi-square distribution.
  """
  if len(counts) < 2:
    return False
  expected = counts.sum() / len(counts)
  statistic = float(np.sum((counts - expected) ** 2) / expected)
  return statistic <= _even_threshold(len(counts) - 1)


@functools.cache
def _even_threshold(freedom: int) -> float:
  from scipy.stats import chi2

  return float(chi2.ppf(EVENNESS, freedom))


def are_paired(strata: Int[np.ndarray, "n"]) -> bool:
  """Whether enough classes have two images or more: without pairs nothing is known about what is within a class."""
  counts = np.bincount(strata)
  counts = counts[counts > 0]
  return bool(np.mean(counts > 1) >= FEWEST_PAIRED)


def has_pairs(labels: Any) -> bool:
  """`are_paired` of the classes of labeled images."""
  return are_paired(strata_of(labels, len(labels)))


def centered_within(
  values: Float[np.ndarray, "n"], strata: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
  """Deviations from the mean of the stratum, so scaled that their mean square is the unbiased variance.

  A bootstrap of these is a bootstrap within the strata: the sum over a stratum is zero, so that it does not matter how
  often the stratum itself is drawn. sqrt(n_c / (n_c - 1)) makes up for the mean that was estimated from n_c images
  (Rao and Wu 1988); a single image of a class stands for an average one of the others.
  """
  counts = np.bincount(strata)
  means = np.bincount(strata, values) / np.maximum(counts, 1)
  own = counts[strata]
  deviations = (values - means[strata]) * np.sqrt(own / np.maximum(own - 1, 1))
  paired = own > 1
  if paired.any() and not paired.all():
    deviations[~paired] = np.sqrt(np.mean(deviations[paired] ** 2))
  return deviations
