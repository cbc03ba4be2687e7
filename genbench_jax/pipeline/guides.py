"""Guides: real training images that no recognizer uses, for the scores that need them."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.pipeline.artifacts import embedding_path
from genbench_jax.run import FeatureSpace, Run

# Quantities that need guides.
GUIDED = frozenset({"class_chamfer", "guide_ridge"})


def wants_guides(run: Run, dataset: str) -> bool:
  """Return whether a score needs guides and the run uses training images at all."""
  scoring = run.config.scoring
  asked = GUIDED & set(scoring.quantities)
  has_originals = "original" in run.config.sources and "train" in run.config.spec(dataset).splits
  return bool(scoring.guides and asked and has_originals)


def guides_of(run: Run, dataset: str) -> Int[np.ndarray, "m"]:
  """Return the training images that a larger few-shot selection of originals would add."""
  labels = run.labels(dataset, "train")
  used = [few_shot(labels, run.per_class, seed) for seed in run.config.seeds]
  more = few_shot(labels, run.per_class + run.config.scoring.guides, min(run.config.seeds))
  return np.setdiff1d(more, np.concatenate(used))


def guides_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Return the path of the features of a dataset's guides.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: name of the encoder, if it is not the run's own.
  """
  made_from = {
    "images": run.digest(dataset, "train"),
    "guides": run.config.scoring.guides,
    "per_class": run.per_class,
    "seeds": list(run.config.seeds),
  }
  return embedding_path(run, dataset, "guides", made_from, space)
