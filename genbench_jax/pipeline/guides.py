"""Guides: real training images that no recognizer uses, for the scores that need them."""

import numpy as np
from jaxtyping import Int

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.run import Run


def guides_of(run: Run, dataset: str) -> Int[np.ndarray, "m"]:
  """Return the training images that a larger few-shot selection of originals would add."""
  labels = run.labels(dataset, "train")
  used = [few_shot(labels, run.per_class, seed) for seed in run.config.seeds]
  more = few_shot(labels, run.per_class + run.config.scoring.guides, min(run.config.seeds))
  return np.setdiff1d(more, np.concatenate(used))
