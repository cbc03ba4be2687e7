"""A training that is killed at any moment ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genbench_jax.recognizers.training import batch_rows, run_steps

STEPS, SAVE_EVERY = 30, 4
SCRIPT = """
import importlib.util, sys, time
specification = importlib.util.spec_from_file_location("training_test", sys.argv[1])
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
module.train(sys.argv[2], pause=0.05)
"""


def train(directory=None, pause=0.0):
  """Adam on a small least-squares problem; a pause at each step leaves time to be killed."""
  generator = np.random.default_rng(0)
  inputs = generator.normal(size=(20, 5)).astype(np.float32)
  outputs = (inputs @ np.arange(5)).astype(np.float32)
  optimiser = optax.adam(0.1)

  def step(state, offset, batch):
    weights, optimiser_state = state
    loss, gradient = value_and_gradient(weights, offset, *batch)
    updates, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
    return (optax.apply_updates(weights, updates), optimiser_state), loss

  def value_and_gradient(weights, offset, inputs, outputs):
    errors = inputs @ weights + offset - outputs
    return jnp.mean(errors**2), 2 * inputs.T @ errors / len(inputs)

  def batches(first):
    for number in range(first, STEPS):
      time.sleep(pause)
      rows = batch_rows(number, 8, 20, seed=0)
      yield inputs[rows], outputs[rows]

  weights = jnp.zeros(5)
  state = (weights, optimiser.init(weights))
  path = Path(directory) if directory else None
  return run_steps(jax.jit(step), state, jnp.float32(0.5), batches, STEPS, path, SAVE_EVERY)


def checkpoints(directory):
  return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdigit())


def test_killed_and_resumed_it_ends_with_identical_weights(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", SCRIPT, __file__, str(tmp_path)], env=os.environ
  )
  deadline = time.monotonic() + 300
  while not (tmp_path / "8").exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert max(checkpoints(tmp_path)) < STEPS
  (resumed, _), losses = train(tmp_path)
  (undisturbed, _), all_losses = train()
  np.testing.assert_array_equal(resumed, undisturbed)
  assert len(losses) < len(all_losses) == STEPS
  np.testing.assert_array_equal(losses, all_losses[-len(losses) :])
  assert checkpoints(tmp_path) == [28, 30]


def test_a_finished_run_runs_nothing_again(tmp_path):
  (weights, _), _ = train(tmp_path)
  (again, _), losses = train(tmp_path)
  np.testing.assert_array_equal(weights, again)
  assert len(losses) == 0


def test_batches_are_epochs_laid_end_to_end():
  rows = np.concatenate([batch_rows(number, 8, 20, seed=1) for number in range(5)])
  assert sorted(rows[:20]) == sorted(rows[20:]) == list(range(20))
