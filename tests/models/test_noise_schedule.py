"""Settings in `scheduler_config.json` are understood or rejected, never ignored."""

import functools
import math

import numpy as np
import pytest

from genbench_jax.diffusion import timesteps
from genbench_jax.diffusion.scheduler_settings import check_settings, number, sigma_ends
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule, zero_terminal_snr


def read(**config):
  return NoiseSchedule.from_config(config)


def test_beta_schedules_match_their_formulas():
  # Schedules are in single precision, as in PyTorch.
  close = functools.partial(np.testing.assert_allclose, rtol=3e-7)
  linear = read(num_train_timesteps=4, beta_start=0.1, beta_end=0.4)
  close(linear.alphas_cumprod, np.cumprod([0.9, 0.8, 0.7, 0.6]))
  scaled = read(
    beta_schedule="scaled_linear", num_train_timesteps=3, beta_start=0.04, beta_end=0.36
  )
  close(scaled.alphas_cumprod, np.cumprod([0.96, 0.84, 0.64]))
  cosine = read(beta_schedule="squaredcos_cap_v2", num_train_timesteps=10).alphas_cumprod
  bar = [math.cos((i / 10 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(11)]
  close(cosine[:9], np.array(bar[1:10]) / bar[0])
  assert cosine[9] == pytest.approx(cosine[8] * 0.001, rel=5e-5)  # the last beta is capped at 0.999
  trained = read(trained_betas=[0.5, 0.5])
  close(trained.alphas_cumprod, [0.5, 0.25])


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "has no beta schedule"),
    ({"mystery": 3}, "sets mystery to 3, an unknown setting"),
    ({"prediction_type": "flow"}, "'flow': only epsilon, v_prediction, sample"),
    ({"beta_schedule": "sigmoid"}, "linear, scaled_linear and squaredcos_cap_v2"),
    ({"beta_start": math.nan}, "beta_start is nan"),
    ({"beta_end": True}, "beta_end is True"),
    ({"trained_betas": [0.1, 1.0]}, r"not all in \[0, 1\)"),
    ({"trained_betas": [math.nan]}, r"not all in \[0, 1\)"),
    ({"num_train_timesteps": 10**9}, "expected a whole number from 2 to 100000"),
  ],
)
def test_settings_that_no_sampler_supports_are_rejected(config, message):
  with pytest.raises(RunError, match=message):
    read(**config)


def test_disabled_and_private_settings_are_allowed():
  read(_diffusers_version="0.2", mystery=None, other=False)


def test_zero_terminal_snr_ends_at_zero_and_keeps_the_first_value():
  alphas = read().alphas_cumprod
  shifted = zero_terminal_snr(alphas)
  assert shifted[-1] == 0 and shifted[0] == pytest.approx(alphas[0])
  assert (np.diff(shifted) < 0).all()
  schedule = read(rescale_betas_zero_snr=True)
  assert schedule.zero_snr
  np.testing.assert_allclose(schedule.without_zero_snr().alphas_cumprod, alphas)


def test_the_offset_is_corrected_unless_the_user_sets_it():
  assert read(steps_offset=0).steps_offset == 1
  assert NoiseSchedule.from_config({"steps_offset": 0}, mend=False).steps_offset == 0
  assert read(steps_offset=0).with_settings({"steps_offset": 5}).steps_offset == 5
  assert read(steps_offset=0).with_settings({"beta_end": 0.03}).steps_offset == 1
  schedule = read()
  assert schedule.with_settings({}) is schedule


def test_clipping_is_undone_as_in_diffusers_unless_the_user_asks_for_it():
  check_settings(read(clip_sample=True), "ddim")
  for asked in (
    read().with_settings({"clip_sample": True}),
    NoiseSchedule.from_config({"clip_sample": True}, mend=False),
  ):
    for name in ("ddim", "lcm", "tcd"):
      with pytest.raises(RunError, match="clip_sample to True"):
        check_settings(asked, name)
    check_settings(asked, "euler")  # does not read it, in Diffusers either


