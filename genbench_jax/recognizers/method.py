"""Training methods: how, where and under which name a recognizer is trained on images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from genbench_jax.recognizers.problem import Model, Problem
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.runtime.peak import operations_of


@dataclasses.dataclass(frozen=True)
class Method:
  """A method of training on images.

  Attributes:
    name: name of the recognizer.
    problem: network and loss.
    start: seed -> initial model.
    recipe: how to train.
    finish: applied to the trained model before testing, such as averaging with the zero-shot model.
  """

  name: str
  problem: Problem
  start: Callable[[int], Model]
  recipe: Recipe
  finish: Callable[[Model], Model] = lambda model: model


def step_flops(method: Method) -> float:
  """Return the floating-point operations of a training step per image: three forward passes."""
  view, batch = method.problem.view, method.recipe.batch_size
  model = jax.eval_shape(lambda: method.start(0))
  pixels = jax.ShapeDtypeStruct((batch, view.size, view.size, 3), np.float32)
  forward = lambda model, pixels: method.problem.logits(*model, pixels, None)[0]  # noqa: E731
  return 3 * operations_of(forward, model, pixels) / batch


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
