"""The best of several generated images: more are made of each class, and those with the highest CLIP score are kept.

The candidates are an image set of their own, that of the same config with more shots. The judge is a second encoder, so
that the one which measures has no say in what it measures.
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

TEMPLATE = "a photo of a {}"


def made_from(run: Run) -> dict[str, Any]:
  """What determines the choice, as JSON; empty where every image is kept."""
  settings = run.config.selection
  if not settings.is_on:
    return {}
  about = {"method": settings.method, "candidates": settings.candidates}
  return {
    "selection": about
    | ({"clip": run.fingerprint(judge_pin(run.config))} if settings.method == "clip" else {})
  }


def needs(run: Run, key: ImageSetKey) -> tuple[Need, ...]:
  """The candidates, and where a CLIP judges them their features in it."""
  wider = _wider(run)
  judged = run.config.selection.method == "clip"
  features = (ImageFeatures(wider, key, run.judge_space),) if judged else ()
  return (Images(wider, key), *features)


def chosen_shards(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int], given: NeededValues
) -> ShardRecords:
  """The records of each shard of the chosen images, best first: the s best of each class are the s-shot set.

  Args:
    run: a config on its work folder.
    key: the image set.
    layout: of the chosen images.
    shards: those to make.
    given: what `needs` asks for.
  """
  candidates: ImageSet = given[0]
  features = [one for one in given if isinstance(one, EmbeddingSet)]
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
  """The rows of the `count` highest scores of each class: the best of every class, then the second best.

  Of equal scores the first is the better one.
  """
  by_class = np.lexsort((-scores, labels))
  counts = np.bincount(labels)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  kept = rank < count
  return by_class[kept][np.lexsort((labels[by_class][kept], rank[kept]))]


def _record(candidate: ImageRecord, index: int, row: int, score: float) -> ImageRecord:
  return dataclasses.replace(candidate, index=index, origin=f"candidate {row}, score {score:.4f}")


def _wider(run: Run) -> Run:
  """The run that makes the candidates."""
  shots = (run.config.selection.candidates * run.per_class,)
  return run.with_config(dataclasses.replace(run.config, shots=shots, selection=Selection()))


def _scores(
  run: Run, key: ImageSetKey, candidates: ImageSet, features: Sequence[EmbeddingSet]
) -> Float[np.ndarray, "n"]:
  """The score of each candidate: 100 x cosine with the text of its class, or a seeded number where there are no features.

  The score of an image that can't be read is minus infinity.
  """
  if not features:
    return np.random.default_rng([key.seed, len(candidates)]).random(len(candidates))
  names = run.config.spec(key.dataset).names
  texts = unit_norm(text_features(run.judge, [TEMPLATE.replace("{}", name) for name in names]))
  cosines = (unit_norm(features[0].features) * texts[candidates.labels]).sum(axis=1)
  return np.where(features[0].valid, 100 * cosines, -np.inf)
