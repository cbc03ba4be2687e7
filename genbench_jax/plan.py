"""What a config amounts to: the image sets to make and the cells to measure."""

import dataclasses

import numpy as np
from jaxtyping import Int

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.config import Config


@dataclasses.dataclass(frozen=True)
class ImageSetKey:
  """One image set: its first s images a class are the s-shot set. `strategy` is empty for real images."""

  dataset: str
  source: str
  strategy: str
  seed: int

  @property
  def label(self) -> str:
    """The key in words, for logs and file names."""
    parts = (self.source, self.strategy, f"seed{self.seed}")
    return "-".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One setting that is measured."""

  dataset: str
  source: str
  strategy: str
  shots: int
  seed: int


def image_sets(config: Config) -> list[ImageSetKey]:
  """The image sets of a config, dataset by dataset. Where a dataset has no training split, it has no originals."""
  return [
    ImageSetKey(dataset, source, strategy, seed)
    for dataset in config.datasets
    for source in config.sources
    if source != "original" or "train" in dataset_spec(dataset).splits
    for strategy in (config.generation.strategies if source == "generative" else ("",))
    for seed in config.seeds
  ]


def cells(config: Config) -> list[Cell]:
  """The cells of a config, in the order of their image sets."""
  return [cell for key in image_sets(config) for cell in cells_of(key, config)]


def cells_of(key: ImageSetKey, config: Config) -> list[Cell]:
  """The cells of an image set: one for each number of shots."""
  return [
    Cell(key.dataset, key.source, key.strategy, shots, key.seed) for shots in sorted(config.shots)
  ]


def rows_of_shots(labels: Int[np.ndarray, "n"], shots: int) -> Int[np.ndarray, "m"]:
  """The rows of the first `shots` images of each class, in order; a class that has fewer keeps them all."""
  order = np.argsort(labels, kind="stable")
  counts = np.bincount(labels)
  starts = np.repeat(np.cumsum(counts) - counts, counts)
  rank = np.empty(len(labels), np.int64)
  rank[order] = np.arange(len(labels)) - starts
  return np.flatnonzero(rank < shots)