@pytest.mark.parametrize(
  ("spacing", "expected"),
  [("leading", [751, 501, 251, 1]), ("linspace", [999, 666, 333, 0]), ("trailing", [999, 749, 499, 249])],
)  # fmt: skip
def test_spacings_match_the_paper(spacing, expected):
  """Table 2 of arXiv 2305.08891, at four steps."""
  found = timesteps.timesteps(read(timestep_spacing=spacing), 4, "leading", points=4)
  assert found.tolist() == expected


def test_an_unknown_spacing_is_rejected():
  with pytest.raises(RunError, match="leading, linspace and trailing"):
    timesteps.timesteps(read(timestep_spacing="odd"), 4, "leading", points=4)


def test_explicit_timesteps_must_be_descending_integers_in_range():
  assert timesteps.explicit(read(), (999, 500, 0), "dmd2").tolist() == [999, 500, 0]
  for wrong in ((), (1, 2), (5, 5), (1000,), (-1,), (2.5,), (math.nan,)):
    with pytest.raises(UsageError, match="descending whole numbers from 999 to 0"):
      timesteps.explicit(read(), wrong, "dmd2")


def test_sigmas_and_steps_are_inverse():
  schedule = read()
  steps = np.array([999.0, 400.0, 3.0])
  back = timesteps.steps_of_sigmas(schedule, timesteps.sigmas_at(schedule, steps))
  np.testing.assert_allclose(back, steps, atol=1e-6)
  assert (np.diff(timesteps.training_sigmas(schedule)) > 0).all()
  pure_noise = timesteps.training_sigmas(read(rescale_betas_zero_snr=True))
  assert pure_noise[-1] == pytest.approx(2**12)  # finite, as in Diffusers


@pytest.mark.parametrize("kind", ["karras", "exponential", "beta"])
def test_sigmas_decrease(kind):
  sigmas = timesteps.spread(kind, 10.0, 0.1, 5)
  assert sigmas[0] == pytest.approx(10) and sigmas[-1] == pytest.approx(0.1)
  assert (np.diff(sigmas) < 0).all()
  middle = {"karras": ((10 ** (1 / 7) + 0.1 ** (1 / 7)) / 2) ** 7, "exponential": 1.0, "beta": 5.05}
  assert sigmas[2] == pytest.approx(middle[kind])


@pytest.mark.parametrize(
  ("name", "config", "message"),
  [
    ("dpmsolver++", {"use_flow_sigmas": True}, "use_flow_sigmas to True"),
    ("dpmsolver++", {"solver_order": 4}, "supports 2, 1, 3"),
    ("dpmsolver++", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "supports 1 and 2"),
    ("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "both use_karras_sigmas and"),
    ("pndm", {"prediction_type": "sample"}, "can't sample a model"),
    ("ddim", {"thresholding": True}, "thresholding to True"),
  ],
)
def test_a_sampler_rejects_settings_that_it_ignores(name, config, message):
  with pytest.raises(RunError, match=message):
    check_settings(read(**config), name)


@pytest.mark.parametrize(
  ("name", "key"), [("dpmsolver++", "use_lu_lambdas"), ("euler", "use_beta_sigmas")]
)
def test_timesteps_and_sigmas_can_not_both_be_chosen(name, key):
  check_settings(read(**{key: True}), name)
  with pytest.raises(RunError, match=f'sets {key}, which chooses them.*{{"{key}": false}}'):
    check_settings(read(**{key: True}), name, explicit=True)
  check_settings(read(use_karras_sigmas=True), "lcm", explicit=True)  # does not read it


def test_sampler_settings_have_ranges():
  assert number(read(), "original_inference_steps") == 50
  assert number(read(lambda_min_clipped="-inf"), "lambda_min_clipped") == -math.inf
  for wrong in (0, "50", True, math.nan):
    with pytest.raises(RunError, match="expected a number from 1"):
      number(read(original_inference_steps=wrong), "original_inference_steps")
  assert sigma_ends(read(sigma_min=0.5), 14.0, 0.1) == (14.0, 0.5)
  with pytest.raises(RunError, match="expected a positive number"):
    sigma_ends(read(sigma_max=-1.0), 14.0, 0.1)
