"""Best-of-n selection of generated images: generate more per class and keep those with the highest CLIP score.

The candidates are a separate image set: the one of the same config with more shots. The judge is a second
encoder, so that the measuring encoder does not select what it measures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Selection
from genbench_jax.embedding.embedder import text_features, unit_norm
from genbench_jax.run import Run, judge_pin
from genbench_jax.sources.source import ImageFeatures, Images, Need, NeededValues, ShardRecords
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetLayout
from genbench_jax.store.versions import VERSIONS

TEMPLATE = "a photo of a {}"


def made_from(run: Run) -> dict[str, Any]:
  """Return what determines the selection, as JSON; empty without selection."""
  settings = run.config.selection
  if not settings.is_on:
    return {}
  about: dict[str, Any] = {"method": settings.method, "candidates": settings.candidates}
  if settings.method == "clip":
    about |= {"clip": run.fingerprint(judge_pin(run.config)), "version": VERSIONS["embed"]}
  return {"selection": about}


def needs(run: Run, key: ImageSetKey) -> tuple[Need, ...]:
  """Return the needed candidates and, if a CLIP judges them, their features."""
  wider = _wider(run)
  judged = run.config.selection.method == "clip"
  features = (ImageFeatures(wider, key, run.judge_space),) if judged else ()
  return (Images(wider, key), *features)


def chosen_shards(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int], given: NeededValues
) -> ShardRecords:
  """Yield the records of each shard of the selected images, best first.

  The s best images of each class form the s-shot set.

  Args:
    run: a config on its work folder.
    key: the image set.
    layout: layout of the selected images.
    shards: shards to make.
    given: values of `needs`.
  """
  candidates: ImageSet = given[0]
  features = [value for value in given if isinstance(value, EmbeddingSet)]
  scores = _scores(run, key, candidates, features)
  order = best_of(scores, candidates.labels, run.per_class)
  for shard in shards:
    rows = [int(order[index]) for index in layout.shard_range(shard)]
    yield (
      shard,
      [
        _record(candidates[row], index, row, scores[row])
        for index, row in zip(layout.shard_range(shard), rows, strict=True)
      ],
    )


def best_of(
  scores: Float[np.ndarray, "n"], labels: Int[np.ndarray, "n"], count: int
) -> Int[np.ndarray, "m"]:
  """Return the rows of the `count` highest scores of each class: all best ones, then all second best, etc.

  Ties are broken by the lower row.

  Args:
    scores: score of each row.
    labels: class of each row.
    count: rows per class.
  """
  by_class = np.lexsort((-scores, labels))
  counts = np.bincount(labels)
  # Rank of each row within its class: position minus the class's start in the sorted order.
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  kept = rank < count
  return by_class[kept][np.lexsort((labels[by_class][kept], rank[kept]))]


def _record(candidate: ImageRecord, index: int, row: int, score: float) -> ImageRecord:
  return dataclasses.replace(candidate, index=index, origin=f"candidate {row}, score {score:.4f}")


def _wider(run: Run) -> Run:
  """Return the run that generates the candidates."""
  shots = (run.config.selection.candidates * run.per_class,)
  return run.with_config(dataclasses.replace(run.config, shots=shots, selection=Selection()))


def _scores(
  run: Run, key: ImageSetKey, candidates: ImageSet, features: Sequence[EmbeddingSet]
) -> Float[np.ndarray, "n"]:
  """Score each candidate: 100 x cosine with the text of its class, or a seeded random number without features.

  Unreadable images score minus infinity.
  """
  if not features:
    return np.random.default_rng([key.seed, len(candidates)]).random(len(candidates))
  names = run.config.spec(key.dataset).names
  texts = unit_norm(text_features(run.judge, [TEMPLATE.replace("{}", name) for name in names]))
  cosines = (unit_norm(features[0].features) * texts[candidates.labels]).sum(axis=1)
  return np.where(features[0].valid, 100 * cosines, -np.inf)
