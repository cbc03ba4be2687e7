"""Settings of a checkpoint's scheduler that samplers read."""

import math

import pytest

from genbench_jax.diffusion.scheduler_settings import (
  NUMBERS,
  READS,
  SAMPLER_OF,
  check_settings,
  choice,
  number,
  sigma_ends,
  sigma_kind,
)
from genbench_jax.diffusion.settings import SCHEDULERS
from genbench_jax.errors import RunError
from genbench_jax.models.noise_schedule import NoiseSchedule

# The defaults of Diffusers' schedulers; PNDM without its Runge-Kutta steps is the only form here.
DEFAULTS = {
  "pndm": {"skip_prk_steps": True, "set_alpha_to_one": False},
  "ddim": {"set_alpha_to_one": True},
  "dpmsolver++": {
    "solver_order": 2, "solver_type": "midpoint", "algorithm_type": "dpmsolver++", "lower_order_final": True,
    "euler_at_final": False, "final_sigmas_type": "zero", "use_karras_sigmas": False,
    "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_lu_lambdas": False,
  },
  "euler": {
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
    "interpolation_type": "linear", "timestep_type": "discrete", "final_sigmas_type": "zero",
  },
}  # fmt: skip
SWITCHES = {"set_alpha_to_one", "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas",
            "use_beta_sigmas", "use_lu_lambdas"}  # fmt: skip


def schedule(prediction="epsilon", **settings):
  return NoiseSchedule.from_config({"prediction_type": prediction} | settings)


def test_every_sampler_has_its_settings_and_its_class():
  assert set(READS) == set(SAMPLER_OF.values()) == set(SCHEDULERS) - {"auto"}


@pytest.mark.parametrize("name", READS)
def test_the_first_value_is_the_default_and_none_is_no_value(name):
  for key, values in READS[name].items():
    assert choice(schedule(), name, key) == values[0]
    assert choice(schedule(**{key: None}), name, key) == values[0]


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_diffusers_and_switches_can_be_switched(name):
  for key, value in DEFAULTS[name].items():
    assert choice(schedule(), name, key) == value
    if key in SWITCHES:
      assert choice(schedule(**{key: not value}), name, key) == (not value)


@pytest.mark.parametrize("name", READS)
def test_every_listed_value_is_supported(name):
  for key, values in READS[name].items():
    for value in values:
      if value is not None:
        assert choice(schedule(**{key: value}), name, key) == value


def test_another_value_is_an_error_that_lists_the_supported_ones():
  with pytest.raises(
    RunError, match=r"solver_order to 4; scheduler 'dpmsolver[+]{2}' supports 2, 1"
  ):
    check_settings(schedule(solver_order=4), "dpmsolver++")


@pytest.mark.parametrize(
  ("key", "value"), [("thresholding", True), ("use_flow_sigmas", True), ("variance_type", "fixed")]
)
def test_what_a_sampler_would_have_to_ignore_is_an_error(key, value):
  with pytest.raises(RunError, match=key):
    check_settings(schedule(**{key: value}), "dpmsolver++")
  check_settings(schedule(**{key: value}), "euler")  # Euler does not read it


@pytest.mark.parametrize(("name", "fails"), [("pndm", True), ("ddim", False), ("euler_ancestral", True)])  # fmt: skip
def test_some_samplers_cannot_use_predictions_of_clean_latents(name, fails):
  if fails:
    with pytest.raises(RunError, match="prediction_type is 'sample'"):
      check_settings(schedule("sample"), name)
  else:
    check_settings(schedule("sample"), name)
  check_settings(schedule("v_prediction"), name)


@pytest.mark.parametrize("order", [1, 2])
def test_the_stochastic_solver_has_two_orders(order):
  check_settings(schedule(algorithm_type="sde-dpmsolver++", solver_order=order), "dpmsolver++")
  with pytest.raises(RunError, match="supports 1 and 2"):
    check_settings(schedule(algorithm_type="sde-dpmsolver++", solver_order=3), "dpmsolver++")
  check_settings(schedule(solver_order=3), "dpmsolver++")


@pytest.mark.parametrize(
  ("key", "kind"),
  [
    ("use_karras_sigmas", "karras"),
    ("use_exponential_sigmas", "exponential"),
    ("use_beta_sigmas", "beta"),
    ("use_lu_lambdas", "exponential"),
  ],
)
def test_one_kind_of_sigmas_is_chosen(key, kind):
  assert sigma_kind(schedule(**{key: True}), "dpmsolver++") == kind
  assert sigma_kind(schedule(**{key: False}), "dpmsolver++") is None
  other = "use_beta_sigmas" if key != "use_beta_sigmas" else "use_karras_sigmas"
  with pytest.raises(RunError, match="sets both use_"):
    check_settings(schedule(**{key: True, other: True}), "dpmsolver++")


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_has_a_default_and_a_range(key):
  usual, least, most = NUMBERS[key]
  assert number(schedule(), key) == usual
  for value in {least, most} - {math.inf}:
    assert number(schedule(**{key: value}), key) == value
  for value in (most * 2 + 1, "many", True, math.nan):
    with pytest.raises(RunError, match=f"sets {key} to"):
      number(schedule(**{key: value}), key)


def test_minus_infinity_is_text_in_json():
  assert number(schedule(lambda_min_clipped="-inf"), "lambda_min_clipped") == -math.inf
  with pytest.raises(RunError, match="original_inference_steps"):
    number(schedule(original_inference_steps="-inf"), "original_inference_steps")


def test_the_ends_of_the_sigmas_are_the_checkpoints_or_those_of_the_training():
  assert sigma_ends(schedule(), 14.6, 0.03) == (14.6, 0.03)
  assert sigma_ends(schedule(sigma_max=80, sigma_min=None), 14.6, 0.03) == (80.0, 0.03)
  assert sigma_ends(schedule(sigma_min=0.002), 14.6, 0.03) == (14.6, 0.002)


@pytest.mark.parametrize("value", [0, -1, "80", True, math.inf, math.nan])
def test_the_ends_of_the_sigmas_are_positive(value):
  with pytest.raises(RunError, match="expected a positive number"):
    sigma_ends(schedule(sigma_max=value), 14.6, 0.03)


def test_numbers_have_diffusers_defaults_and_generous_limits():
  assert {
    "original_inference_steps": (50, 1, 100_000),
    "timestep_scaling": (10, 0, 1e6),
    "lambda_min_clipped": (-math.inf, -math.inf, 1e6),
  } == NUMBERS


@pytest.mark.parametrize("name", ["ddim", "dpmsolver++", "lcm", "tcd"])
def test_samplers_do_not_threshold(name):
  assert choice(schedule(), name, "thresholding") is False
