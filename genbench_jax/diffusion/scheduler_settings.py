"""Support of each sampler for the settings in a checkpoint's `scheduler_config.json`.

A sampler reads the same keys as Diffusers' scheduler of the same name and ignores the others. A
value that it reads but does not support is an error; it is never silently dropped.
"""

import math
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.models.noise_schedule import NoiseSchedule

# Scheduler class of a checkpoint -> sampler, for `scheduler="auto"`.
SAMPLER_OF = {
  "PNDMScheduler": "pndm",
  "DDIMScheduler": "ddim",
  "DPMSolverMultistepScheduler": "dpmsolver++",
  "EulerDiscreteScheduler": "euler",
  "EulerAncestralDiscreteScheduler": "euler_ancestral",
  "LCMScheduler": "lcm",
  "TCDScheduler": "tcd",
}
# Sampler -> key that it reads -> supported values, the default first.
READS: dict[str, dict[str, tuple[Any, ...]]] = {
  "pndm": {"skip_prk_steps": (True,), "set_alpha_to_one": (False, True)},
  # Diffusers clips in DDIM if the file does not say; its pipelines for Stable Diffusion 1 and 2 undo that.
  "ddim": {"set_alpha_to_one": (True, False), "clip_sample": (False,), "thresholding": (False,)},
  "dpmsolver++": {
    "solver_order": (2, 1, 3),
    # Solver types of DEIS and UniPC map to the midpoint rule, as in Diffusers when it converts
    # their configurations.
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"),
    "lower_order_final": (True, False),
    "euler_at_final": (False, True),
    "final_sigmas_type": ("zero", "sigma_min"),
    "use_karras_sigmas": (False, True),
    "use_exponential_sigmas": (False, True),
    "use_beta_sigmas": (False, True),
    "use_lu_lambdas": (False, True),
    "use_flow_sigmas": (False,),
    "use_dynamic_shifting": (False,),
    "variance_type": (None,),
    "thresholding": (False,),
  },
  "euler": {
    "use_karras_sigmas": (False, True),
    "use_exponential_sigmas": (False, True),
    "use_beta_sigmas": (False, True),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete",),
    "final_sigmas_type": ("zero", "sigma_min"),
  },
  "euler_ancestral": {},
  "lcm": {"clip_sample": (False,), "thresholding": (False,)},
  "tcd": {"clip_sample": (False,), "thresholding": (False,)},
}
# Numeric keys: default, minimum and maximum.
NUMBERS = {
  "original_inference_steps": (50, 1, 100_000),
  "timestep_scaling": (10.0, 0.0, 1e6),
  "lambda_min_clipped": (-math.inf, -math.inf, 1e6),
}
# Prediction types that a sampler cannot use.
NO_PREDICTION = {"pndm": ("sample",), "euler_ancestral": ("sample",)}


def check_settings(schedule: NoiseSchedule, name: str, explicit: bool = False) -> None:
  """Reject settings that a sampler would have to ignore.

  Args:
    schedule: noise schedule with the settings.
    name: name of the sampler.
    explicit: whether the user gives the timesteps.

  Raises:
    RunError: the sampler reads a setting of the checkpoint but does not support its value.
  """
  for key in READS[name]:
    choice(schedule, name, key)
  if schedule.prediction_type in NO_PREDICTION.get(name, ()):
    raise RunError(
      f"scheduler {name!r} can't sample a model whose prediction_type is {schedule.prediction_type!r}."
    )
  stochastic = schedule.settings.get("algorithm_type") == "sde-dpmsolver++"
  if name == "dpmsolver++" and stochastic and choice(schedule, name, "solver_order") == 3:
    raise RunError(
      "the checkpoint's scheduler sets solver_order to 3, but sde-dpmsolver++ supports 1 and 2."
    )
  kinds = _spacings(schedule, name)
  if len(kinds) > 1:
    raise RunError(f"the checkpoint's scheduler sets both {kinds[0]} and {kinds[1]}.")
  if kinds and explicit:
    raise RunError(
      f"timesteps can't be given where the checkpoint's scheduler sets {kinds[0]}, which chooses them."
      f' Omit them, or set scheduler_settings to {{"{kinds[0]}": false}}.'
    )


SIGMAS = {
  "use_karras_sigmas": "karras",
  "use_exponential_sigmas": "exponential",
  "use_beta_sigmas": "beta",
  # Lu's lambdas with rho = 1 are evenly spaced in the logarithm, like exponential sigmas.
  "use_lu_lambdas": "exponential",
}


def choice(schedule: NoiseSchedule, name: str, key: str) -> Any:
  """Return the value of a setting, or its default.

  Args:
    schedule: noise schedule with the settings.
    name: name of the sampler.
    key: name of the setting.

  Raises:
    RunError: the sampler does not support the value.
  """
  supported = READS[name][key]
  value = schedule.settings.get(key)
  value = supported[0] if value is None else value
  if value not in supported:
    listed = ", ".join(map(repr, supported))
    raise RunError(
      f"the checkpoint's scheduler sets {key} to {value!r}; scheduler {name!r} supports {listed}."
    )
  return value


def number(schedule: NoiseSchedule, key: str) -> float:
  """Return a numeric setting, or its default.

  Raises:
    RunError: the value is not a number or is out of range.
  """
  usual, least, most = NUMBERS[key]
  value = schedule.settings.get(key)
  value = usual if value is None else value
  value = -math.inf if value == "-inf" else value  # JSON has no infinity
  if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
    raise RunError(
      f"the checkpoint's scheduler sets {key} to {value!r}; expected a number from {least} to {most}."
    )
  return value


def sigma_kind(schedule: NoiseSchedule, name: str) -> str | None:
  """Return the spacing of the sigmas: `karras`, `exponential`, `beta`, or None for timesteps."""
  return next((SIGMAS[key] for key in _spacings(schedule, name)), None)


def _spacings(schedule: NoiseSchedule, name: str) -> list[str]:
  """Return the keys that select a spacing of the sigmas, among those that the sampler reads."""
  return [key for key in SIGMAS if key in READS[name] and choice(schedule, name, key)]


def sigma_ends(schedule: NoiseSchedule, high: float, low: float) -> tuple[float, float]:
  """Return the highest and the lowest sigma of the checkpoint, or those given.

  Args:
    schedule: noise schedule with the settings.
    high, low: ends to use if the checkpoint gives none.

  Raises:
    RunError: the checkpoint's value is not a positive number.
  """
  ends = []
  for key, usual in (("sigma_max", high), ("sigma_min", low)):
    value = schedule.settings.get(key)
    value = usual if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
      raise RunError(
        f"the checkpoint's scheduler sets {key} to {value!r}; expected a positive number."
      )
    ends.append(float(value))
  return ends[0], ends[1]
