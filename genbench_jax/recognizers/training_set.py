"""What a recognizer learns from: decoded images, targets, the weight of each image, and in which order they come.

Every recognizer understands the same mixtures: a weight for each source, and synthetic images first, real ones after.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.training import batch_rows


@dataclasses.dataclass(frozen=True)
class TrainingSet:
  """The images of a cell.

  Attributes:
    images: decoded squares, a little larger than the network's; in memory or mapped from a file.
    targets: one-hot or multi-hot.
    weights: of the loss of each image; their mean is 1.
    later: the images that train alone in the second phase, after all others; none is the usual single phase.
    multi_label: whether an image may have several labels.
    seed: of everything random.
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

  def phases(self) -> tuple[Int[np.ndarray, "m"], ...]:
    """The rows of each phase."""
    rows = np.arange(len(self))
    if not self.later.any() or self.later.all():
      return (rows,)
    return rows[~self.later], rows[self.later]

  def curriculum(self, recipe: Recipe, within: Int[np.ndarray, "m"] | None = None) -> "Curriculum":
    """The order of the images under a recipe, of all or of some of the rows."""
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
  """A training set with equal weights and a single phase where nothing else is given.

  Args:
    images: decoded squares.
    targets: one-hot or multi-hot.
    weights: of the loss of each image.
    later: images of the second phase.
    multi_label: whether an image may have several labels.
    seed: of everything random.
  """
  count = len(targets)
  weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
  later = np.zeros(count, bool) if later is None else np.asarray(later, bool)
  weights = (weights / weights.mean()).astype(np.float32)
  return TrainingSet(images, np.asarray(targets, np.float32), weights, later, multi_label, seed)


@dataclasses.dataclass(frozen=True)
class Curriculum:
  """Which images each step sees, and at which rate it learns: functions of the step's number alone.

  Attributes:
    phases: rows of each phase.
    steps: of each phase.
    recipe: how it is trained.
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
    """The rows of a step's batch: seeded permutations laid end to end, so that every batch is full."""
    phase, step, _ = self._place(number)
    order = batch_rows(step, self.recipe.batch_size, len(self.phases[phase]), self.seed + phase)
    return self.phases[phase][order]

  def rate(self, number: int) -> float:
    """The learning rate of a step; each phase warms up and cools down by itself."""
    _, step, steps = self._place(number)
    return self.recipe.learning_rate * schedule(self.recipe, step, steps)

  def _place(self, number: int) -> tuple[int, int, int]:
    """Phase, step within it, and its steps."""
    for phase, steps in enumerate(self.steps):
      if number < steps:
        return phase, number, steps
      number -= steps
    raise IndexError(number)

  def scaled(self, rate: float, steps: float) -> "Curriculum":
    """The same at another learning rate and length."""
    recipe = dataclasses.replace(self.recipe, learning_rate=rate * self.recipe.learning_rate)
    lengths = tuple(max(1, round(steps * length)) for length in self.steps)
    return dataclasses.replace(self, recipe=recipe, steps=lengths)


def schedule(recipe: Recipe, step: int, steps: int) -> float:
  """The share of the peak rate at a step: a linear warm-up that does not begin at zero, then the recipe's curve."""
  warmup = round(recipe.warmup * steps)
  if step < warmup:
    return (step + 1) / warmup
  if recipe.schedule == "constant":
    return 1.0
  if recipe.schedule == "steps":
    return 0.1 ** sum(step >= share * steps for share in (1 / 3, 2 / 3, 8 / 9))
  return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))


def source_weights(sizes: Sequence[int], loss_weights: Sequence[float]) -> Float[np.ndarray, "n"]:
  """A weight for each image, so that the mean loss is the weighted sum of the mean losses of the sources.

  With n images, n_s of source s and loss weights l_s: n l_s / n_s. Sources without images leave theirs to the others.

  Args:
    sizes: images of each source, which lie one after another.
    loss_weights: of each source.
  """
  present = [weight for size, weight in zip(sizes, loss_weights, strict=True) if size]
  total, count = sum(present), sum(sizes)
  parts = [
    np.full(size, count * weight / total / size if size else 0.0)
    for size, weight in zip(sizes, loss_weights, strict=True)
  ]
  return np.concatenate(parts).astype(np.float32)
