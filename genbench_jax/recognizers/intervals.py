"""Intervals of a recognizer's score over the test images."""

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.intervals import recognition_interval


def bootstrap_interval(
  scores: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  metric: str,
  seed: int = 0,
) -> tuple[float, float]:
  """Return the 95 % interval of a score over the test images; see `metrics.intervals`.

  Args:
    scores: scores of the test images.
    labels: their class indices, or multi-hot labels.
    metric: metric of recognition.
    seed: of the resamples.
  """
  return recognition_interval(np.asarray(scores), np.asarray(labels), metric, seed)
