"""Sampler tables against trajectories of PyTorch's schedulers (tools/golden_diffusion.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.diffusion import schedulers
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.zoo.tiny import SCHEDULER


@functools.partial(jax.jit)
def trajectory(steps, initial_scale):
  """Where the sampler ends from eight starts, under the made-up model of the golden_diffusion file."""

  def body(state, row):
    output = jnp.sin(3 * row.input_scale * state.latents) + row.timestep / 1000
    return schedulers.step(row, state, output), None

  start = schedulers.start(jnp.linspace(-2, 2, 8) * initial_scale)
  return jax.lax.scan(body, start, steps)[0].latents


def schedule(**config):
  return NoiseSchedule.from_config(SCHEDULER | {"prediction_type": "epsilon"} | config)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", schedulers.SCHEDULERS)
def test_trajectories_are_pytorchs(golden_diffusion, name, prediction):
  cases = [key for key in golden_diffusion if key.startswith(f"trajectory/{name}/{prediction}/")]
  assert len(cases) == 24
  for key in cases:
    _, _, _, spacing, count, offset = key.split("/")
    noise = schedule(prediction_type=prediction, timestep_spacing=spacing, steps_offset=int(offset))
    end = trajectory(*sampler_steps(noise, name, int(count)))
    scale = max(1.0, golden_diffusion[key].std())
    np.testing.assert_allclose(end, golden_diffusion[key], atol=2e-4 * scale, err_msg=key)


def test_usual_spacing_is_each_samplers_own():
  tables = {name: sampler_steps(schedule(), name, 10)[0] for name in schedulers.SCHEDULERS}
  assert tables["ddim"].timestep.tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
  # PNDM visits the second timestep twice.
  assert tables["pndm"].timestep.tolist()[:4] == [901, 801, 801, 701]
  assert tables["dpmsolver++"].timestep[0] == tables["euler"].timestep[0] == 999


def test_last_step_of_dpm_solver_ends_without_noise():
  # Upstream's Flax scheduler ends at sigma_min. Without noise the last step gives the clean prediction itself.
  steps, _ = sampler_steps(schedule(), "dpmsolver++", 20)
  assert steps.sample[-1] == 0
  assert steps.recent[-1].tolist() == [1, 0, 0, 0]
  kept, _ = sampler_steps(schedule(final_sigmas_type="sigma_min"), "dpmsolver++", 20)
  assert kept.sample[-1] > 0.1


def test_ddim_does_not_clip():
  # Upstream's Flax scheduler clips the clean prediction to 1 by default; a table can't.
  end = trajectory(*sampler_steps(schedule(), "ddim", 20))
  assert np.abs(end).max() > 1


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_grows_to_almost_everything(kind):
  alphas = schedule(beta_schedule=kind, beta_start=0.001, beta_end=0.02).alphas_cumprod
  assert alphas.shape == (1000,)
  assert np.all(np.diff(alphas) < 0)
  assert alphas[0] > 0.99 and alphas[-1] < 0.05


def test_trained_betas_are_taken():
  np.testing.assert_allclose(schedule(trained_betas=[0.1, 0.5]).alphas_cumprod, [0.9, 0.45])


@pytest.mark.parametrize(
  "config",
  [
    {"prediction_type": "sample"},
    {"beta_schedule": "sigmoid"},
    {"thresholding": True},
    {"use_karras_sigmas": True},
  ],
)
def test_unsupported_checkpoints_are_refused(config):
  with pytest.raises(RunError, match=str(next(iter(config)))):
    schedule(**config)


def test_bad_settings_are_refused():
  with pytest.raises(UsageError, match="Did you mean 'ddim'"):
    sampler_steps(schedule(), "ddmi", 10)
  for count in (0, -1, 1000):
    with pytest.raises(UsageError, match="steps"):
      sampler_steps(schedule(), "ddim", count)
  with pytest.raises(RunError, match="timestep_spacing"):
    sampler_steps(schedule(timestep_spacing="random"), "ddim", 10)
