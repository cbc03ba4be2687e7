"""The best of several generated images: more are made of each class, and those with the highest CLIP score are kept.

The candidates are an image set of their own, that of the same config with more shots. The judge is a second encoder, so
that the one which measures has no say in what it measures.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Selection
from genbench_jax.embedding.embedder import ImageEmbedder, text_features, unit_norm
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.errors import RunError
from genbench_jax.models.clip import load_clip
from genbench_jax.run import Run, judge_pin
from genbench_jax.runtime.progress import Progress
from genbench_jax.sources.source import ImageSource, ShardRecords
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetLayout, ImageSetWriter

TEMPLATE = "a photo of a {}"


def made_from(run: Run) -> dict[str, Any]:
  """What determines the choice, as JSON; empty where every image is kept."""
  settings = run.config.selection
  if not settings.is_on:
    return {}
  about = {"method": settings.method, "candidates": settings.candidates}
  return {
    "selection": about
    | ({"clip": judge_pin(run.config).fingerprint()} if settings.method == "clip" else {})
  }


def chosen_shards(
  source: ImageSource,
  run: Run,
  key: ImageSetKey,
  layout: ImageSetLayout,
  shards: Sequence[int],
) -> ShardRecords:
  """The records of each shard of the chosen images, best first: the s best of each class are the s-shot set.

  Raises:
    RunError: several processes share the run: each would need the candidates of all.
  """
  if run.hosts.count > 1:
    raise RunError(
      "images are selected by one process: make them with one, or turn config.selection off."
    )
  candidates, scores = _candidates(source, run, key)
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


def _candidates(
  source: ImageSource, run: Run, key: ImageSetKey
) -> tuple[ImageSet, Float[np.ndarray, "n"]]:
  """The image set that is chosen from, made where it is missing, and the score of each image."""
  # Imported here: where an image set stands depends on its source, and so on this.
  from genbench_jax.pipeline.artifacts import image_folder, image_layout

  wider = _wider(run)
  folder, layout = image_folder(wider, key), image_layout(wider, key)
  if not ImageSet.exists(folder):
    writer = ImageSetWriter(folder, layout)
    missing = writer.missing_shards()
    total = sum(len(layout.shard_range(shard)) for shard in missing)
    with Progress(f"candidates {key.name}", total, "images") as progress:
      for shard, records in source.records(wider, key, layout, missing):
        writer.write_shard(shard, records)
        progress.advance(len(records))
    writer.close()
  images = ImageSet(folder)
  return images, _scores(run, key, images)


@functools.lru_cache(maxsize=8)
def _wider(run: Run) -> Run:
  """The run that makes the candidates; one for all image sets, so that its models are loaded once."""
  shots = (run.config.selection.candidates * run.per_class,)
  return run.with_config(dataclasses.replace(run.config, shots=shots, selection=Selection()))


def _scores(run: Run, key: ImageSetKey, images: ImageSet) -> Float[np.ndarray, "n"]:
  """The score of each candidate, kept in the work folder; of one that can't be read, minus infinity."""
  settings = run.config.selection
  if settings.method == "random":
    return np.random.default_rng([key.seed, len(images)]).random(len(images))
  digest = files.digest({"images": images.fingerprint, "clip": judge_pin(run.config).fingerprint()})
  path = run.workdir / "scores" / key.dataset / f"{key.label}-{digest}.json"
  if not path.exists():
    files.write_json(path, _clip_scores(run, key, images).tolist())
  return np.asarray(files.read_json(path), np.float64)


def _clip_scores(run: Run, key: ImageSetKey, images: ImageSet) -> Float[np.ndarray, "n"]:
  """100 x cosine between each image and the text of its class."""
  settings, spec = run.config.selection, dataset_spec(key.dataset)
  clip = load_clip(settings.checkpoint, settings.revision or None)
  embedder = ImageEmbedder(clip, run.local_mesh, run.config.encoder.batch_per_device)
  what = f"scores {key.name}"
  with Progress(what, len(images), "images") as progress:
    stored = _Stored(images)
    features, valid = embed_stored(
      embedder, stored, range(len(images)), spec.resize, progress, what
    )
  texts = unit_norm(text_features(clip, [TEMPLATE.replace("{}", name) for name in spec.names]))
  cosines = (unit_norm(features) * texts[images.labels]).sum(axis=1)
  return np.where(valid, 100 * cosines, -np.inf)


@dataclasses.dataclass(frozen=True)
class _Stored:
  """The images of an image set."""

  images: ImageSet

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> bytes:
    return self.images[index].image
