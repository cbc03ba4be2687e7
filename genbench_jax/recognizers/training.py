"""The one training loop, which can be stopped at any moment: of prompts, adapters and whole networks.

A step is a pure function of the state and its batch, and the batch of its number, so that a run that was
killed and started again ends with the very weights of an undisturbed one (same seed, same mesh).
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import ModelError
from genbench_jax.runtime.mesh import replicated

State = Any
Step = Callable[[State, Any, Any], tuple[State, Float[Array, ""]]]

# Steps that are on their way while the host prepares the next.
STEPS_AHEAD = 2
# How often each recognizer's step was traced: one compile per shape is asserted by tests.
trace_counts = {"coop": 0, "vpt": 0, "engine": 0, "tip_adapter": 0}


class Program(NamedTuple):
  """An optimizer and its step, compiled once for each shape: kept for all cells of a run."""

  optimizer: optax.GradientTransformation
  step: Step
  name: str = "training"


def make_program(
  name: str,
  loss_and_gradient: Callable[[Any, Any, Any], tuple[Array, Any]],
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
) -> Program:
  """The step on a state (variables, optimizer state), which every device has whole.

  `loss_and_gradient` takes (variables, frozen, batch).
  """

  def step(state: State, frozen: Any, batch: Any) -> tuple[State, Float[Array, ""]]:
    trace_counts[name] += 1
    variables, optimizer_state = state
    loss, gradient = loss_and_gradient(variables, frozen, batch)
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, variables)
    return (optax.apply_updates(variables, updates), optimizer_state), loss

  return Program(optimizer, jax.jit(step, out_shardings=replicated(mesh)), name)


def learn(
  program: Program,
  start: Any,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
  steps: int,
  mesh: Mesh,
  directory: Path | None,
  save_every: int,
) -> tuple[Any, Float[np.ndarray, "s"]]:
  """The variables after all steps, and the losses of those that this call has run; see `run_steps`."""
  state = jax.device_put((start, program.optimizer.init(start)), replicated(mesh))
  (variables, _), losses = run_steps(
    program.step, state, frozen, batches, steps, directory, save_every,
    watch=functools.partial(refuse_divergence, program.name),
  )  # fmt: skip
  return jax.tree.map(np.asarray, variables), losses


def label_shares(targets: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
  """Targets whose rows sum to one: several labels of an image share its weight."""
  return np.asarray(targets / np.maximum(targets.sum(axis=1, keepdims=True), 1), np.float32)


def weighted_shares(
  targets: Float[np.ndarray, "n k"], weights: Float[np.ndarray, "n"] | None
) -> Float[np.ndarray, "n k"]:
  """Targets that sum to the weight of their image: the cross-entropy is linear in them."""
  shares = label_shares(targets)
  if weights is None:
    return shares
  return (shares * (weights / np.mean(weights))[:, None]).astype(np.float32)


def warmup_cosine(peak: float, steps: int, warmup: int) -> optax.Schedule:
  """Linear warm-up to the peak, then half a cosine down to zero at the last step."""
  return optax.warmup_cosine_decay_schedule(0.0, peak, min(warmup, steps - 1), steps)


def batch_rows(number: int, batch_size: int, num_rows: int, seed: int) -> Int[np.ndarray, "b"]:
  """The rows of a step's batch: seeded permutations, one an epoch, laid end to end and cut."""
  places = number * batch_size + np.arange(batch_size)
  orders = {
    epoch: np.random.default_rng([seed, epoch]).permutation(num_rows)
    for epoch in range(places[0] // num_rows, places[-1] // num_rows + 1)
  }
  return np.array([orders[place // num_rows][place % num_rows] for place in places.tolist()])


def mixed_rows(
  number: int,
  steps: int,
  batch_size: int,
  later: Bool[np.ndarray, "n"] | None,
  num_rows: int,
  seed: int,
) -> Int[np.ndarray, "b"]:
  """The rows of a step's batch where some images may follow on the others: those train alone in the second half.

  Args:
    number: of the step.
    steps: of the whole training.
    batch_size: images a step.
    later: images that follow; none, or all, is one phase.
    num_rows: of all images.
    seed: of the order.
  """
  if later is None or later.all() or not later.any():
    return batch_rows(number, batch_size, num_rows, seed)
  half = steps // 2
  second = number >= half
  rows = np.flatnonzero(later if second else ~later)
  return rows[batch_rows(number - half if second else number, batch_size, len(rows), seed)]


def refuse_divergence(name: str, number: int, loss: Any) -> None:
  """Stops a training whose loss is no number.

  Raises:
    ModelError: it names the step.
  """
  if not np.isfinite(np.asarray(loss)).all():
    raise ModelError(
      f"{name}: the loss is {loss} at step {number + 1}. A lower learning rate may help."
    )


def run_steps(
  step: Step,
  state: State,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
  steps: int,
  directory: Path | None = None,
  save_every: int = 100,
  keep: int = 2,
  watch: Callable[[int, Any], None] = lambda number, outcome: None,
) -> tuple[State, Any]:
  """Runs the steps from the last checkpoint on.

  Args:
    step: (state, frozen, batch) -> (new state, outcome), compiled; the outcome is the loss, or a tree with it.
    state: the state to begin with, a tree of arrays.
    frozen: arrays that every step reads.
    batches: the batches of a step of the given number and those after it.
    steps: how many steps there are.
    directory: where checkpoints are kept (Orbax: written aside, then renamed), or none.
    save_every: steps between two checkpoints.
    keep: how many checkpoints are kept.
    watch: told of each step's number and outcome, which is then computed or nearly so.

  Returns:
    The state after the last step, and the outcomes of the steps that this call has run, one on another.
  """
  manager = _manager(directory, keep) if directory else None
  first, state = _restored(manager, state)
  outcomes = []
  for number, batch in zip(range(first, steps), batches(first), strict=False):
    state, outcome = step(state, frozen, batch)
    outcomes.append(outcome)
    if number - first >= STEPS_AHEAD:
      # Waits for an earlier step: the host must not run ahead of the devices with ever more batches.
      watch(number - STEPS_AHEAD, jax.block_until_ready(outcomes[-1 - STEPS_AHEAD]))
    if manager and ((number + 1) % save_every == 0 or number + 1 == steps):
      _save(manager, number + 1, state)
  for number in range(max(first, steps - STEPS_AHEAD), steps):
    watch(number, outcomes[number - first])
  if manager:
    manager.close()
  if not outcomes:
    return state, np.zeros(0, np.float32)
  fetched = jax.device_get(outcomes)
  return state, jax.tree.map(lambda *each: np.asarray(each, np.float32), *fetched)


def _manager(directory: Path, keep: int) -> Any:
  import orbax.checkpoint as ocp

  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
  )
  return ocp.CheckpointManager(directory.absolute(), options=options)


def _restored(manager: Any, state: State) -> tuple[int, State]:
  """The step after the last checkpoint and its state; 0 and the given state where there is none."""
  latest = manager.latest_step() if manager else None
  if latest is None:
    return 0, state
  import orbax.checkpoint as ocp

  shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  return latest, manager.restore(latest, args=ocp.args.StandardRestore(shapes))


def _save(manager: Any, step: int, state: State) -> None:
  import orbax.checkpoint as ocp

  manager.save(step, args=ocp.args.StandardSave(state))
  manager.wait_until_finished()
