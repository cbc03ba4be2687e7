"""The floor of a distance: what real training images score at equal n.

A distance to the test images is biased at small n; most of it is then not about the images. Its floor is the same distance
of as many real training images of the same classes, and only what lies above says that images are not real.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from genbench_jax.metrics.registry import Metric, Sets
from genbench_jax.metrics.strata import strata_of

# Choices of training images that share none; their mean is the floor.
MOST_DRAWS = 4
# The floor needs no interval of its own.
RESAMPLES = 2


def floors(metric: Metric, sets: Sets) -> dict[str, float]:
  """Quantity -> the mean over choices of real training images; empty where there are not as many of them."""
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
  """Choices of training images of the same size, class by class where images have one class each.

  Training images are taken in their order, so that the first choice is the smallest budget's own.
  """
  if training_labels is None:
    return []
  labels, training_labels = np.asarray(labels), np.asarray(training_labels)
  if labels.ndim == 2 or training_labels.ndim == 2:
    if len(np.unique(strata_of(labels, len(labels)))) == 1:  # several labels an image
      times = min(len(training_labels) // max(len(labels), 1), MOST_DRAWS)
      return [np.arange(len(labels)) + turn * len(labels) for turn in range(times)]
    labels, training_labels = (
      each.argmax(axis=1) if each.ndim == 2 else each for each in (labels, training_labels)
    )
  classes, counts = np.unique(labels, return_counts=True)
  own = [np.flatnonzero(training_labels == c) for c in classes]
  times = min([MOST_DRAWS, *(len(rows) // n for rows, n in zip(own, counts, strict=True))])
  return [
    np.concatenate([r[turn * n : (turn + 1) * n] for r, n in zip(own, counts, strict=True)])
    for turn in range(times)
  ]
