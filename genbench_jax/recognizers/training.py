"""The training loop for prompts, adapters and networks; it can be stopped at any time.

A step is a pure function of the state and its batch, and the batch is a function of the step
number. A run that was killed and restarted therefore ends with exactly the weights of an
uninterrupted one (same seed, same mesh).
"""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import ModelError, UsageError
from genbench_jax.runtime.mesh import replicated
from genbench_jax.runtime.progress import say

State = Any
Step = Callable[[State, Any, Any], tuple[State, Float[Array, ""]]]

# Steps in flight while the host prepares the next one.
STEPS_AHEAD = 2


class Program(NamedTuple):
  """An optimizer and its step, compiled once per shape and reused for all cells of a run."""

  optimizer: optax.GradientTransformation
  step: Step
  name: str = "training"


def make_program(
  name: str,
  loss_and_gradient: Callable[[Any, Any, Any], tuple[Array, Any]],
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
) -> Program:
  """Return the jitted step on a replicated state (variables, optimizer state).

  Args:
    name: name of the recognizer for messages and profiles.
    loss_and_gradient: maps (variables, frozen, batch) to the loss and its gradient.
    optimizer: the optimizer.
    mesh: devices.
  """

  def step(state: State, frozen: Any, batch: Any) -> tuple[State, Float[Array, ""]]:
    variables, optimizer_state = state
    loss, gradient = loss_and_gradient(variables, frozen, batch)
    updates, optimizer_state = optimizer.update(gradient, optimizer_state, variables)
    return (optax.apply_updates(variables, updates), optimizer_state), loss

  step.__name__ = f"{name}_step"
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
  """Train from `start`; return the final variables and the losses of this call's steps.

  Args:
    program: optimizer and step.
    start: initial variables.
    frozen, batches, steps, directory, save_every: see `run_steps`.
    mesh: devices.

  Raises:
    ModelError: a loss or a learned variable is NaN or infinite.
  """
  state = jax.device_put((start, program.optimizer.init(start)), replicated(mesh))
  (variables, _), losses = run_steps(
    program.step, state, frozen, batches, steps, directory, save_every,
    watch=functools.partial(refuse_divergence, program.name),
  )  # fmt: skip
  variables = jax.tree.map(np.asarray, variables)
  if not all_finite(variables):  # no later loss shows what the last update did
    raise ModelError(f"{program.name}: the last of {steps} steps made the variables infinite.")
  return variables, losses


