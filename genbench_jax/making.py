"""Image sets made: what their source gives, written behind its back, or embedded on the spot."""

import numpy as np
from jaxtyping import Shaped

from genbench_jax.artefacts import (
  embedded_as_made,
  image_folder,
  image_layout,
  image_set_path,
  kept_layout,
)
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.embedding import refuse_non_finite
from genbench_jax.plan import ImageSetKey
from genbench_jax.progress import Progress
from genbench_jax.run import Run
from genbench_jax.sources.batches import MadeShard, made_shards
from genbench_jax.sources.generative import image_order
from genbench_jax.sources.index_space import class_shot
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store.background import BackgroundWriter
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.embedding_shards import EmbeddingShards
from genbench_jax.store.image_set import ImageSet, ImageSetLayout, ImageSetWriter


def make_image_set(run: Run, key: ImageSetKey) -> int:
  """Makes what is missing of an image set, or of its features; returns how many images were made."""
  return (_make_and_embed if embedded_as_made(run, key) else _make_and_keep)(run, key)


def _make_and_keep(run: Run, key: ImageSetKey) -> int:
  """All images, to be embedded by the next stage."""
  folder, layout = image_folder(run, key), image_layout(run, key)
  if ImageSet.exists(folder):
    return 0
  writer = ImageSetWriter(folder, layout)
  missing = writer.missing_shards()
  with _progress(run, key, layout, missing) as progress, BackgroundWriter() as background:
    done = 0
    for shard, records in SOURCES[key.source].records(run, key, layout, missing):
      background.submit(writer.write_shard, shard, records)
      done += len(records)
      progress.reach(done)
  writer.close()
  return progress.total


def _make_and_embed(run: Run, key: ImageSetKey) -> int:
  """The features of all images and, of each class, as many images as are kept."""
  layout, kept = image_layout(run, key), kept_layout(run, key)
  path = image_set_path(run, key)
  features = EmbeddingShards(path, layout.num_shards, {"clip": run.clip_fingerprint})
  images = ImageSetWriter(image_folder(run, key), kept)
  wants_images = kept.num_images > 0 and not ImageSet.exists(images.folder)
  missing = {*features.missing(), *(images.missing_shards() if wants_images else ())}
  if not missing:
    features.join()
    return 0

  def write(made: MadeShard) -> None:
    # The features last: a shard that has them is whole.
    if made.records and wants_images:
      images.write_shard(made.shard, made.records)
    features.write(made.shard, _embeddings(run, key, layout, made))

  sampler = run.embedding_sampler(dataset_spec(key.dataset).resize)
  shards = sorted(missing)
  with _progress(run, key, layout, shards) as progress, BackgroundWriter() as background:
    made = made_shards(
      sampler, layout, shards, image_order(run, key), kept.num_images, run.meter(key)
    )
    for shard in made:
      background.submit(write, shard)
  if wants_images:
    images.close()
  features.join()
  return progress.total


def _progress(run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: list[int]) -> Progress:
  """Counts the images of some shards, batch by batch where the devices make them."""
  meter = run.meter(key)
  total = sum(len(layout.shard_range(shard)) for shard in shards)
  progress = Progress(f"images {key.dataset} {key.label}", total, "images", meter.cost)
  meter.tell(progress.advance)
  return progress


def _embeddings(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, made: MadeShard
) -> EmbeddingSet:
  assert made.features is not None, "the sampler has no encoder"
  refuse_non_finite(made.features, f"images {key.dataset} {key.label}")
  ids = np.asarray(layout.shard_range(made.shard), np.int64)
  labels = _labels(ids.tolist(), len(layout.class_names), dataset_spec(key.dataset).multi_label)
  return EmbeddingSet(made.features, labels, ids, np.ones(len(ids), np.uint8))


def _labels(indices: list[int], num_classes: int, multi_label: bool) -> Shaped[np.ndarray, "n ..."]:
  """As an embedding set stores them: int32 [n], or uint8 [n, k] multi-hot."""
  labels = np.array([class_shot(index, num_classes).label for index in indices], np.int32)
  return np.eye(num_classes, dtype=np.uint8)[labels] if multi_label else labels
