"""What a checkpoint's `scheduler_config.json` says: the noise that its model was trained on, and how to step through it.

Every key is either understood or refused: a setting that changes the images and is not implemented must not be dropped.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from genbench_jax.errors import RunError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Schedulers whose noise is that of a beta schedule. Flow matching and EDM are other models altogether.
BETA_SCHEDULERS = frozenset(
  f"{name}Scheduler"
  for name in [
    "DDIM",
    "DDPM",
    "PNDM",
    "LMSDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "EulerAncestralDiscrete",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "KDPM2Discrete",
    "KDPM2AncestralDiscrete",
    "DEISMultistep",
    "UniPCMultistep",
    "DPMSolverSDE",
    "LCM",
    "TCD",
  ]
)
# Keys that one of these schedulers reads; each sampler says which of them it honours, see `diffusion.scheduler_settings`.
KNOWN = frozenset(
  [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "clip_sample",
    "clip_sample_range",
    "set_alpha_to_one",
    "skip_prk_steps",
    "rescale_betas_zero_snr",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "solver_order",
    "solver_type",
    "algorithm_type",
    "lower_order_final",
    "euler_at_final",
    "final_sigmas_type",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "flow_shift",
    "lambda_min_clipped",
    "variance_type",
    "use_dynamic_shifting",
    "time_shift_type",
    "interpolation_type",
    "timestep_type",
    "sigma_min",
    "sigma_max",
    "original_inference_steps",
    "timestep_scaling",
    "predict_x0",
    "solver_p",
    "disable_corrector",
    "noise_sampler_seed",
    "shift_terminal",
    "sigma_schedule",
  ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
  """The noise of a checkpoint, and the settings of its scheduler.

  Attributes:
    alphas_cumprod: share of signal in the variance at each training step.
    prediction_type: `epsilon` (noise), `v_prediction` (velocity) or `sample` (the clean latents).
    timestep_spacing: `leading`, `linspace` or `trailing`; None takes each sampler's usual one.
    steps_offset: added to the timesteps of `leading`.
    zero_snr: whether the last training step is noise alone.
    scheduler: the class that the file names, empty where it names none.
    settings: all keys of the file.
  """

  alphas_cumprod: Float64[np.ndarray, "n"]
  prediction_type: str
  timestep_spacing: str | None = None
  steps_offset: int = 1
  zero_snr: bool = False
  scheduler: str = ""
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_config(cls, config: Mapping[str, Any], mend_offset: bool = True) -> "NoiseSchedule":
    """Read a `scheduler_config.json`.

    Args:
      config: the file's object.
      mend_offset: takes `steps_offset` for 1 whatever the file says, as Diffusers' pipelines of Stable Diffusion 1 and 2
        do; that of SDXL takes the file's word.

    Raises:
      RunError: the checkpoint was made for something that no sampler here does.
    """
    name = config.get("_class_name") or ""
    if name and name not in BETA_SCHEDULERS:
      raise RunError(
        f"the checkpoint's scheduler is {name!r}, whose noise is not that of a beta schedule: not supported."
      )
    for key, value in config.items():
      if not key.startswith("_") and key not in KNOWN and value not in (None, False):
        raise RunError(
          f"the checkpoint's scheduler sets {key} to {value!r}, which is not known here."
        )
    prediction = config.get("prediction_type") or "epsilon"
    if prediction not in PREDICTIONS:
      raise RunError(
        f"prediction_type {prediction!r}: only {', '.join(PREDICTIONS)} are supported."
      )
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    alphas = np.cumprod(1 - _betas(config))
    return cls(
      alphas_cumprod=zero_terminal_snr(alphas) if zero_snr else alphas,
      prediction_type=prediction,
      timestep_spacing=config.get("timestep_spacing"),
      steps_offset=1 if mend_offset else _whole(config, "steps_offset", 0, 0, 1000),
      zero_snr=zero_snr,
      scheduler=name,
      settings=dict(config),
    )

  def without_zero_snr(self) -> "NoiseSchedule":
    """The same without the rescaling, for samplers that do not read it."""
    if not self.zero_snr:
      return self
    alphas = np.cumprod(1 - _betas(self.settings))
    return dataclasses.replace(self, alphas_cumprod=alphas, zero_snr=False)

  def with_settings(self, settings: Mapping[str, Any], mend_offset: bool = True) -> "NoiseSchedule":
    """The schedule with some of its file's keys changed.

    Raises:
      RunError: as `from_config`.
    """
    if not settings:
      return self
    changed = NoiseSchedule.from_config({**self.settings, **settings}, mend_offset)
    if "steps_offset" in settings:  # said by the user, not by an outdated file
      return dataclasses.replace(changed, steps_offset=_whole(settings, "steps_offset", 1, 0, 1000))
    return changed


def zero_terminal_snr(alphas_cumprod: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
  """Shift and scale sqrt(alphas_cumprod) so that it ends at zero and begins where it did.

  Reference:
    Common Diffusion Noise Schedules and Sample Steps are Flawed, algorithm 1 (arXiv 2305.08891).
  """
  root = np.sqrt(alphas_cumprod)
  return np.square((root - root[-1]) * root[0] / (root[0] - root[-1]))


def _betas(config: Mapping[str, Any]) -> Float64[np.ndarray, "n"]:
  trained = config.get("trained_betas")
  if trained is not None:
    return _checked(np.asarray(trained, np.float64))
  steps = _whole(config, "num_train_timesteps", 1000, 2, 100_000)
  start, end = _number(config, "beta_start", 0.0001), _number(config, "beta_end", 0.02)
  kind = config.get("beta_schedule") or "linear"
  if kind == "linear":
    return _checked(np.linspace(start, end, steps))
  if kind == "scaled_linear":
    return _checked(np.linspace(start**0.5, end**0.5, steps) ** 2)
  if kind == "squaredcos_cap_v2":
    alpha_bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
  raise RunError(
    f"beta_schedule {kind!r}: linear, scaled_linear and squaredcos_cap_v2 are supported."
  )


def _checked(betas: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
  # NaN fails both comparisons.
  if betas.ndim != 1 or not len(betas) or not ((betas >= 0) & (betas < 1)).all():
    raise RunError("the betas of the checkpoint's scheduler are not all from 0 to below 1.")
  return betas


def _whole(config: Mapping[str, Any], key: str, usual: int, least: int, most: int) -> int:
  value = config.get(key)
  value = usual if value is None else value
  if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
    raise RunError(
      f"the scheduler's {key} is {value!r}; wanted a whole number from {least} to {most}."
    )
  return value


def _number(config: Mapping[str, Any], key: str, usual: float) -> float:
  value = config.get(key)
  value = usual if value is None else value
  if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
    raise RunError(f"the scheduler's {key} is {value!r}; wanted a number from 0 to below 1.")
  return float(value)
