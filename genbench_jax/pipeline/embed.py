"""The stage `embed`: features of images and class names on disk."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.reader import SplitImages
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.embedding.embedder import text_prototypes
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.embedding.input_pipeline import Images
from genbench_jax.embedding.stored import embed_stored, refuse_non_finite
from genbench_jax.errors import RunError
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.pipeline.artifacts import (
  embedded_as_made,
  guides_path,
  image_set_path,
  open_image_set,
  test_path,
  text_path,
  wants_guides,
)
from genbench_jax.pipeline.guides import guides_of
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageSet, StoredImages


def embed(run: Run) -> int:
  """Embed this process's share of all missing features; return the number of images."""
  return embed_features(run, list(_wanted_features(run)))


@dataclasses.dataclass(frozen=True)
class Features:
  """A file of features: its path, encoder and inputs."""

  name: str
  path: Path
  open: Callable[[], "_EmbeddingJob"]
  space: FeatureSpace
  are_images: bool = True


def embed_features(run: Run, wanted: Sequence[Features]) -> int:
  """Embed this process's share of features and wait for the others; return the number of images."""
  count = 0
  for turn, features in enumerate(wanted):
    if features.name not in run.failures and not features.path.exists():
      with run.failures.caught(features.name):
        count += _embed_parts(run, features, turn)
  run.hosts.wait("the features")
  if run.hosts.is_first:
    for features in wanted:
      _join_if_whole(run, features)
  return count


def features_of_test(run: Run, dataset: str, space: FeatureSpace) -> Features:
  """Return the features of a dataset's test images.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: the encoder.
  """
  opened = functools.partial(_open_test, run, dataset, space)
  return Features(f"{dataset} test", test_path(run, dataset, space), opened, space)


def features_of_images(run: Run, key: ImageSetKey, space: FeatureSpace) -> Features:
  """Return the features of an image set.

  Args:
    run: a config on its work folder.
    key: the image set.
    space: the encoder.
  """
  opened = functools.partial(_open_images, run, key, space)
  return Features(key.name, image_set_path(run, key, space), opened, space)


def _wanted_features(run: Run) -> Iterator[Features]:
  for space in (run.space, *run.other_spaces):
    for dataset in run.config.specs:
      texts, path = (
        functools.partial(_open_texts, run, dataset, space),
        text_path(run, dataset, space),
      )
      yield Features(f"{dataset} text", path, texts, space, are_images=False)
      yield features_of_test(run, dataset, space)
      if wants_guides(run, dataset):
        guides = functools.partial(_open_guides, run, dataset, space)
        yield Features(f"{dataset} guides", guides_path(run, dataset, space), guides, space)
    for key in image_sets(run.config):
      if key.name not in run.failures:
        yield features_of_images(run, key, space)


@dataclasses.dataclass(frozen=True)
class _EmbeddingJob:
  """Inputs of features: their number, and a function that embeds a range of them."""

  size: int
  embed: Callable[[range, Progress], EmbeddingSet]


def _embed_parts(run: Run, features: Features, turn: int) -> int:
  """Embed the missing parts of this process; return the number of images.

  `turn` distributes small sets over the processes.
  """
  unembedded = features.open()
  parts = EmbeddingParts(features.path, unembedded.size, {"clip": features.space.fingerprint})
  own = [part for part in range(len(parts)) if run.hosts.owns(turn + part)]
  missing = [part for part in own if parts.is_missing(part)]
  total = sum(len(parts.ranges[part]) for part in missing)
  other = "" if features.space is run.space else f" in {features.space.name}"
  with Progress(f"embed {features.name}{other}", total, "images") as progress:
    for part in missing:
      found = unembedded.embed(parts.ranges[part], progress)
      refuse_non_finite(found, features.name)
      parts.write(part, found)
  if run.hosts.is_first and parts.is_whole():
    parts.join()
  return total if features.are_images else 0


