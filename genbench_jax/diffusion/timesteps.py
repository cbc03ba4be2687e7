"""Which training steps a sampler visits, and how much noise there is at each: spacings and sigmas.

sigma is noise over signal, sqrt((1 - alphas_cumprod) / alphas_cumprod).

References: spacings: arXiv 2305.08891 table 2; Karras sigmas: arXiv 2206.00364 eq. 5; beta sigmas: arXiv 2407.12173.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule

# What takes zero's place where signal over noise is to be finite, as Diffusers does it: half precision's least number.
LEAST_SIGNAL = 2.0**-24
KARRAS_RHO = 7.0
BETA_SHAPE = 0.6


def timesteps(
  schedule: NoiseSchedule,
  count: int,
  usual: str,
  points: int,
  whole: bool = True,
  last: int | None = None,
) -> Float64[np.ndarray, "t"]:
  """Descending timesteps by the checkpoint's spacing.

  Args:
    schedule: of the checkpoint.
    count: how many.
    usual: the spacing where the checkpoint states none.
    points: how many the range is cut into for `leading` and `linspace`; DPM-Solver++ takes one more than it visits.
    whole: whether those of `linspace` are rounded, as all but Euler do.
    last: how much of the schedule is used, from its beginning; by default all.

  Raises:
    RunError: the checkpoint asks for another spacing.
  """
  total = len(schedule.alphas_cumprod)
  last = total if last is None else last
  spacing = schedule.timestep_spacing or usual
  if spacing == "leading":
    steps = np.arange(points)[::-1][:count] * (last // points) + schedule.steps_offset
    return np.minimum(steps, total - 1).astype(np.float64)
  if spacing == "linspace":
    even = np.linspace(0, last - 1, points)[::-1][:count]
    return even.round() if whole else even
  if spacing == "trailing":
    return np.arange(last, 0, -total / count).round()[:count] - 1
  raise RunError(f"timestep_spacing {spacing!r}: leading, linspace and trailing are supported.")


def explicit(schedule: NoiseSchedule, given: Sequence[int], name: str) -> Float64[np.ndarray, "t"]:
  """Timesteps that the user names, checked.

  Raises:
    UsageError: they are not whole, not descending, or not in the model's range.
  """
  total = len(schedule.alphas_cumprod)
  wanted = np.asarray(given, np.float64)
  fine = wanted.ndim == 1 and len(wanted) and (wanted == wanted.round()).all()
  if not fine or wanted.min() < 0 or wanted.max() >= total or (np.diff(wanted) >= 0).any():
    raise UsageError(
      f"timesteps are {list(given)}; {name} takes descending whole numbers from {total - 1} to 0."
    )
  return wanted


def training_sigmas(schedule: NoiseSchedule) -> Float64[np.ndarray, "n"]:
  """sigma at every training step, ascending and finite."""
  alphas = schedule.alphas_cumprod.copy()
  if schedule.zero_snr:
    alphas[-1] = LEAST_SIGNAL
  return np.sqrt((1 - alphas) / alphas)


def sigmas_at(schedule: NoiseSchedule, steps: Float64[np.ndarray, "t"]) -> Float64[np.ndarray, "t"]:
  """sigma at timesteps, interpolated."""
  ratio = training_sigmas(schedule)
  return np.interp(steps, np.arange(len(ratio)), ratio)


def steps_of_sigmas(
  schedule: NoiseSchedule, sigmas: Float64[np.ndarray, "t"]
) -> Float64[np.ndarray, "t"]:
  """The inverse of `sigmas_at`, interpolated between logarithms."""
  logs = np.log(training_sigmas(schedule))
  return np.interp(np.log(np.maximum(sigmas, 1e-10)), logs, np.arange(len(logs)))


def spread(kind: str, high: float, low: float, count: int) -> Float64[np.ndarray, "t"]:
  """`count` sigmas from the highest to the lowest.

  Args:
    kind: `karras`, `exponential` or `beta`.
    high, low: the ends.
    count: how many.
  """
  ramp = np.linspace(0, 1, count)
  if kind == "karras":
    ends = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
    return (ends[0] + ramp * (ends[1] - ends[0])) ** KARRAS_RHO
  if kind == "exponential":
    return np.exp(np.linspace(math.log(high), math.log(low), count))
  from scipy.stats import beta

  return low + beta.ppf(1 - ramp, BETA_SHAPE, BETA_SHAPE) * (high - low)
