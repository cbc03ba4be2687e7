"""What a config amounts to: the image sets to make and the cells to measure."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int

from genbench_jax.config import Config, Mixture
from genbench_jax.errors import UsageError

# Between a prompt strategy and what its new tokens are learned from.
INVERSION = "+inversion_"


@dataclasses.dataclass(frozen=True)
class ImageSetKey:
  """One image set: its first s images a class are the s-shot set.

  `strategy` is empty for real images; one whose classes have learned tokens ends in `+inversion_REFERENCES`. `generator` names
  an entry of `config.generators` or one of several folders; it is empty where there is but one.
  """

  dataset: str
  source: str
  strategy: str
  seed: int
  generator: str = ""

  @property
  def label(self) -> str:
    """The key in words, for the names of files. Generators of equal settings make the same files, so it names none."""
    folder = self.generator if self.source == "folder" else ""
    return _joined(self.source, folder, self.strategy, self.seed)

  @property
  def name(self) -> str:
    """The key with its dataset, for people."""
    return f"{self.dataset} {_joined(self.source, self.generator, self.strategy, self.seed)}"

  @property
  def references(self) -> str:
    """What the new tokens are learned from: `original`, `retrieval`, `folder`; empty without textual inversion."""
    return strategy_parts(self.strategy)[1]


@dataclasses.dataclass(frozen=True)
class Cell:
  """One setting that is measured."""

  dataset: str
  source: str
  strategy: str
  shots: int
  seed: int
  generator: str = ""


def _joined(source: str, generator: str, strategy: str, seed: int) -> str:
  return "-".join(part for part in (source, generator, strategy, f"seed{seed}") if part)


def image_sets(config: Config) -> list[ImageSetKey]:
  """The image sets of a config, dataset by dataset. Where a dataset has no training split, it has no originals."""
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
  """The mixtures of a config, each with the originals and the external images that it is of.

  Its strategy says which external images they are: theirs, or their source where that has none.

  Raises:
    UsageError: no number of shots makes a mixture.
  """
  if "combined" not in config.sources:
    return {}
  if not _mixture_shots(config):
    raise UsageError(
      f"config.mixture.ratio {config.mixture.ratio} with budget {config.mixture.budget!r} leaves no number of"
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
  """What is measured: the image sets and the mixtures of them, dataset by dataset."""
  keys = [*image_sets(config), *mixtures(config)]
  return sorted(keys, key=lambda key: list(config.specs).index(key.dataset))


def strategy_parts(strategy: str) -> tuple[str, str]:
  """The prompt strategy, and what its new tokens are learned from: empty without textual inversion."""
  prompts, _, references = strategy.partition(INVERSION)
  return prompts, references


def mixture_budget(shots: int, mixture: Mixture) -> tuple[int, int]:
  """Original and external images a class in a mixture of so many shots; of a long tail, the most of each."""
  if mixture.budget == "long_tail":
    return shots, shots
  if mixture.budget == "added":
    return shots, math.floor(shots * mixture.ratio + 0.5)
  external = math.floor(shots * mixture.ratio / (1 + mixture.ratio) + 0.5)
  return shots - external, external


def long_tail_counts(
  num_classes: int, shots: int, imbalance: float, seed: int
) -> Int[np.ndarray, "k"]:
  """Original images of each class: shots x imbalance^(-r / (k - 1)) for the class of rank r, at least one.

  Which class has which rank is drawn with the seed, so that the tail is not always the end of the alphabet.

  Reference:
    Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss", 2019 (arXiv 1906.07413), CIFAR-LT.

  Args:
    num_classes: k.
    shots: images of the first class.
    imbalance: images of the first class for one of the last.
    seed: of the ranks.
  """
  ranks = np.random.default_rng(seed).permutation(num_classes)
  counts = shots * imbalance ** (-ranks / max(1, num_classes - 1))
  return np.maximum(1, np.floor(counts + 0.5)).astype(np.int64)


def rows_of_counts(
  labels: Int[np.ndarray, "n"], counts: Int[np.ndarray, "k"]
) -> Int[np.ndarray, "m"]:
  """The rows of the first `counts[c]` images of each class c, in order."""
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
  """The entries of the table that make a source's images, or its folders; one without a name where there is one."""
  if source == "folder":
    return list(config.folder.named_paths)
  return list(config.generators) or [""] if source == "generative" else [""]


def _strategies(config: Config, dataset: str, source: str) -> list[str]:
  """The prompt strategies, each plain or with new tokens; none of `original` images where there are none."""
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
  """The cells of a config, in the order of their image sets."""
  return [cell for key in measured_sets(config) for cell in cells_of(key, config)]


def cells_of(key: ImageSetKey, config: Config) -> list[Cell]:
  """The cells of an image set: one for each number of shots.

  A mixture has those that hold images of both kinds, of each at most as many as are made.
  """
  budgets = _mixture_shots(config) if key.source == "combined" else sorted(config.shots)
  return [
    Cell(key.dataset, key.source, key.strategy, shots, key.seed, key.generator) for shots in budgets
  ]