def _join_if_whole(run: Run, features: Features) -> None:
  """Join features whose last part another process made."""
  if features.name in run.failures or features.path.exists():
    return
  parts = EmbeddingParts(features.path, features.open().size, {"clip": features.space.fingerprint})
  if parts.is_whole():
    parts.join()


def _open_texts(run: Run, dataset: str, space: FeatureSpace) -> _EmbeddingJob:
  spec = run.config.spec(dataset)

  def embed_texts(rows: range, progress: Progress) -> EmbeddingSet:
    encoder = space.embedder.encoder
    if isinstance(encoder, TextEncoder):
      features = text_prototypes(encoder, spec.names, spec.templates, run.local_mesh)
    else:
      features = np.zeros((0, encoder.width), np.float32)
    classes = np.arange(len(features), dtype=np.int64)
    return EmbeddingSet(
      features, classes.astype(np.int32), classes, np.ones(len(classes), np.uint8)
    )

  return _EmbeddingJob(1, embed_texts)


def _open_test(run: Run, dataset: str, space: FeatureSpace) -> _EmbeddingJob:
  split = run.split(dataset, "test")

  def embed_test(rows: range, progress: Progress) -> EmbeddingSet:
    labels = run.labels(dataset, "test")[rows.start : rows.stop]
    images, name = SplitImages(split), f"{dataset} test"
    return _embedded(run, name, dataset, images, labels, rows, progress, space)

  return _EmbeddingJob(len(split), embed_test)


def _open_guides(run: Run, dataset: str, space: FeatureSpace) -> _EmbeddingJob:
  """Return real training images that no recognizer uses, see `guides.guides_of`."""
  chosen = guides_of(run, dataset)
  images = ChosenImages(SplitImages(run.split(dataset, "train")), chosen)
  labels = run.labels(dataset, "train")[chosen]

  def embed_guides(rows: range, progress: Progress) -> EmbeddingSet:
    own, name = labels[rows.start : rows.stop], f"{dataset} guides"
    return _embedded(run, name, dataset, images, own, rows, progress, space)

  return _EmbeddingJob(len(chosen), embed_guides)


@dataclasses.dataclass(frozen=True)
class ChosenImages:
  """Selected images of a split."""

  images: Images
  chosen: np.ndarray

  def __len__(self) -> int:
    return len(self.chosen)

  def __getitem__(self, index: int) -> Any:
    return self.images[int(self.chosen[index])]


def _open_images(run: Run, key: ImageSetKey, space: FeatureSpace) -> _EmbeddingJob:
  if embedded_as_made(run, key):
    raise RunError(
      f"there are no features of {key.name}. They are made with its images: run the stage `images` first."
    )
  images = open_image_set(run, key)

  def embed_images(rows: range, progress: Progress) -> EmbeddingSet:
    images.verify(rows)
    labels = _labels_of(images, rows, run.config.spec(key.dataset))
    stored = StoredImages(images)
    return _embedded(run, key.name, key.dataset, stored, labels, rows, progress, space)

  return _EmbeddingJob(len(images), embed_images)


def _labels_of(images: ImageSet, rows: range, spec: DatasetSpec) -> np.ndarray:
  """Return class indices [n], or multi-hot labels [n, k] for a multi-label dataset."""
  labels = images.labels[rows.start : rows.stop]
  if labels.ndim == 2 or not spec.multi_label:
    return labels
  return np.eye(spec.num_classes, dtype=bool)[labels]


def _embedded(
  run: Run,
  name: str,
  dataset: str,
  images: Images,
  labels: np.ndarray,
  rows: range,
  progress: Progress,
  space: FeatureSpace,
) -> EmbeddingSet:
  """Return the features of the given rows of some images."""
  resize = run.config.spec(dataset).resize
  features, valid = embed_stored(space.embedder, images, rows, resize, progress, f"embed {name}")
  stored = labels.astype(np.uint8 if labels.ndim == 2 else np.int32)
  return EmbeddingSet(features, stored, np.asarray(rows, np.int64), valid)
