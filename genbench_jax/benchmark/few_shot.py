"""Few-shot subsets of a training split.

`few_shot` is strict's: seeded and nested. `reference_few_shot` is the reference's to the letter, where
each number of shots is walked anew. Validation data are split off afterwards, by the recognizers.
"""

import random
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int

ALL_SHOTS = (0, -1)


def few_shot(
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"], shots: int, seed: int
) -> Int[np.ndarray, "m"]:
  """A seeded subset with at most `shots` images a class, and all subsets of fewer shots inside it.

  A class that has fewer images keeps what it has. Of several labels, an image is taken by the rule of
  `reference_few_shot`, applied for 1, 2, ... shots in turn, each time to what is left; its number of
  images a class is about, not exactly, `shots`.

  Args:
    labels: class indices, or multi-hot.
    shots: images a class; 0 or -1 for all.
    seed: of the order in which images are taken.

  Returns:
    Indices in the order they are taken: those of the first shot first. A subset of fewer shots of the
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
  """How many images of the same class come before each image in the given order."""
  by_class = order[np.argsort(labels[order], kind="stable")]
  counts = np.bincount(labels)
  rank = np.empty(len(labels), np.int64)
  rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  return rank


def _grown(
  labels: Bool[np.ndarray, "n k"], order: Int[np.ndarray, "n"], shots: int
) -> Int[np.ndarray, "m"]:
  """The subset grown shot by shot; every image where all are asked for."""
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
  """The reference's few-shot subset (`sample_few_shot_subset`), in its order.

  All images are shuffled by Python's Random(seed) and walked through. Of one label: an image is kept
  while its class has fewer than `shots`. Of several: it is left out if all of its classes have `shots`;
  kept if the rarest of them has at most half of that, or the most frequent one at most 1.5 times.
  Images without label are kept up to `shots`. The walk ends once every class has its shots. One shot means two, of which
  one is for validation.

  Args and Returns: as for `few_shot`; the order is the shuffled one.
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
  """A walk through images that counts what it has taken of each class."""

  def __init__(self, labels: Bool[np.ndarray, "n k"]):
    self.classes = [np.flatnonzero(row) for row in labels]
    self.counts = np.zeros(labels.shape[1], np.int64)
    self.unlabeled = 0
    self.taken: list[int] = []

  def take(self, indices: Iterable[int], shots: int) -> list[int]:
    """The images among these that `shots` images a class still ask for, which are now taken."""
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
  """The rows of the first `shots` images of each class, in order; a class that has fewer keeps them all."""
  order = np.argsort(labels, kind="stable")
  counts = np.bincount(labels)
  starts = np.repeat(np.cumsum(counts) - counts, counts)
  rank = np.empty(len(labels), np.int64)
  rank[order] = np.arange(len(labels)) - starts
  return np.flatnonzero(rank < shots)
