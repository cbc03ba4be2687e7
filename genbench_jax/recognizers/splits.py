"""Validation splits, taken from the training images and never from the test images."""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

NEVER_HELD_OUT = -1


def class_targets(
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"], num_classes: int
) -> Float[np.ndarray, "n k"]:
  """Return one-hot or multi-hot targets as float32."""
  labels = np.asarray(labels)
  if labels.ndim == 2:
    return labels.astype(np.float32)
  return np.eye(num_classes, dtype=np.float32)[labels]


def strata(targets: Float[np.ndarray, "n k"]) -> Int[np.ndarray, "n"]:
  """Return the class of each image: the rarest if it has several, k if it has none."""
  frequencies = targets.sum(axis=0)
  # The rarest class is the hardest to balance over the folds.
  masked = np.where(targets > 0, frequencies, np.inf)
  return np.where(targets.any(axis=1), masked.argmin(axis=1), targets.shape[1])


def stratified_folds(
  targets: Float[np.ndarray, "n k"], num_folds: int, seed: int
) -> Int[np.ndarray, "n"]:
  """Return the fold in which each image is held out, balanced within each class.

  With two images per class, each is held out once while the other trains. A class with a single
  image is never held out (`NEVER_HELD_OUT`), because that would remove the class.

  Args:
    targets: one-hot or multi-hot labels.
    num_folds: number of folds.
    seed: of the division.
  """
  generator = np.random.default_rng(seed)
  groups = strata(targets)
  folds = np.full(len(targets), NEVER_HELD_OUT)
  for group in np.unique(groups):
    members = generator.permutation(np.flatnonzero(groups == group))
    # A random first fold per class; otherwise fold 0 would get the remainder of every class.
    first = generator.integers(num_folds)
    if len(members) > 1:
      folds[members] = (first + np.arange(len(members))) % num_folds
  return folds


def can_hold_out(targets: Float[np.ndarray, "n k"]) -> bool:
  """Return whether some class has two images, so that one can be held out."""
  return bool(np.bincount(strata(targets)).max(initial=0) > 1)


def first_fifth(targets: Num[np.ndarray, "n k"]) -> Bool[np.ndarray, "n"]:
  """Return the reference's validation images: the first ceil(0.2 n_c) of each class.

  For multi-label sets: in list order, every image with a class that is still short of its ceil(0.2
  n_c).
  """
  wanted = np.ceil(0.2 * targets.sum(axis=0))
  taken = np.zeros(targets.shape[1])
  chosen = np.zeros(len(targets), bool)
  for row, target in enumerate(targets):
    if np.any((target > 0) & (taken < wanted)):
      chosen[row] = True
      taken += target
  return chosen
