"""The stage `images`: make image sets, writing or embedding images in the background."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.embedding.stored import refuse_non_finite
from genbench_jax.errors import NotPreparedError
from genbench_jax.pipeline.artifacts import (
  embedded_as_made,
  image_folder,
  image_layout,
  image_set_path,
  kept_layout,
  open_image_set,
)
from genbench_jax.pipeline.embed import (
  Features,
  embed_features,
  features_of_images,
  features_of_test,
)
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress
from genbench_jax.sources.batches import ImageShard, made_shards
from genbench_jax.sources.generative import sampler_and_order
from genbench_jax.sources.index_space import class_shot
from genbench_jax.sources.prompting import tell_lint
from genbench_jax.sources.registry import SOURCES
from genbench_jax.sources.source import (
  ImageFeatures,
  Images,
  Need,
  NeededValues,
  TestFeatures,
)
from genbench_jax.store.background import BackgroundWriter
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.store.embedding_set import EmbeddingSet, load_embeddings
from genbench_jax.store.image_set import ImageSet, ImageSetLayout, ImageSetWriter


def make_shards(run: Run, key: ImageSetKey, turn: int) -> int:
  """Make this process's missing shards of an image set; return the number of images.

  Args:
    run: a config on its work folder.
    key: the image set.
    turn: offset that distributes small sets over the processes.
  """
  run = run.of(key)
  own = [s for s in range(image_layout(run, key).num_shards) if run.hosts.owns(turn + s)]
  total = (_make_and_embed if embedded_as_made(run, key) else _make_and_keep)(run, key, own)
  if run.hosts.is_first:
    close_if_whole(run, key)
  return total


def is_made(run: Run, key: ImageSetKey) -> bool:
  """Return whether an image set is complete for all processes."""
  try:
    features_are = not embedded_as_made(run, key) or image_set_path(run, key).exists()
    return features_are and _is_closed(run, key)
  except NotPreparedError:
    return False


def _is_closed(run: Run, key: ImageSetKey) -> bool:
  """Return whether all images that are kept exist."""
  return _has_none(run, key) or ImageSet.exists(image_folder(run, key))


def _has_none(run: Run, key: ImageSetKey) -> bool:
  return embedded_as_made(run, key) and not run.config.generation.kept_images(run.per_class)


def close_if_whole(run: Run, key: ImageSetKey) -> None:
  """Close an image set and join its features if the shards of all processes exist."""
  images = _ImageShards(run, key)
  if not images.are_closed and images.writer.is_whole():
    images.writer.close()
  if embedded_as_made(run, key):
    parts = _feature_parts(run, key)
    if not parts.path.exists() and parts.is_whole():
      parts.join()


class _ImageShards:
  """The images of a set on disk: all, some or none of those generated."""

  def __init__(self, run: Run, key: ImageSetKey) -> None:
    self.layout = kept_layout(run, key)
    self.writer = ImageSetWriter(image_folder(run, key), self.layout)
    self.are_closed = _is_closed(run, key)

  def missing(self, among: list[int]) -> list[int]:
    """Return the given shards that are missing or incomplete."""
    if self.are_closed:
      return []
    return self.writer.missing_shards(s for s in among if s < self.layout.num_shards)


def _feature_parts(run: Run, key: ImageSetKey) -> EmbeddingParts:
  """Return the features of a set, one part per shard."""
  layout = image_layout(run, key)
  made_from = {"clip": run.encoder_fingerprint}
  return EmbeddingParts(image_set_path(run, key), layout.num_images, made_from, layout.shard_size)


def _make_and_keep(run: Run, key: ImageSetKey, own: list[int]) -> int:
  """Make all images; the next stage embeds them."""
  images = _ImageShards(run, key)
  missing = images.missing(own)
  if not missing:
    return 0
  images.writer.prepare()
  with _progress(run, key, images.layout, missing) as progress, BackgroundWriter() as background:
    done = 0
    source = SOURCES[key.source]
    for shard, records in source.records(run, key, images.layout, missing, given(run, key)):
      background.submit(images.writer.write_shard, shard, records)
      done += len(records)
      progress.reach(done)
  return progress.total


def _make_and_embed(run: Run, key: ImageSetKey, own: list[int]) -> int:
  """Make the features of all images, and keep some images of each class."""
  layout, images, parts = image_layout(run, key), _ImageShards(run, key), _feature_parts(run, key)
  without_images = images.missing(own)
  unembedded = [] if parts.path.exists() else [s for s in own if parts.is_missing(s)]
  missing = sorted({*without_images, *unembedded})
  if not missing:
    return 0

  def write(made: ImageShard) -> None:
    if made.shard in without_images:
      images.writer.write_shard(made.shard, made.records)
    if made.shard in unembedded:
      parts.write(made.shard, _embeddings(run, key, layout, made))

  images.writer.prepare()
  sampler = run.embedding_sampler(run.config.spec(key.dataset).resize)
  sampler, order = sampler_and_order(run, key, sampler, given(run, key))
  kept = images.layout.num_images
  with _progress(run, key, layout, missing) as progress, BackgroundWriter() as background:
    for made in made_shards(sampler, layout, missing, order, kept, run.meter(key)):
      background.submit(write, made)
  return progress.total


def _progress(run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: list[int]) -> Progress:
  """Return a progress bar over the images of some shards, updated per batch if generated."""
  meter = run.meter(key)
  total = sum(len(layout.shard_range(shard)) for shard in shards)
  progress = Progress(f"images {key.name}", total, "images", meter.cost)
  meter.tell(progress.advance)
  return progress


def _embeddings(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, made: ImageShard
) -> EmbeddingSet:
  assert made.features is not None, "the sampler has no encoder"
  ids = np.asarray(layout.shard_range(made.shard), np.int64)
  labels = _labels(ids.tolist(), len(layout.class_names), run.config.spec(key.dataset).multi_label)
  embeddings = EmbeddingSet(made.features, labels, ids, np.ones(len(ids), np.uint8))
  refuse_non_finite(embeddings, key.name)
  return embeddings


def _labels(indices: list[int], num_classes: int, multi_label: bool) -> Shaped[np.ndarray, "n ..."]:
  """Return labels as an embedding set stores them: int32 [n], or uint8 [n, k] multi-hot."""
  labels = np.array([class_shot(index, num_classes).label for index in indices], np.int32)
  return np.eye(num_classes, dtype=np.uint8)[labels] if multi_label else labels


# ---- the stage ----------------------------------------------------------------------------------


def make_images(run: Run, ledger: Ledger) -> int:
  """Make this process's missing shards of every image set; return the number of images."""
  if run.hosts.is_first:
    tell_lint(run)
  return make_sets(run, ledger, image_sets(run.config))


