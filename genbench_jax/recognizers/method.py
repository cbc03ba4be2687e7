"""Training methods: how, where and under which name a recognizer is trained on images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from genbench_jax.recognizers.problem import Model, Problem
from genbench_jax.recognizers.settings import Recipe


@dataclasses.dataclass(frozen=True)
class Method:
  """A method of training on images.

  Attributes:
    name: name of the recognizer.
    problem: network and loss.
    start: seed -> initial model.
    recipe: how to train.
    flops: floating-point operations per image and training step.
    finish: applied to the trained model before testing, such as averaging with the zero-shot model.
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
    mesh: devices that share every batch.
    name: name of the cell, for messages.
    directory: folder of its checkpoints, or None.
    save_every: steps between checkpoints.
    at_once: maximal number of cells per program.
  """

  mesh: Mesh
  name: str = "images"
  directory: Path | None = None
  save_every: int = 100
  at_once: int = 1
