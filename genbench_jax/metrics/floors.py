"""Floor of a distance: its value for equally many real training images of the same classes.

A distance to the test images is biased at small n, and most of it then says nothing about the
images. Only what exceeds the floor shows that external images differ from real ones.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from genbench_jax.metrics.registry import Metric, Sets
from genbench_jax.metrics.strata import strata_of

# The floor is the mean over up to this many disjoint subsets of the training images.
MOST_DRAWS = 4
# The floor needs no interval of its own.
RESAMPLES = 2


def floors(metric: Metric, sets: Sets) -> dict[str, float]:
  """Return the floor of each quantity; empty if there are too few real training images."""
  found: dict[str, list[float]] = {}
  for rows in draws(sets.labels, sets.training_labels):
    real = dataclasses.replace(
      sets,
      external=sets.training[rows],
      labels=sets.training_labels[rows],
      resamples=RESAMPLES,
    )
    for result in metric(real, metric.names):
      found.setdefault(result.name, []).append(float(result.value.value))
  return {name: float(np.mean(values)) for name, values in found.items()}


def draws(labels: Any, training_labels: Any | None) -> list[Int[np.ndarray, "n"]]:
  """Return disjoint subsets of the training images, of the same size (per class, if possible).

  Subsets follow the order of the training images, so the first equals the smallest budget's own
  images.
  """
  if training_labels is None:
    return []
  labels, training_labels = np.asarray(labels), np.asarray(training_labels)
  if labels.ndim == 2 or training_labels.ndim == 2:
    if len(np.unique(strata_of(labels, len(labels)))) == 1:  # several labels per image
      times = min(len(training_labels) // max(len(labels), 1), MOST_DRAWS)
      return [np.arange(len(labels)) + turn * len(labels) for turn in range(times)]
    labels, training_labels = (
      given.argmax(axis=1) if given.ndim == 2 else given for given in (labels, training_labels)
    )
  classes, counts = np.unique(labels, return_counts=True)
  own = [np.flatnonzero(training_labels == c) for c in classes]
  times = min([MOST_DRAWS, *(len(rows) // n for rows, n in zip(own, counts, strict=True))])
  return [
    np.concatenate([r[turn * n : (turn + 1) * n] for r, n in zip(own, counts, strict=True)])
    for turn in range(times)
  ]
