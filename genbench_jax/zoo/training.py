"""Training loop of the zoo's models: resumable, with averaged weights."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Batch = dict[str, Any]
LossFunction = Callable[[Any, Batch, jax.Array], jax.Array]


class TrainState(NamedTuple):
  """Parameters, their running average, and the optimizer's state."""

  params: Any
  average: Any
  optimizer: Any


def fit(
  loss_function: LossFunction,
  params: Any,
  batch_of: Callable[[int], Batch],
  steps: int,
  folder: Path,
  learning_rate: float = 1e-3,
  average_decay: float = 0.998,
  log_every: int = 100,
  save_every: int = 500,
  warm_up: int = 200,
) -> Any:
  """Minimize a loss with AdamW and return averaged weights.

  The learning rate is constant after a warm-up and decreases linearly in the last quarter.

  Args:
    loss_function: (params, batch, key) -> loss.
    params: initial parameters.
    batch_of: step -> batch; must return the same batch whenever it is called for a step.
    steps: number of steps.
    folder: folder for checkpoints, from which a stopped training resumes.
    learning_rate: highest learning rate.
    average_decay: decay per step of the running average of the weights.
    log_every: steps between log lines.
    save_every: steps between checkpoints.
    warm_up: steps over which the learning rate rises from zero.
  """
  import orbax.checkpoint as ocp

  slope = steps // 4
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(0.0, learning_rate, warm_up),
      optax.linear_schedule(learning_rate, 0.02 * learning_rate, slope),
    ],
    [steps - slope],
  )
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))

  @jax.jit
  def update(state: TrainState, batch: Batch, step: jax.Array) -> tuple[TrainState, jax.Array]:
    key = jax.random.fold_in(jax.random.key(0), step)
    loss, gradients = jax.value_and_grad(loss_function)(state.params, batch, key)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    weights = optax.apply_updates(state.params, updates)
    decay = jnp.minimum(average_decay, (1.0 + step) / (10.0 + step))
    average = optax.incremental_update(weights, state.average, 1 - decay)
    return TrainState(weights, average, opt_state), loss

  state = TrainState(params, params, optimizer.init(params))
  with ocp.CheckpointManager(
    folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=1)
  ) as manager:
    start = 0
    if manager.latest_step() is not None:
      start = manager.latest_step()
      state = manager.restore(start, args=ocp.args.StandardRestore(state))
    began, total = time.monotonic(), jnp.zeros(())
    for step in range(start, steps):
      state, loss = update(state, batch_of(step), jnp.int32(step))
      total += loss
      done = step + 1
      if done % log_every == 0:
        rate = (done - start) / (time.monotonic() - began)
        _log(f"{folder.name} {done}/{steps} loss {total / log_every:.4f} {rate:.2f} steps/s")
        total = jnp.zeros(())
      if done % save_every == 0 or done == steps:
        manager.save(done, args=ocp.args.StandardSave(state))
  return state.average


def _log(line: str) -> None:
  sys.stderr.write(line + "\n")
  sys.stderr.flush()