def all_finite(tree: Any) -> bool:
  """Return whether a tree of arrays has neither NaN nor infinity."""
  return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def label_shares(targets: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
  """Scale the targets of each image to sum to one, so that its labels share its weight."""
  return np.asarray(targets / np.maximum(targets.sum(axis=1, keepdims=True), 1), np.float32)


def mean_one(weights: Any, count: int) -> Float[np.ndarray, "n"]:
  """Scale loss weights to a mean of one, which keeps the learning rate meaningful; None is equal.

  Raises:
    UsageError: there is not one weight per image, one is negative or not finite, or all are zero.
  """
  weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
  if weights.shape != (count,):
    raise UsageError(f"loss weights have shape {weights.shape}, but there are {count} images.")
  if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
    raise UsageError("loss weights must be finite and at least 0, and not all of them 0.")
  return (weights / weights.mean()).astype(np.float32)


def later_images(later: Any, count: int) -> Bool[np.ndarray, "n"]:
  """Return which images train alone in a second phase; None is none of them.

  Raises:
    UsageError: there is not one truth value per image.
  """
  later = np.zeros(count, bool) if later is None else np.asarray(later)
  if later.shape != (count,) or later.dtype != bool:
    raise UsageError(
      f"`later` is {later.dtype} {later.shape}, expected one truth value for each of {count} images."
    )
  return later


def warmup_cosine(peak: float, steps: int, warmup: int) -> optax.Schedule:
  """Return a linear warm-up to the peak and a cosine decay to zero at the last step.

  Args:
    peak: largest rate.
    steps: number of steps.
    warmup: steps of the warm-up.
  """
  return optax.warmup_cosine_decay_schedule(0.0, peak, min(warmup, steps - 1), steps)


def batch_rows(number: int, batch_size: int, num_rows: int, seed: int) -> Int[np.ndarray, "b"]:
  """Return the rows of a step's batch: one seeded permutation per epoch, laid end to end and cut.

  Args:
    number: number of the step.
    batch_size: images per step.
    num_rows: number of images.
    seed: of the permutations.
  """
  # Positions in the endless sequence of epochs; a batch may span two of them.
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
  """Return the rows of a step's batch; `later` images train alone in the second half.

  Args:
    number: number of the step.
    steps: steps of the whole training.
    batch_size: images per step.
    later: images of the second half; None, all or no images give a single phase.
    num_rows: number of images.
    seed: of the order.
  """
  if later is None or later.all() or not later.any():
    return batch_rows(number, batch_size, num_rows, seed)
  half = steps // 2
  second = number >= half
  rows = np.flatnonzero(later if second else ~later)
  return rows[batch_rows(number - half if second else number, batch_size, len(rows), seed)]


def refuse_divergence(name: str, number: int, loss: Any) -> None:
  """Stop a training whose loss is NaN or infinite.

  Args:
    name: name of the recognizer.
    number: the step.
    loss: its loss.

  Raises:
    ModelError: the loss is not finite; the message names the step.
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
  """Run the steps, starting from the last checkpoint if there is one.

  Args:
    step: compiled (state, frozen, batch) -> (new state, outcome); the outcome is the loss, or a
      tree that contains it.
    state: initial state, a tree of arrays.
    frozen: arrays that every step reads.
    batches: yields the batches from a given step on.
    steps: total number of steps.
    directory: folder of checkpoints (Orbax: written to a temporary folder, then renamed), or None.
    save_every: steps between checkpoints.
    keep: number of checkpoints to keep.
    watch: called with each step's number and outcome, once computed.

  Returns:
    The final state, and the stacked outcomes of the steps that this call has run.
  """
  opened = contextlib.closing(_manager(directory, keep)) if directory else contextlib.nullcontext()
  outcomes: list[Any] = []
  with opened as manager:
    first, state = _restored(manager, state)
    watched = first
    for number, batch in zip(range(first, steps), batches(first), strict=False):
      state, outcome = step(state, frozen, batch)
      outcomes.append(outcome)
      saves = manager and ((number + 1) % save_every == 0 or number + 1 == steps)
      # Wait for an earlier step: otherwise the host runs ahead and queues ever more batches on the
      # devices. Before a checkpoint, wait for all, so that no step with a rejected outcome is kept.
      known = number + 1 if saves else number + 1 - STEPS_AHEAD
      for earlier in range(watched, known):
        watch(earlier, jax.block_until_ready(outcomes[earlier - first]))
      watched = max(watched, known)
      if saves:
        _save(manager, number + 1, state)
    for earlier in range(watched, steps):
      watch(earlier, outcomes[earlier - first])
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


def checksums(arrays: Iterable[Any]) -> list[Any]:
  """Return shape and CRC of each array; shapes alone if several hosts must agree to the bit."""
  alone = jax.process_count() == 1
  return [
    [*np.shape(array), zlib.crc32(np.ascontiguousarray(array).data) if alone else 0]
    for array in arrays
  ]


def _restored(manager: Any, state: State) -> tuple[int, State]:
  """Return the step after the last checkpoint and its state; 0 and `state` without one.

  A damaged checkpoint is deleted, and the one before it is used.
  """
  if not manager:
    return 0, state
  import orbax.checkpoint as ocp

  shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      return step, manager.restore(step, args=ocp.args.StandardRestore(shapes))
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
      say(f"The checkpoint of step {step} is damaged and is deleted ({type(error).__name__}).")
      manager.delete(step)
  return 0, state


def _save(manager: Any, step: int, state: State) -> None:
  import orbax.checkpoint as ocp

  manager.save(step, args=ocp.args.StandardSave(state))
  manager.wait_until_finished()
