"""Few-shot subsets of a training split.

`few_shot` is for the strict protocol: seeded and nested. `reference_few_shot` reproduces the published code,
which makes a separate pass for each number of shots. Recognizers split off validation data afterwards.
"""

import random
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int

ALL_SHOTS = (0, -1)


def few_shot(
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"], shots: int, seed: int
) -> Int[np.ndarray, "m"]:
  """Return a seeded subset with at most `shots` images per class that contains all smaller subsets.

  Classes with fewer images keep all of them. With multi-hot labels, the rule of `reference_few_shot` is
  applied for 1, 2, ... shots in turn, each time to the remaining images; the number of images per class is
  then only about `shots`.

  Args:
    labels: class indices, or multi-hot.
    shots: images per class; 0 or -1 for all.
    seed: seed of the order in which images are taken.

  Returns:
    Row indices in the order in which they are taken, first shots first. The subset for fewer shots with the
    same seed is a prefix.
  """
  order = np.random.default_rng(seed).permutation(len(labels))
  if labels.ndim == 2:
    return _grown(labels, order, shots)
  rank = _rank_in_class(labels, order)
  chosen = np.flatnonzero(rank < (len(labels) if shots in ALL_SHOTS else shots))
  return chosen[np.lexsort((labels[chosen], rank[chosen]))]


def _rank_in_class(
  labels: Int[np.ndarray, "n"], order: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
  """Return how many images of the same class precede each image in the given order."""
  by_class = order[np.argsort(labels[order], kind="stable")]
  counts = np.bincount(labels)
  rank = np.empty(len(labels), np.int64)
  rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  return rank


def _grown(
  labels: Bool[np.ndarray, "n k"], order: Int[np.ndarray, "n"], shots: int
) -> Int[np.ndarray, "m"]:
  """Grow the subset shot by shot; return every image if all are requested."""
  walk = _Walk(labels)
  left = order.tolist()
  last = int(max(1, labels.sum(axis=0).max(initial=0), (~labels.any(axis=1)).sum()))
  for shot in range(1, (last if shots in ALL_SHOTS else shots) + 1):
    taken = set(walk.take(left, shot))
    left = [index for index in left if index not in taken]
    if not left:
      break
  return np.array([*walk.taken, *(left if shots in ALL_SHOTS else ())], np.int64)


def reference_few_shot(
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"], shots: int, seed: int
) -> Int[np.ndarray, "m"]:
  """Return the reference's few-shot subset (`sample_few_shot_subset`), in its order.

  All images are shuffled by Python's Random(seed) and visited in turn. With one label, an image is kept while
  its class has fewer than `shots`. With several labels, it is dropped if all of its classes have `shots`, and
  kept if the rarest of them has at most half of that, or the most frequent at most 1.5 times that. Images
  without labels are kept up to `shots`. The walk ends when every class has its shots. One shot means two, one
  of them for validation.

  Args:
    labels: class indices, or multi-hot.
    shots: images per class; 0 or -1 for all.
    seed: seed of the shuffle.

  Returns:
    Row indices, in the shuffled order.
  """
  order = list(range(len(labels)))
  random.Random(seed).shuffle(order)
  if shots in ALL_SHOTS:
    return np.arange(len(labels))
  walk = _Walk(labels if labels.ndim == 2 else _one_hot(labels))
  wanted = 2 if shots == 1 else shots
  for index in order:
    if walk.take([index], wanted) and len(walk.classes[index]) and walk.counts.min() >= wanted:
      break
  return np.array(walk.taken, np.int64)


def _one_hot(labels: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n k"]:
  return labels[:, None] == np.arange(labels.max(initial=0) + 1)


class _Walk:
  """A walk through images that counts the images taken per class."""

  def __init__(self, labels: Bool[np.ndarray, "n k"]):
    self.classes = [np.flatnonzero(row) for row in labels]
    self.counts = np.zeros(labels.shape[1], np.int64)
    self.unlabeled = 0
    self.taken: list[int] = []

  def take(self, indices: Iterable[int], shots: int) -> list[int]:
    """Take the images that are still wanted at `shots` images per class, and return them."""
    before = len(self.taken)
    for index in indices:
      if self._is_wanted(index, shots):
        self.counts[self.classes[index]] += 1
        self.unlabeled += not len(self.classes[index])
        self.taken.append(index)
    return self.taken[before:]

  def _is_wanted(self, index: int, shots: int) -> bool:
    counts = self.counts[self.classes[index]]
    if not len(counts):
      return self.unlabeled < shots
    rarest, most_frequent = counts.min(), counts.max()
    return bool(rarest < shots and (rarest <= shots / 2 or most_frequent <= 1.5 * shots))


def rows_of_shots(labels: Int[np.ndarray, "n"], shots: int) -> Int[np.ndarray, "m"]:
  """Return the rows of the first `shots` images of each class, in order; small classes keep all."""
  order = np.argsort(labels, kind="stable")
  counts = np.bincount(labels)
  starts = np.repeat(np.cumsum(counts) - counts, counts)
  rank = np.empty(len(labels), np.int64)
  rank[order] = np.arange(len(labels)) - starts
  return np.flatnonzero(rank < shots)
