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
@pytest.mark.parametrize("name", ["pndm", "ddim", "dpmsolver++", "euler"])
def test_trajectories_are_pytorchs(golden_diffusion, name, prediction):
  cases = [key for key in golden_diffusion if key.startswith(f"trajectory/{name}/{prediction}/")]
  assert len(cases) == 24
  for key in cases:
    _, _, _, spacing, count, offset = key.split("/")
    # The schedulers by themselves take the offset as it is; Stable Diffusion's pipelines mend it.
    noise = schedule(prediction_type=prediction, timestep_spacing=spacing)
    noise = noise.with_settings({"steps_offset": int(offset)})
    end = trajectory(*sampler_steps(noise, name, int(count)))
    scale = max(1.0, golden_diffusion[key].std())
    np.testing.assert_allclose(end, golden_diffusion[key], atol=2e-4 * scale, err_msg=key)


def test_usual_spacing_is_each_samplers_own():
  tables = {
    name: sampler_steps(schedule(), name, 10)[0]
    for name in ("ddim", "pndm", "dpmsolver++", "euler")
  }
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
    {"prediction_type": "flow_prediction"},
    {"beta_schedule": "sigmoid"},
    {"beta_start": float("nan")},
    {"num_train_timesteps": 10**9},
    {"a_setting_of_next_year": 3},
    {"trained_betas": [0.1, float("nan")]},
    {"trained_betas": [0.1, "x"]},
    {"trained_betas": {"a": 1}},
  ],
)
def test_unsupported_checkpoints_are_refused(config):
  with pytest.raises(
    RunError, match=str(next(iter(config)) if "trained" not in str(config) else "betas")
  ):
    schedule(**config)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
def test_schedulers_of_other_noise_are_refused(name):
  with pytest.raises(RunError, match=name):
    schedule(_class_name=name)
  with pytest.raises(RunError, match="not supported"):
    schedule(_class_name=[name])


# Samplers and settings that they read, and do not support.
@pytest.mark.parametrize(
  "name,config",
  [
    ("ddim", {"thresholding": True}),
    ("lcm", {"thresholding": True}),
    ("pndm", {"skip_prk_steps": False}),
    ("pndm", {"prediction_type": "sample"}),
    ("euler_ancestral", {"prediction_type": "sample"}),
    ("dpmsolver++", {"use_flow_sigmas": True}),
    ("dpmsolver++", {"algorithm_type": "dpmsolver"}),
    ("dpmsolver++", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    ("dpmsolver++", {"use_karras_sigmas": True, "use_beta_sigmas": True}),
    ("dpmsolver++", {"variance_type": "learned"}),
    ("euler", {"timestep_type": "continuous"}),
    ("euler", {"use_karras_sigmas": True, "sigma_max": float("nan")}),
    ("lcm", {"timestep_scaling": "fast"}),
  ],
)
def test_settings_that_a_sampler_would_drop_are_refused(name, config):
  key = next(reversed(config))
  with pytest.raises(RunError, match=key):
    sampler_steps(schedule(**config), name, 10)


# Settings that the sampler does not read, in Diffusers either.
@pytest.mark.parametrize(
  "name,config",
  [
    ("ddim", {"use_karras_sigmas": True}),
    ("ddim", {"skip_prk_steps": False, "solver_order": 3}),
    ("euler", {"thresholding": True}),
    ("euler_ancestral", {"use_beta_sigmas": True}),
    ("euler", {"use_lu_lambdas": True}),
  ],
)
def test_settings_of_other_samplers_are_not_read(name, config):
  plain, other = (sampler_steps(schedule(**some), name, 10)[0] for some in ({}, config))
  for column, expected in zip(other, plain, strict=True):
    np.testing.assert_array_equal(column, expected)


def test_an_outdated_offset_is_mended_as_in_diffusers_pipelines():
  mended = sampler_steps(schedule(steps_offset=0), "ddim", 5)[0].timestep
  assert mended.tolist() == [801, 601, 401, 201, 1]
  kept = NoiseSchedule.from_config(SCHEDULER | {"steps_offset": 0}, mend=False)
  assert sampler_steps(kept, "ddim", 5)[0].timestep.tolist() == [800, 600, 400, 200, 0]


def test_auto_is_the_checkpoints_own():
  own = {"LCMScheduler": "lcm", "EulerAncestralDiscreteScheduler": "euler_ancestral"}
  for scheduler, name in own.items():
    found, expected = (
      sampler_steps(schedule(_class_name=scheduler), which, 4)[0] for which in ("auto", name)
    )
    np.testing.assert_array_equal(found.recent, expected.recent)
  with pytest.raises(UsageError, match="HeunDiscreteScheduler"):
    sampler_steps(schedule(_class_name="HeunDiscreteScheduler"), "auto", 4)


def test_noise_alone_can_not_be_told_from_noise():
  zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
  with pytest.raises(RunError, match="zero-terminal SNR"):
    sampler_steps(schedule(**zero), "ddim", 4)
  with pytest.raises(UsageError, match="eta"):
    sampler_steps(schedule(), "ddim", 4, eta=float("nan"))
  with pytest.raises(UsageError, match="eta"):
    sampler_steps(schedule(), "euler", 4, eta=0.5)
  for timesteps in ([1, 2], [1000, 0], [3.5], []):
    with pytest.raises(UsageError):
      sampler_steps(schedule(), "lcm", 4, timesteps=timesteps)
  with pytest.raises(UsageError, match="does not accept timesteps"):
    sampler_steps(schedule(), "ddim", 4, timesteps=[9, 5])
  with pytest.raises(UsageError, match="distilled on"):
    sampler_steps(schedule(), "lcm", 60)


def test_bad_settings_are_refused():
  with pytest.raises(UsageError, match="Did you mean 'ddim'"):
    sampler_steps(schedule(), "ddmi", 10)
  for count in (0, -1, 1000):
    with pytest.raises(UsageError, match="steps"):
      sampler_steps(schedule(), "ddim", count)
  with pytest.raises(RunError, match="timestep_spacing"):
    sampler_steps(schedule(timestep_spacing="random"), "ddim", 10)


@pytest.mark.parametrize(("count", "fine"), [(1, True), (999, True), (0, False), (1000, False)])
def test_steps_are_fewer_than_those_of_the_training(count, fine):
  if fine:
    assert len(sampler_steps(schedule(), "euler", count)[0].timestep) == count
  else:
    with pytest.raises(UsageError, match="less than the model's 1000"):
      sampler_steps(schedule(), "euler", count)


@pytest.mark.parametrize("eta", [-0.01, 1.01])
def test_eta_is_a_share(eta):
  for fine in (0.0, 1.0):
    assert bool(sampler_steps(schedule(), "ddim", 4, eta=fine)[0].noise.any()) == bool(fine)
  with pytest.raises(UsageError, match="from 0 to 1"):
    sampler_steps(schedule(), "ddim", 4, eta=eta)
