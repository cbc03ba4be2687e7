"""Read `scheduler_config.json`: the noise that the model was trained with, and its sampling defaults.

Every setting is either understood or rejected: ignoring one that changes images would be a silent error.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from genbench_jax.errors import RunError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
# Schedulers whose noise is a beta schedule. Flow matching and EDM need other samplers.
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
# Settings that one of these schedulers reads. Each sampler declares which ones it honors, see
# `diffusion.scheduler_settings`.
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
  """The noise schedule of a checkpoint and its scheduler's settings.

  Attributes:
    alphas_cumprod: fraction of signal in the variance at each training step.
    prediction_type: `epsilon` (noise), `v_prediction` (velocity) or `sample` (clean latents).
    timestep_spacing: `leading`, `linspace` or `trailing`; None for each sampler's default.
    steps_offset: added to the timesteps of `leading`.
    zero_snr: whether the last training step is pure noise.
    scheduler: class name in the file; empty if there is none.
    settings: all settings of the file.
  """

  alphas_cumprod: Float64[np.ndarray, "n"]
  prediction_type: str
  timestep_spacing: str | None = None
  steps_offset: int = 1
  zero_snr: bool = False
  scheduler: str = ""
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_config(cls, config: Mapping[str, Any], mend: bool = True) -> "NoiseSchedule":
    """Read a `scheduler_config.json`.

    Args:
      config: the JSON object.
      mend: whether to use a `steps_offset` of 1 and not to clip, whatever the file says, as Diffusers'
        pipelines for Stable Diffusion 1 and 2 do; SDXL's pipeline uses the file's values.

    Raises:
      RunError: no sampler here supports the configuration.
    """
    name = config.get("_class_name") or ""
    if not isinstance(name, str) or (name and name not in BETA_SCHEDULERS):
      raise RunError(
        f"the checkpoint's scheduler is {name!r}, which has no beta schedule and is not supported."
      )
    for key, value in config.items():
      if not key.startswith("_") and key not in KNOWN and value not in (None, False):
        raise RunError(f"the checkpoint's scheduler sets {key} to {value!r}, an unknown setting.")
    prediction = config.get("prediction_type") or "epsilon"
    if prediction not in PREDICTIONS:
      raise RunError(
        f"prediction_type {prediction!r}: only {', '.join(PREDICTIONS)} are supported."
      )
    config = {**config, "steps_offset": 1, "clip_sample": False} if mend else dict(config)
    zero_snr = bool(config.get("rescale_betas_zero_snr"))
    alphas = _alphas_cumprod(config)
    return cls(
      alphas_cumprod=zero_terminal_snr(alphas) if zero_snr else alphas,
      prediction_type=prediction,
      timestep_spacing=config.get("timestep_spacing"),
      steps_offset=_whole(config, "steps_offset", 0, 0, 1000),
      zero_snr=zero_snr,
      scheduler=name,
      settings=config,
    )

  def without_zero_snr(self) -> "NoiseSchedule":
    """Return the schedule without the zero-SNR rescaling, for samplers that ignore the setting."""
    if not self.zero_snr:
      return self
    return dataclasses.replace(self, alphas_cumprod=_alphas_cumprod(self.settings), zero_snr=False)

  def with_settings(self, settings: Mapping[str, Any]) -> "NoiseSchedule":
    """Return the schedule with some settings replaced; explicit choices of the user are not mended.

    Raises:
      RunError: see `from_config`.
    """
    if not settings:
      return self
    return NoiseSchedule.from_config({**self.settings, **settings}, mend=False)


def zero_terminal_snr(alphas_cumprod: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
  """Shift and scale sqrt(alphas_cumprod) so that it ends at zero and keeps its first value.

  Reference:
    Lin et al., "Common diffusion noise schedules and sample steps are flawed", 2023, algorithm 1
    (arXiv 2305.08891).
  """
  root = np.sqrt(alphas_cumprod)
  return np.square((root - root[-1]) * root[0] / (root[0] - root[-1]))


def _alphas_cumprod(config: Mapping[str, Any]) -> Float64[np.ndarray, "n"]:
  """Return the products of 1 - beta, in single precision as in PyTorch.

  In double precision the smallest sigmas differ by 1e-5, and timesteps that DPM-Solver++ rounds by 1.
  """
  alphas = 1 - _betas(config).astype(np.float32)
  return np.cumprod(alphas, dtype=np.float64).astype(np.float32).astype(np.float64)


def _even(start: float, end: float, steps: int) -> Float32[np.ndarray, "n"]:
  """Return evenly spaced numbers in single precision, counted from the nearer end as in PyTorch."""
  first, last = float(np.float32(start)), float(np.float32(end))
  width = float(np.float32(last - first) / np.float32(steps - 1))
  index = np.arange(steps)
  from_end = last - width * (steps - 1 - index)
  even: np.ndarray = np.where(index < steps // 2, first + width * index, from_end)
  return even.astype(np.float32)


def _betas(config: Mapping[str, Any]) -> Float[np.ndarray, "n"]:
  trained = config.get("trained_betas")
  if trained is not None:
    try:
      return _checked(np.asarray(trained, np.float64))
    except (TypeError, ValueError) as error:
      raise RunError("trained_betas must be a list of numbers.") from error
  steps = _whole(config, "num_train_timesteps", 1000, 2, 100_000)
  start, end = _number(config, "beta_start", 0.0001), _number(config, "beta_end", 0.02)
  kind = config.get("beta_schedule") or "linear"
  if kind == "linear":
    return _checked(_even(start, end, steps))
  if kind == "scaled_linear":
    return _checked(_even(start**0.5, end**0.5, steps) ** 2)
  if kind == "squaredcos_cap_v2":
    # Cosine schedule of Nichol and Dhariwal, 2021 (arXiv 2102.09672), equation 17, betas capped at 0.999.
    alpha_bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
  raise RunError(
    f"beta_schedule {kind!r}: linear, scaled_linear and squaredcos_cap_v2 are supported."
  )


def _checked(betas: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
  # Written with `not`, because NaN fails both comparisons.
  if betas.ndim != 1 or not len(betas) or not ((betas >= 0) & (betas < 1)).all():
    raise RunError("the betas of the checkpoint's scheduler are not all in [0, 1).")
  return betas


def _whole(config: Mapping[str, Any], key: str, usual: int, least: int, most: int) -> int:
  value = config.get(key)
  value = usual if value is None else value
  if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
    raise RunError(
      f"the scheduler's {key} is {value!r}; expected a whole number from {least} to {most}."
    )
  return value


def _number(config: Mapping[str, Any], key: str, usual: float) -> float:
  value = config.get(key)
  value = usual if value is None else value
  if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
    raise RunError(f"the scheduler's {key} is {value!r}; expected a number from 0 to below 1.")
  return float(value)
