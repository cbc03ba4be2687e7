"""The cost of training the recognizers, from the config alone."""

import dataclasses
from collections.abc import Callable, Mapping

from genbench_jax.cells import Cell, cells_of, measured_sets
from genbench_jax.config import Config
from genbench_jax.models.classifier_cost import network_flops
from genbench_jax.planning.models import ModelCost
from genbench_jax.recognizers.settings import VPT_DECAYS, VPT_RATES, Recipe

# One forward pass, and a backward pass of twice the cost.
TRAINING_PASSES = 3
# Passes over the features of a linear probe: 6 penalties, 3 folds and the fit, about 12 L-BFGS
# iterations each with 4 n d k operations.
PROBE_PASSES = 6 * 4 * 12


@dataclasses.dataclass(frozen=True)
class CellSizes:
  """Sizes of a cell.

  Attributes:
    external: maximum number of training images.
    test: number of test images.
    classes: number of classes of the dataset.
    shots: images per class.
  """

  external: int
  test: int
  classes: int
  shots: int


def recognition_flops(
  config: Config,
  dataset: str,
  num_classes: int,
  test: int,
  encoder: ModelCost,
  size_of: Callable[[Cell], int],
) -> float | None:
  """Return the operations of all recognizers on the cells of a dataset; None if a model is unknown.

  Args:
    config: recognizers and their training settings.
    dataset: name of the dataset.
    num_classes: number of its classes.
    test: number of its test images.
    encoder: the run's CLIP.
    size_of: function from a cell to its maximum number of external images.
  """
  costs = _costs(config, encoder)
  total = 0.0
  for name in config.recognition.recognizers:
    for cell in _cells(config, dataset, name):
      sizes = CellSizes(size_of(cell), test, num_classes, cell.shots)
      flops = costs[name](sizes)
      if flops is None:
        return None
      protocols = 1 if name in ("coop", "vpt") else len(config.recognition.protocols)
      total += protocols * flops
  return total


def _cells(config: Config, dataset: str, recognizer: str) -> list[Cell]:
  shots = config.recognition.shots_of(recognizer)
  return [
    cell
    for key in measured_sets(config)
    if key.dataset == dataset
    for cell in cells_of(key, config)
    if not shots or cell.shots in shots
  ]


def image_steps(recipe: Recipe, num_images: int) -> float:
  """Return the number of images in training, including the search on held-out images."""
  pairs = len(recipe.search_rates) * len(recipe.search_epochs)
  searched = len(recipe.search_rates) * sum(recipe.search_epochs) if pairs > 1 else 0.0
  return (1 + searched) * recipe.num_steps(num_images) * recipe.batch_size


def _costs(config: Config, encoder: ModelCost) -> Mapping[str, Callable[[CellSizes], float | None]]:
  settings = config.recognition
  scratch, tuned, low, tip = (
    settings.from_scratch,
    settings.fine_tune,
    settings.lora,
    settings.tip_adapter,
  )

  def passes(recipe: Recipe, flops: float, sizes: CellSizes) -> float:
    trained = TRAINING_PASSES * image_steps(recipe, sizes.external)
    return flops * (trained + sizes.test)

  def probe(sizes: CellSizes) -> float:
    axes = min(sizes.external, encoder.width)
    return 4.0 * sizes.external * axes * sizes.classes * PROBE_PASSES

  def coop(sizes: CellSizes) -> float | None:
    # All classes pass through the text tower in each step, with its forward pass computed twice.
    own = settings.coop.for_images(max(sizes.external, 1), sizes.classes)
    text = _times(encoder.text_flops, (TRAINING_PASSES + 1) * own.steps * sizes.classes)
    if text is None or not own.paper:
      return text
    # The paper's random views are encoded at each step.
    views = _times(encoder.flops, own.steps * min(own.batch_size, sizes.external))
    return None if views is None else text + views

  def vpt(sizes: CellSizes) -> float | None:
    own = settings.vpt.for_images(max(sizes.external, 1))
    trainings = 1 + own.search * len(VPT_RATES) * len(VPT_DECAYS)
    steps = (TRAINING_PASSES + 1) * own.steps * own.batch_size
    return _times(encoder.flops, steps * trainings + sizes.test)

  def cache(sizes: CellSizes) -> float:
    pairs = len(tip.search_alphas) * len(tip.search_betas)
    epochs = TRAINING_PASSES * tip.epochs if tip.train else 0.0
    products = (pairs + epochs) * sizes.external + sizes.test
    return 2.0 * products * sizes.external * (encoder.width + sizes.classes)

  def lora(sizes: CellSizes) -> float | None:
    if encoder.flops is None or encoder.text_flops is None:
      return None
    steps = image_steps(low.recipe, sizes.external) / low.recipe.batch_size
    text = TRAINING_PASSES * steps * sizes.classes * encoder.text_flops
    return passes(low.recipe, encoder.flops, sizes) + text

  def fine_tune(sizes: CellSizes) -> float | None:
    flops = encoder.flops
    if tuned.checkpoint:
      flops = network_flops(tuned.network, tuned.image_size, sizes.classes, "standard")
    return None if flops is None else passes(tuned.recipe, flops, sizes)

  def from_scratch(sizes: CellSizes) -> float:
    flops = network_flops(scratch.network, scratch.image_size, sizes.classes, scratch.stem)
    return passes(scratch.recipe, flops, sizes)

  return {
    "linear_probe": probe, "coop": coop, "vpt": vpt, "tip_adapter": cache, "lora": lora,
    "fine_tune": fine_tune, "from_scratch": from_scratch,
  }  # fmt: skip


def _times(flops: float | None, count: float) -> float | None:
  return None if flops is None else flops * count
