"""Strata of a set of images: its classes if it was drawn class by class, else a single stratum.

A set with s images of every class has fewer pairs within a class than independent images would
have, and its class proportions do not vary. Estimators and intervals must know which of the two
cases holds.
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

# A set counts as drawn class by class if its counts are more even than 99.9 % of independent
# samples.
EVENNESS = 1e-3
# Within-class terms of single-image classes are taken from the other classes, which must be at
# least this share.
FEWEST_PAIRED = 0.5


def strata_of(labels: Any | None, rows: int) -> Int[np.ndarray, "n"]:
  """Return the stratum of each image: its class, or 0 for all without one label per image."""
  if labels is None:
    return np.zeros(rows, np.int64)
  labels = np.asarray(labels)
  if labels.ndim == 2:
    if not (labels.sum(axis=1) == 1).all():
      return np.zeros(rows, np.int64)
    labels = labels.argmax(axis=1)
  return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def sampled_strata(labels: Any | None, rows: int) -> Int[np.ndarray, "n"]:
  """Return `strata_of` a test set if it was drawn class by class, else a single stratum."""
  strata = strata_of(labels, rows)
  return strata if is_drawn_by_class(np.bincount(strata)) else np.zeros(rows, np.int64)


def is_drawn_by_class(counts: Int[np.ndarray, "k"]) -> bool:
  """Return whether class counts are more even than independent draws would be.

  The test is Pearson's statistic against equal proportions, in the lower tail of its chi-square
  distribution.
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
  """Return whether enough classes have two or more images to estimate within-class terms."""
  counts = np.bincount(strata)
  counts = counts[counts > 0]
  return bool(np.mean(counts > 1) >= FEWEST_PAIRED)


def has_pairs(labels: Any) -> bool:
  """Return `are_paired` for the classes of labeled images."""
  return are_paired(strata_of(labels, len(labels)))


def centered_within(
  values: Float[np.ndarray, "n"], strata: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
  """Return deviations from stratum means, scaled to have the unbiased variance.

  They sum to zero in each stratum. A bootstrap of them is therefore a bootstrap within strata: how
  often a stratum is drawn does not matter. sqrt(n_c / (n_c - 1)) corrects for the mean estimated
  from n_c images (Rao & Wu 1988). An image alone in its class gets the root mean square of the
  others.
  """
  counts = np.bincount(strata)
  means = np.bincount(strata, values) / np.maximum(counts, 1)
  own = counts[strata]
  deviations = (values - means[strata]) * np.sqrt(own / np.maximum(own - 1, 1))
  paired = own > 1
  if paired.any() and not paired.all():
    deviations[~paired] = np.sqrt(np.mean(deviations[paired] ** 2))
  return deviations
