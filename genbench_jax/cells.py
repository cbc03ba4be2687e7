"""The image sets and cells of a config."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int

from genbench_jax.config import Config, Mixture
from genbench_jax.errors import UsageError

# Separates a prompt strategy from the source of its new tokens.
INVERSION = "+inversion_"


@dataclasses.dataclass(frozen=True)
class ImageSetKey:
  """Key of one image set; its first s images per class are the s-shot set.

  `strategy` is empty for real images and ends in `+inversion_REFERENCES` if its classes have
  learned tokens. `generator` names an entry of `config.generators` or one of several folders; it is
  empty if there is only one.
  """

  dataset: str
  source: str
  strategy: str
  seed: int
  generator: str = ""

  @property
  def label(self) -> str:
    """The key for file names.

    It does not contain the generator, because generators with equal settings share their files.
    """
    folder = self.generator if self.source == "folder" else ""
    return _joined(self.source, folder, self.strategy, self.seed)

  @property
  def name(self) -> str:
    """The readable key, with its dataset."""
    return f"{self.dataset} {_joined(self.source, self.generator, self.strategy, self.seed)}"

  @property
  def references(self) -> str:
    """Source of the new tokens: `original`, `retrieval`, `folder`, or empty."""
    return strategy_parts(self.strategy)[1]


@dataclasses.dataclass(frozen=True)
class Cell:
  """One measured combination of dataset, source, strategy, shots and seed."""

  dataset: str
  source: str
  strategy: str
  shots: int
  seed: int
  generator: str = ""


def _joined(source: str, generator: str, strategy: str, seed: int) -> str:
  return "-".join(part for part in (source, generator, strategy, f"seed{seed}") if part)


def image_sets(config: Config) -> list[ImageSetKey]:
  """Return the image sets of a config by dataset. Originals need a training split."""
  return [
    ImageSetKey(dataset, source, strategy, seed, generator)
    for dataset in config.specs
    for source in config.sources
    if source != "combined"
    if source != "original" or "train" in config.spec(dataset).splits
    for generator in _generators(config, source)
    for strategy in _strategies(config, dataset, source)
    for seed in config.seeds
  ]


def mixtures(config: Config) -> dict[ImageSetKey, tuple[ImageSetKey, ImageSetKey]]:
  """Return the mixtures of a config, each with its original and external images.

  The strategy of a mixture is that of its external images, or their source if they have none.

  Raises:
    UsageError: no number of shots gives a mixture.
  """
  if "combined" not in config.sources:
    return {}
  if not _mixture_shots(config):
    raise UsageError(
      f"config.mixture.ratio {config.mixture.ratio} with budget {config.mixture.budget!r} gives no number of"
      f" shots among {config.shots} with images of both kinds, of each at most {max(config.shots)}."
    )
  sets = image_sets(config)
  originals = {(key.dataset, key.seed): key for key in sets if key.source == "original"}
  return {
    ImageSetKey(key.dataset, "combined", key.strategy or key.source, key.seed, key.generator): (
      originals[key.dataset, key.seed],
      key,
    )
    for key in sets
    if key.source in config.mixture.with_sources and (key.dataset, key.seed) in originals
  }


def measured_sets(config: Config) -> list[ImageSetKey]:
  """Return the image sets and mixtures that are measured, by dataset."""
  keys = [*image_sets(config), *mixtures(config)]
  return sorted(keys, key=lambda key: list(config.specs).index(key.dataset))


def strategy_parts(strategy: str) -> tuple[str, str]:
  """Return the prompt strategy and the source of its new tokens, which is empty without inversion."""
  prompts, _, references = strategy.partition(INVERSION)
  return prompts, references


def mixture_budget(shots: int, mixture: Mixture) -> tuple[int, int]:
  """Return the original and external images per class of a mixture; for a long tail, the maxima."""
  if mixture.budget == "long_tail":
    return shots, shots
  if mixture.budget == "added":
    return shots, math.floor(shots * mixture.ratio + 0.5)
  external = math.floor(shots * mixture.ratio / (1 + mixture.ratio) + 0.5)
  return shots - external, external


def long_tail_counts(
  num_classes: int, shots: int, imbalance: float, seed: int
) -> Int[np.ndarray, "k"]:
  """Return the original images of each class in a long-tailed set.

  The class of rank r has shots x imbalance^(-r / (k - 1)) images, at least one. Ranks are drawn
  with the seed, so that the tail is not always the end of the alphabet.

  Reference:
    Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss", 2019
      (arXiv 1906.07413), CIFAR-LT.

  Args:
    num_classes: k.
    shots: images of the first class.
    imbalance: ratio of the images of the first class to those of the last.
    seed: seed of the ranks.
  """
  ranks = np.random.default_rng(seed).permutation(num_classes)
  counts = shots * imbalance ** (-ranks / max(1, num_classes - 1))
  return np.maximum(1, np.floor(counts + 0.5)).astype(np.int64)


def rows_of_counts(
  labels: Int[np.ndarray, "n"], counts: Int[np.ndarray, "k"]
) -> Int[np.ndarray, "m"]:
  """Return the rows of the first `counts[c]` images of each class c, in order."""
  seen = np.zeros(len(counts), np.int64)
  rows = []
  for row, label in enumerate(labels.tolist()):
    if seen[label] < counts[label]:
      rows.append(row)
      seen[label] += 1
  return np.asarray(rows, np.int64)


def _mixture_shots(config: Config) -> list[int]:
  parts = {shots: mixture_budget(shots, config.mixture) for shots in sorted(config.shots)}
  return [shots for shots, both in parts.items() if min(both) > 0 and max(both) <= max(parts)]


def _generators(config: Config, source: str) -> list[str]:
  """Return the generators or folders of a source; a single one has no name."""
  if source == "folder":
    return list(config.folder.named_paths)
  return list(config.generators) or [""] if source == "generative" else [""]


def _strategies(config: Config, dataset: str, source: str) -> list[str]:
  """Return the prompt strategies, plain or with new tokens."""
  if source != "generative":
    return [""]
  has_originals = "train" in config.spec(dataset).splits
  return [
    f"{strategy}{INVERSION}{references}" if references else strategy
    for strategy in config.generation.strategies
    for references in config.textual_inversion.references
    if references != "original" or has_originals
  ]


def all_cells(config: Config) -> list[Cell]:
  """Return the cells of a config in the order of their image sets."""
  return [cell for key in measured_sets(config) for cell in cells_of(key, config)]


def cells_of(key: ImageSetKey, config: Config) -> list[Cell]:
  """Return the cells of an image set, one for each number of shots.

  A mixture has the cells that contain images of both kinds and need no more than are made.
  """
  budgets = _mixture_shots(config) if key.source == "combined" else sorted(config.shots)
  return [
    Cell(key.dataset, key.source, key.strategy, shots, key.seed, key.generator) for shots in budgets
  ]
