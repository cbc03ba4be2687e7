"""How a recognizer is trained on images, and where."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from genbench_jax.recognizers.problem import Model, Problem
from genbench_jax.recognizers.settings import Recipe


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train on images.

  Attributes:
    name: of the recognizer.
    problem: what decides its program.
    start: seed -> the model to begin with.
    recipe: how it is trained.
    flops: of one image in one training step.
    finish: what becomes of the trained model before it is tested, such as a mean with the zero-shot model.
  """

  name: str
  problem: Problem
  start: Callable[[int], Model]
  recipe: Recipe
  flops: float = 0.0
  finish: Callable[[Model], Model] = lambda model: model


@dataclasses.dataclass(frozen=True)
class Place:
  """Where and under which name a cell is trained.

  Attributes:
    mesh: its devices share every batch.
    name: of the cell, for people.
    directory: of its checkpoints, or none.
    save_every: steps between them.
    at_once: cells in one program at most.
  """

  mesh: Mesh
  name: str = "images"
  directory: Path | None = None
  save_every: int = 100
  at_once: int = 1
