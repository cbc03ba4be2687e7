"""The noise schedule of a diffusion model, as its scheduler's config gives it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from genbench_jax.errors import RunError


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
  """What a checkpoint's `scheduler_config.json` says, whichever scheduler it names.

  Attributes:
    alphas_cumprod: share of signal in the variance at each training step.
    prediction_type: `epsilon` (noise) or `v_prediction` (velocity).
    timestep_spacing: `leading`, `linspace` or `trailing`; None takes each sampler's usual one.
    steps_offset: added to the timesteps of `leading`.
    set_alpha_to_one: whether the last step of DDIM and PNDM ends without noise; None takes each one's usual.
    final_sigma_zero: the same for DPM-Solver++ and Euler.
    lower_order_final: whether DPM-Solver++ ends with a first-order step under 15 steps.
  """

  alphas_cumprod: Float64[np.ndarray, "n"]
  prediction_type: str
  timestep_spacing: str | None = None
  steps_offset: int = 1
  set_alpha_to_one: bool | None = None
  final_sigma_zero: bool = True
  lower_order_final: bool = True

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> "NoiseSchedule":
    """Reads a `scheduler_config.json`.

    Raises:
      RunError: the checkpoint was made for something that no sampler here does.
    """
    for name in ("thresholding", "rescale_betas_zero_snr", "use_karras_sigmas"):
      if config.get(name):
        raise RunError(f"the checkpoint's scheduler asks for {name}, which is not supported.")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
      raise RunError(
        f"prediction_type {prediction!r}: only epsilon and v_prediction are supported."
      )
    return cls(
      alphas_cumprod=np.cumprod(1 - _betas(config)),
      prediction_type=prediction,
      timestep_spacing=config.get("timestep_spacing"),
      steps_offset=config.get("steps_offset", 1),
      set_alpha_to_one=config.get("set_alpha_to_one"),
      final_sigma_zero=config.get("final_sigmas_type", "zero") == "zero",
      lower_order_final=config.get("lower_order_final", True),
    )


def _betas(config: Mapping[str, Any]) -> Float64[np.ndarray, "n"]:
  if config.get("trained_betas") is not None:
    return np.asarray(config["trained_betas"], np.float64)
  steps = config.get("num_train_timesteps", 1000)
  start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
  kind = config.get("beta_schedule", "linear")
  if kind == "linear":
    return np.linspace(start, end, steps)
  if kind == "scaled_linear":
    return np.linspace(start**0.5, end**0.5, steps) ** 2
  if kind == "squaredcos_cap_v2":
    alpha_bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
  raise RunError(
    f"beta_schedule {kind!r}: linear, scaled_linear and squaredcos_cap_v2 are supported."
  )
