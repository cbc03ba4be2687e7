"""Training and testing of networks on images: one program, data-parallel over the mesh."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import fetch
from genbench_jax.recognizers.augment import central
from genbench_jax.recognizers.batches import batches_from, put
from genbench_jax.recognizers.problem import Batch, Model, Outcome, Problem
from genbench_jax.recognizers.train_step import (
  check_recipe,
  initial_state,
  program_recipe,
  step_program,
)
from genbench_jax.recognizers.training import checksums, run_steps
from genbench_jax.recognizers.training_set import Curriculum, TrainingSet
from genbench_jax.runtime.mesh import DATA_AXIS, pad_rows, padded_size, replicated
from genbench_jax.store.files import digest


class TrainingResult(NamedTuple):
  """The trained model, and loss and accuracy of each step of this call."""

  model: Model
  losses: Float[np.ndarray, "s"]
  accuracies: Float[np.ndarray, "s"]


def train(
  problem: Problem,
  models: Sequence[Model],
  sets: Sequence[TrainingSet],
  curricula: Sequence[Curriculum],
  mesh: Mesh,
  directory: Path | None = None,
  save_every: int = 100,
  watch: Callable[[int, Outcome], None] = lambda number, outcome: None,
) -> list[TrainingResult]:
  """Train one model, or several of equal shapes and lengths side by side.

  Args:
    problem: network and loss.
    models: initial model of each cell; they share the `frozen` of the first one.
    sets: training data of each cell.
    curricula: order of each cell; all have the same length.
    mesh: devices that share every batch.
    directory: folder of checkpoints, from which a stopped run resumes; None for no checkpoints.
      Each training has its own folder in it, so one of other settings, images or cells is not
      resumed.
    save_every: steps between checkpoints.
    watch: called with the number and outcome of each step.

  Raises:
    UsageError: the recipe is invalid, or the lengths differ.
  """
  recipe, lanes = curricula[0].recipe, len(models) if len(models) > 1 else 0
  check_recipe(recipe)
  if len({curriculum.num_steps for curriculum in curricula}) > 1:
    raise UsageError("cells that train side by side need the same number of steps.")
  if directory:
    # A checkpoint of a group holds all its cells.
    cells = zip(models, sets, curricula, strict=True)
    directory = directory / digest([_identity(*cell) for cell in cells])
  states = [initial_state(model, recipe) for model in models]
  state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if lanes else states[0]
  state, frozen = jax.device_put((state, models[0].frozen), replicated(mesh))
  program = step_program(problem, program_recipe(recipe), mesh, lanes)

  def batches(first: int) -> Iterator[Batch]:
    return batches_from(sets, curricula, first, mesh)

  state, outcomes = run_steps(
    program, state, frozen, batches, curricula[0].num_steps, directory, save_every, watch=watch
  )
  if not len(outcomes):
    outcomes = Outcome(np.zeros((0, len(models))), np.zeros((0, len(models))))
  return [
    _trained(_lane(state, lane) if lanes else state, model, outcomes, lane if lanes else None)
    for lane, model in enumerate(models)
  ]


def _identity(model: Model, data: TrainingSet, curriculum: Curriculum) -> list[Any]:
  """Return what the checkpoints of a training depend on, besides the code, as plain values."""
  arrays = (data.images, data.targets, data.weights, *curriculum.phases)
  leaves = jax.tree.leaves(model.variables)
  return [
    dataclasses.asdict(curriculum.recipe), curriculum.steps, int(curriculum.seed),
    checksums((*arrays, *leaves)),
  ]  # fmt: skip


def _lane(state: dict[str, Any], lane: int) -> dict[str, Any]:
  """Return the state of one of several cells."""
  return jax.tree.map(lambda leaf: leaf[lane], state)


def _trained(
  state: dict[str, Any], model: Model, outcomes: Outcome, lane: int | None
) -> TrainingResult:
  # With an average of the weights (EMA), the average is the model.
  variables, stats = state.get("average", (state["variables"], state["stats"]))
  losses, accuracies = (
    values if lane is None else values[:, lane] for values in (outcomes.loss, outcomes.accuracy)
  )
  model = Model(variables, stats, model.frozen)
  return TrainingResult(model, np.asarray(losses), np.asarray(accuracies))


@functools.lru_cache(maxsize=16)
def _tester(problem: Problem, mesh: Mesh) -> Callable[..., Array]:
  def scores(model: tuple[Any, Any, Any], images: UInt8[Array, "b s s 3"]) -> Float[Array, "b k"]:
    pixels = problem.view.normalized(central(images, problem.view.size))
    logits, _ = problem.logits(*model, pixels, None)
    logits = logits.astype(jnp.float32)
    return jax.nn.sigmoid(logits) if problem.multi_label else jax.nn.softmax(logits, axis=-1)

  return jax.jit(scores, out_shardings=NamedSharding(mesh, PartitionSpec(DATA_AXIS)))


def predict(
  problem: Problem,
  model: Model,
  images: UInt8[np.ndarray, "n s s 3"],
  mesh: Mesh,
  batch_size: int = 128,
) -> Float[np.ndarray, "n k"]:
  """Compute the class probabilities of images, from their centers.

  Args:
    problem: network and loss.
    model: trained model.
    images: decoded squares.
    mesh: devices that share every batch.
    batch_size: images per batch.
  """
  # A power of two up to `batch_size`, so that training and test sets of a cell share a program.
  size = padded_size(min(batch_size, 1 << (max(1, len(images)) - 1).bit_length()), mesh.size)
  placed = jax.device_put(tuple(model), replicated(mesh))
  split = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
  found = [
    _tester(problem, mesh)(placed, put(pad_rows(images[start : start + size], size), split))
    for start in range(0, len(images), size)
  ]
  return np.concatenate([fetch(mesh, part) for part in found])[: len(images)]
