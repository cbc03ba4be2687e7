"""Every sampler and setting against PyTorch's schedulers (tools/golden_samplers.py)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.diffusion import sampler_tables, schedulers
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.zoo.tiny import SCHEDULER

with np.load(Path(__file__).parent.parent / "data" / "golden_samplers.npz") as file:
  CASES = [json.loads(case) for case in file["cases"]]
  ENDS, TIMESTEPS = file["ends"], file["timesteps"]


@jax.jit
def trajectory(steps, initial_scale, noise):
  """Where the sampler ends from eight starts, under the made-up model of the golden file."""

  def body(state, inputs):
    row, fresh = inputs
    output = jnp.sin(3 * row.input_scale * state.latents) + row.timestep / 1000
    return schedulers.step(row, state, output, fresh), None

  start = schedulers.start(jnp.linspace(-2, 2, 8) * initial_scale)
  return jax.lax.scan(body, start, (steps, noise))[0].latents


@pytest.mark.parametrize("name", sampler_tables.TABLES)
def test_trajectories_are_pytorchs(name):
  noise = np.random.default_rng(7).standard_normal((64, 8), np.float32)
  chosen = [each for each in zip(CASES, ENDS, TIMESTEPS, strict=True) if each[0][0] == name]
  assert chosen
  for case, end, visited in chosen:
    _, settings, count, eta, timesteps = case
    schedule = NoiseSchedule.from_config(SCHEDULER | settings)
    steps, scale = sampler_steps(schedule, name, count, eta, timesteps)
    # Fractions only where Euler interpolates; the others must be rounded in the same direction.
    wanted = visited[visited >= 0]
    np.testing.assert_allclose(steps.timestep, wanted, atol=2e-3, err_msg=str(case))
    found = trajectory(steps, scale, noise[: len(steps.timestep)])
    # PyTorch's schedules are in single precision, ours in double: relative to how large the numbers got on their way, up to
    # 4,096 with zero-terminal SNR.
    limit = 2e-4 * max(1.0, end.std(), scale / 500)
    np.testing.assert_allclose(found, end, atol=limit, err_msg=str(case))
