"""Training data of a recognizer: images, targets, loss weights, and the order of the batches.

All recognizers support the same mixtures: a weight per source, and synthetic images first with real
ones after.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.training import batch_rows, later_images, mean_one


@dataclasses.dataclass(frozen=True)
class TrainingSet:
  """Training images of a cell.

  Attributes:
    images: decoded squares, slightly larger than the network's input; in memory or memory-mapped.
    targets: one-hot or multi-hot.
    weights: loss weight of each image; their mean is 1.
    later: images that train alone in a second phase; all False for a single phase.
    multi_label: whether an image may have several labels.
    seed: of all randomness.
  """

  images: UInt8[np.ndarray, "n s s 3"]
  targets: Float[np.ndarray, "n k"]
  weights: Float[np.ndarray, "n"]
  later: Bool[np.ndarray, "n"]
  multi_label: bool = False
  seed: int = 0

  def __len__(self) -> int:
    return len(self.targets)

  @property
  def num_classes(self) -> int:
    return self.targets.shape[1]

  def phases(self) -> tuple[Int[np.ndarray, "_"], ...]:
    """Return the rows of each phase."""
    rows = np.arange(len(self))
    if not self.later.any() or self.later.all():
      return (rows,)
    return rows[~self.later], rows[self.later]

  def curriculum(self, recipe: Recipe, within: Int[np.ndarray, "m"] | None = None) -> "Curriculum":
    """Return the order of the images under a recipe, for all rows or only those in `within`."""
    chosen = np.ones(len(self), bool)
    if within is not None:
      chosen = np.isin(np.arange(len(self)), within)
    phases = [rows[chosen[rows]] for rows in self.phases()]
    phases = [rows for rows in phases if len(rows)]
    return Curriculum(
      tuple(phases), tuple(recipe.num_steps(len(rows)) for rows in phases), recipe, self.seed
    )


def make_training_set(
  images: UInt8[np.ndarray, "n s s 3"],
  targets: Float[np.ndarray, "n k"],
  weights: Any = None,
  later: Any = None,
  multi_label: bool = False,
  seed: int = 0,
) -> TrainingSet:
  """Create a training set; the defaults are equal weights and a single phase.

  Args:
    images: decoded squares.
    targets: one-hot or multi-hot.
    weights: loss weight of each image.
    later: images of the second phase.
    multi_label: whether an image may have several labels.
    seed: of all randomness.

  Raises:
    UsageError: `weights` or `later` do not fit the images.
  """
  weights, later = mean_one(weights, len(targets)), later_images(later, len(targets))
  return TrainingSet(images, np.asarray(targets, np.float32), weights, later, multi_label, seed)


@dataclasses.dataclass(frozen=True)
class Curriculum:
  """Images and learning rate of each step, as functions of the step number alone.

  Attributes:
    phases: rows of each phase.
    steps: number of steps of each phase.
    recipe: how to train.
    seed: of the order.
  """

  phases: tuple[Int[np.ndarray, "_"], ...]
  steps: tuple[int, ...]
  recipe: Recipe
  seed: int

  @property
  def num_steps(self) -> int:
    return sum(self.steps)

  def rows(self, number: int) -> Int[np.ndarray, "b"]:
    """Return the rows of a step's batch, from seeded permutations laid end to end."""
    phase, step, _ = self._place(number)
    order = batch_rows(step, self.recipe.batch_size, len(self.phases[phase]), self.seed + phase)
    return self.phases[phase][order]

  def rate(self, number: int) -> float:
    """Return the learning rate of a step; each phase has its own warm-up and decay."""
    _, step, steps = self._place(number)
    return self.recipe.learning_rate * schedule(self.recipe, step, steps)

  def _place(self, number: int) -> tuple[int, int, int]:
    """Return the phase, the step within it, and its number of steps."""
    for phase, steps in enumerate(self.steps):
      if number < steps:
        return phase, number, steps
      number -= steps
    raise IndexError(number)

  def scaled(self, rate: float, steps: float) -> "Curriculum":
    """Return the same order with the learning rate and the length multiplied."""
    recipe = dataclasses.replace(self.recipe, learning_rate=rate * self.recipe.learning_rate)
    lengths = tuple(max(1, round(steps * length)) for length in self.steps)
    return dataclasses.replace(self, recipe=recipe, steps=lengths)


def schedule(recipe: Recipe, step: int, steps: int) -> float:
  """Return the fraction of the peak rate at a step: linear warm-up, then the recipe's curve.

  Args:
    recipe: how to train.
    step: the step, from 0.
    steps: number of steps.
  """
  warmup = round(recipe.warmup * steps)
  if step < warmup:
    return (step + 1) / warmup
  if recipe.schedule == "constant":
    return 1.0
  if recipe.schedule == "steps":
    return 0.1 ** sum(step >= share * steps for share in (1 / 3, 2 / 3, 8 / 9))
  return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))


def source_weights(sizes: Sequence[int], loss_weights: Sequence[float]) -> Float[np.ndarray, "n"]:
  """Return image weights under which the mean loss is the weighted sum of the sources' mean losses.

  With n images in total, n_s of source s and loss weights l_s (normalized), an image of source s
  has weight n l_s / n_s. The share of a source without images goes to the others.

  Args:
    sizes: number of images of each source; sources are concatenated.
    loss_weights: loss weight of each source.
  """
  present = [weight for size, weight in zip(sizes, loss_weights, strict=True) if size]
  total, count = sum(present), sum(sizes)
  parts = [
    np.full(size, count * weight / total / size if size else 0.0)
    for size, weight in zip(sizes, loss_weights, strict=True)
  ]
  return np.concatenate(parts).astype(np.float32)