def make_sets(run: Run, ledger: Ledger, keys: Sequence[ImageSetKey]) -> int:
  """Make this process's share of image sets, after the sets that they need.

  Args:
    run: a config on its work folder.
    ledger: record of the costs.
    keys: the image sets.
  """
  # Sets are ordered by generator, so that each model is loaded once.
  order = [*run.config.generators]
  keys = sorted(
    _unfinished(run, keys),
    key=lambda key: order.index(key.generator) if key.generator in order else -1,
  )
  if not keys:
    return 0
  made = _make_needed(run, ledger, keys)
  _prepare(run, keys)
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
      if key.name not in run.failures:
        close_if_whole(run, key)
  return made


def _unfinished(run: Run, keys: Sequence[ImageSetKey]) -> list[ImageSetKey]:
  """Return the image sets that are not complete, the same on every process."""
  left = run.hosts.agreed((not is_made(run, key) for key in keys), "a look at the image sets")
  return [key for key, is_left in zip(keys, left, strict=True) if is_left]


def _make_needed(run: Run, ledger: Ledger, keys: Sequence[ImageSetKey]) -> int:
  """Make what the sources of image sets need first; return the number of images."""
  needs = [need for key in keys for need in _needs(run, key)]
  made = 0
  for need in needs:
    if not isinstance(need, TestFeatures):
      made += make_sets(need.run, ledger, [need.key])
  if features := [_features(need) for need in needs if not isinstance(need, Images)]:
    embed_features(run, features)
  return made


def _needs(run: Run, key: ImageSetKey) -> Sequence[Need]:
  return SOURCES[key.source].needs(run.of(key), key)


def _features(need: TestFeatures | ImageFeatures) -> Features:
  if isinstance(need, TestFeatures):
    return features_of_test(need.run, need.dataset, need.run.space)
  return features_of_images(need.run, need.key, need.space)


def given(run: Run, key: ImageSetKey) -> NeededValues:
  """Return what an image set's source needs, from disk.

  Raises:
    RunError: it has not been made.
  """
  return [
    open_image_set(need.run, need.key)
    if isinstance(need, Images)
    else load_embeddings(_features(need).path)
    for need in _needs(run, key)
  ]


def _prepare(run: Run, keys: Sequence[ImageSetKey]) -> None:
  """Let each source prepare its share."""
  for key in keys:
    with run.failures.caught(key.name):
      SOURCES[key.source].prepare(run.of(key), key, given(run, key))
  run.hosts.wait("what the sources prepare")
