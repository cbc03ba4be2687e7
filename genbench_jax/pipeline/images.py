"""Image sets made: what their source gives, written behind its back, or embedded on the spot."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.embedding.stored import refuse_non_finite
from genbench_jax.pipeline.artifacts import (
  embedded_as_made,
  image_folder,
  image_layout,
  image_set_path,
  kept_layout,
)
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress
from genbench_jax.sources import inversion
from genbench_jax.sources.batches import MadeShard, made_shards
from genbench_jax.sources.generative import sampler_and_order
from genbench_jax.sources.index_space import class_shot
from genbench_jax.sources.prompting import tell_lint
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store.background import BackgroundWriter
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageSet, ImageSetLayout, ImageSetWriter


def make_shards(run: Run, key: ImageSetKey, turn: int) -> int:
  """Makes those missing shards of an image set that are this process's; returns how many images were made.

  `turn` evens out small sets.
  """
  own = [s for s in range(image_layout(run, key).num_shards) if run.hosts.owns(turn + s)]
  total = (_make_and_embed if embedded_as_made(run, key) else _make_and_keep)(run, key, own)
  if run.hosts.is_first:
    close_if_whole(run, key)
  return total


def is_made(run: Run, key: ImageSetKey) -> bool:
  """Whether nothing is left to make of an image set, by any process."""
  features_are = not embedded_as_made(run, key) or image_set_path(run, key).exists()
  return features_are and _ImageShards(run, key).are_closed


def close_if_whole(run: Run, key: ImageSetKey) -> None:
  """Closes an image set, and joins its features, if every process's shards are there."""
  images = _ImageShards(run, key)
  if not images.are_closed and images.writer.is_whole():
    images.writer.close()
  if embedded_as_made(run, key):
    parts = _feature_parts(run, key)
    if not parts.path.exists() and parts.is_whole():
      parts.join()


class _ImageShards:
  """The images of a set that stand on disk: all, some or none of those made."""

  def __init__(self, run: Run, key: ImageSetKey) -> None:
    self.layout = kept_layout(run, key)
    self.writer = ImageSetWriter(image_folder(run, key), self.layout)
    has_none = embedded_as_made(run, key) and not self.layout.num_images
    self.are_closed = has_none or ImageSet.exists(self.writer.folder)

  def missing(self, among: list[int]) -> list[int]:
    """Those of the given shards that are not there whole."""
    if self.are_closed:
      return []
    return self.writer.missing_shards(s for s in among if s < self.layout.num_shards)


def _feature_parts(run: Run, key: ImageSetKey) -> EmbeddingParts:
  """The features of a set, a part for each shard."""
  layout = image_layout(run, key)
  made_from = {"clip": run.clip_fingerprint}
  return EmbeddingParts(image_set_path(run, key), layout.num_images, made_from, layout.shard_size)


def _make_and_keep(run: Run, key: ImageSetKey, own: list[int]) -> int:
  """All images, to be embedded by the next stage."""
  images = _ImageShards(run, key)
  missing = images.missing(own)
  if not missing:
    return 0
  images.writer.prepare()
  with _progress(run, key, images.layout, missing) as progress, BackgroundWriter() as background:
    done = 0
    for shard, records in SOURCES[key.source].records(run, key, images.layout, missing):
      background.submit(images.writer.write_shard, shard, records)
      done += len(records)
      progress.reach(done)
  return progress.total


def _make_and_embed(run: Run, key: ImageSetKey, own: list[int]) -> int:
  """The features of all images and, of each class, as many images as are kept."""
  layout, images, parts = image_layout(run, key), _ImageShards(run, key), _feature_parts(run, key)
  without_images = images.missing(own)
  unembedded = [] if parts.path.exists() else [s for s in own if parts.is_missing(s)]
  missing = sorted({*without_images, *unembedded})
  if not missing:
    return 0

  def write(made: MadeShard) -> None:
    if made.shard in without_images:
      images.writer.write_shard(made.shard, made.records)
    if made.shard in unembedded:
      parts.write(made.shard, _embeddings(key, layout, made))

  images.writer.prepare()
  sampler = run.embedding_sampler(dataset_spec(key.dataset).resize)
  sampler, order = sampler_and_order(run, key, sampler)
  kept = images.layout.num_images
  with _progress(run, key, layout, missing) as progress, BackgroundWriter() as background:
    for made in made_shards(sampler, layout, missing, order, kept, run.meter(key)):
      background.submit(write, made)
  return progress.total


def _progress(run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: list[int]) -> Progress:
  """Counts the images of some shards, batch by batch where the devices make them."""
  meter = run.meter(key)
  total = sum(len(layout.shard_range(shard)) for shard in shards)
  progress = Progress(f"images {key.name}", total, "images", meter.cost)
  meter.tell(progress.advance)
  return progress


def _embeddings(key: ImageSetKey, layout: ImageSetLayout, made: MadeShard) -> EmbeddingSet:
  assert made.features is not None, "the sampler has no encoder"
  ids = np.asarray(layout.shard_range(made.shard), np.int64)
  labels = _labels(ids.tolist(), len(layout.class_names), dataset_spec(key.dataset).multi_label)
  embeddings = EmbeddingSet(made.features, labels, ids, np.ones(len(ids), np.uint8))
  refuse_non_finite(embeddings, key.name)
  return embeddings


def _labels(indices: list[int], num_classes: int, multi_label: bool) -> Shaped[np.ndarray, "n ..."]:
  """As an embedding set stores them: int32 [n], or uint8 [n, k] multi-hot."""
  labels = np.array([class_shot(index, num_classes).label for index in indices], np.int32)
  return np.eye(num_classes, dtype=np.uint8)[labels] if multi_label else labels


def make_images(run: Run, ledger: Ledger) -> int:
  """Makes this process's missing shards of every image set; returns how many images were made."""
  keys = image_sets(run.config)
  if run.hosts.is_first:
    tell_lint(run)
  # Those last whose tokens are learned from images that another source makes.
  first = [key for key in keys if key.references != "retrieval"]
  return sum(
    _make_sets(run, ledger, some) for some in (first, [k for k in keys if k not in first]) if some
  )


def _make_sets(run: Run, ledger: Ledger, keys: Sequence[ImageSetKey]) -> int:
  """Makes this process's share of image sets, which don't need each other."""
  made = 0
  _learn_tokens(run, [key for key in keys if key.references])
  for turn, key in enumerate(keys):
    if key.name not in run.failures:
      with run.failures.caught(key.name):
        try:
          made += make_shards(run, key, turn)
        finally:
          if run.hosts.is_first:
            ledger.add_cost(key.name, run.cost(key))
  run.hosts.wait("the images")
  if run.hosts.is_first:
    for key in keys:
      close_if_whole(run, key)
  return made


def _learn_tokens(run: Run, keys: Sequence[ImageSetKey]) -> None:
  """Learns this process's share of the new tokens that image sets still to be made ask for."""
  for key in keys:
    with run.failures.caught(key.name):
      if not is_made(run, key):
        inversion.learn_share(run, key)
  if keys:
    run.hosts.wait("the new tokens")
