"""The images of a cell as features: an image set, or original and external images together."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from genbench_jax.cells import (
  ImageSetKey,
  cells_of,
  long_tail_counts,
  mixture_budget,
  mixtures,
  rows_of_counts,
)
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.artifacts import (
  image_set_path,
)
from genbench_jax.run import Run
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store.embedding_set import EmbeddingSet, load_embeddings


@dataclasses.dataclass(frozen=True)
class External:
  """An image set's readable images.

  Attributes:
    shot_sizes: shots -> number of leading images.
    real_images: shots -> number of real images used, see `ImageSource`.
  """

  key: ImageSetKey
  images: EmbeddingSet
  shot_sizes: Mapping[int, int]
  real_images: Mapping[int, int]

  def of_shots(self, shots: int) -> EmbeddingSet:
    """Return the images of the first `shots` a class."""
    return self.images.take(np.flatnonzero(self.images.ids < self.shot_sizes[shots]))


@dataclasses.dataclass(frozen=True)
class Mixture(External):
  """Original images combined with external ones, `others`; both use the shots of the mixture."""

  others: External

  def of_shots(self, shots: int) -> EmbeddingSet:
    return self.originals(shots).joined(self.added(shots))

  def originals(self, shots: int) -> EmbeddingSet:
    """Return the real images of a mixture, which come first."""
    return super().of_shots(shots)

  def added(self, shots: int) -> EmbeddingSet:
    """Return the external images of a mixture."""
    return self.others.of_shots(shots)


@dataclasses.dataclass(frozen=True)
class LongTail(Mixture):
  """Decreasing numbers of original images by class, each filled up with external ones.

  Attributes:
    counts: shots -> number of original images of each class.
  """

  counts: Mapping[int, Int[np.ndarray, "k"]]

  def originals(self, shots: int) -> EmbeddingSet:
    images = super().originals(shots)
    return images.take(rows_of_counts(images.labels, self.counts[shots]))

  def added(self, shots: int) -> EmbeddingSet:
    images = super().added(shots)
    return images.take(rows_of_counts(images.labels, shots - self.counts[shots]))


def external_images(run: Run, key: ImageSetKey, space: FeatureSpace | None = None) -> External:
  """Return the readable images of an image set or a mixture.

  Args:
    run: a config on its work folder.
    key: the image set.
    space: the encoder.
  """
  if key.source != "combined":
    source = SOURCES[key.source]
    images = load_embeddings(image_set_path(run, key, space)).readable()
    return External(key, images, source.shot_sizes(run, key), source.real_images(run, key))
  budgets = {
    cell.shots: mixture_budget(cell.shots, run.config.mixture) for cell in cells_of(key, run.config)
  }
  original, others = (
    _part(run, part, {shots: budget[place] for shots, budget in budgets.items()}, space)
    for place, part in enumerate(mixtures(run.config)[key])
  )
  real_images = {
    shots: original.real_images[shots] + others.real_images[shots] for shots in budgets
  }
  mixture = Mixture(key, original.images, original.shot_sizes, real_images, others)
  return _long_tail(run, mixture) if run.config.mixture.budget == "long_tail" else mixture


def _long_tail(run: Run, mixture: Mixture) -> LongTail:
  """Return the mixture with decreasing numbers of originals.

  Raises:
    UsageError: the dataset is multi-label.
  """
  spec, key = run.config.spec(mixture.key.dataset), mixture.key
  if spec.multi_label:
    raise UsageError(
      f"images of {spec.name} have several labels, so a long tail is not defined. Use another config.mixture.budget."
    )
  imbalance = run.config.mixture.imbalance
  counts = {
    shots: long_tail_counts(spec.num_classes, shots, imbalance, key.seed)
    for shots in mixture.shot_sizes
  }
  real_images = {
    shots: int(counts[shots].sum()) + mixture.others.real_images[shots] for shots in counts
  }
  return LongTail(
    key, mixture.images, mixture.shot_sizes, real_images, mixture.others, counts=counts
  )


def _part(
  run: Run, key: ImageSetKey, budgets: dict[int, int], space: FeatureSpace | None
) -> External:
  """Return an image set with the number of images that a mixture uses for each budget."""
  config = dataclasses.replace(run.config, shots=tuple(sorted(set(budgets.values()))))
  source, at_budgets = SOURCES[key.source], run.with_config(config)
  sizes, real = source.shot_sizes(at_budgets, key), source.real_images(at_budgets, key)
  return External(
    key,
    load_embeddings(image_set_path(run, key, space)).readable(),
    {shots: sizes[budget] for shots, budget in budgets.items()},
    {shots: real[budget] for shots, budget in budgets.items()},
  )
