"""Timesteps that a sampler visits, and their noise levels: spacings and sigmas.

sigma = sqrt((1 - alphas_cumprod) / alphas_cumprod) is the ratio of noise to signal.

References: spacings: arXiv 2305.08891, table 2. Karras sigmas: arXiv 2206.00364, eq. 5. Beta
sigmas: arXiv 2407.12173.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule

# Replaces a signal of zero so that sigma stays finite, as in Diffusers: the smallest positive
# float16.
LEAST_SIGNAL = 2.0**-24
KARRAS_RHO = 7.0  # rho of eq. 5, the published default
BETA_SHAPE = 0.6  # both parameters of the beta distribution, the published default


def timesteps(
  schedule: NoiseSchedule,
  count: int,
  usual: str,
  points: int,
  whole: bool = True,
  last: int | None = None,
) -> Float64[np.ndarray, "t"]:
  """Return descending timesteps with the spacing of the checkpoint.

  Args:
    schedule: noise schedule of the checkpoint.
    count: number of timesteps.
    usual: spacing if the checkpoint does not state one.
    points: number of grid points for `leading` and `linspace`; DPM-Solver++ uses one more than it
      visits.
    whole: whether to round `linspace` timesteps, as all samplers except Euler do.
    last: number of training steps to use, from the start of the schedule; None for all.

  Raises:
    RunError: the spacing of the checkpoint is not supported.
  """
  total = len(schedule.alphas_cumprod)
  last = total if last is None else last
  spacing = schedule.timestep_spacing or usual
  if spacing == "leading":
    # leading: multiples of the step width, plus the offset (table 2).
    steps = np.arange(points)[::-1][:count] * (last // points) + schedule.steps_offset
    return np.minimum(steps, total - 1).astype(np.float64)
  if spacing == "linspace":
    even = np.linspace(0, last - 1, points)[::-1][:count]
    return even.round() if whole else even
  if spacing == "trailing":
    # trailing: count down from the end, so that the last training step is visited.
    return np.arange(last, 0, -total / count).round()[:count] - 1
  raise RunError(f"timestep_spacing {spacing!r}: leading, linspace and trailing are supported.")


def explicit(schedule: NoiseSchedule, given: Sequence[int], name: str) -> Float64[np.ndarray, "t"]:
  """Return the user's timesteps after checking them.

  Args:
    schedule: noise schedule of the checkpoint.
    given: timesteps.
    name: name of the sampler for error messages.

  Raises:
    UsageError: they are not descending integers within the model's range.
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
  """Return sigma at every training step, ascending and finite; in single precision, as in Diffusers."""
  alphas = schedule.alphas_cumprod.astype(np.float32)
  if schedule.zero_snr:
    alphas[-1] = LEAST_SIGNAL
  return np.sqrt((1 - alphas) / alphas).astype(np.float64)


def sigmas_at(schedule: NoiseSchedule, steps: Float64[np.ndarray, "t"]) -> Float64[np.ndarray, "t"]:
  """Return sigma at given timesteps, by linear interpolation."""
  ratio = training_sigmas(schedule)
  return np.interp(steps, np.arange(len(ratio)), ratio)


def steps_of_sigmas(
  schedule: NoiseSchedule, sigmas: Float64[np.ndarray, "t"]
) -> Float64[np.ndarray, "t"]:
  """Invert `sigmas_at`, interpolating in log sigma, which Diffusers has in single precision."""
  logs = np.log(training_sigmas(schedule)).astype(np.float32)
  return np.interp(np.log(np.maximum(sigmas, 1e-10)), logs, np.arange(len(logs)))


def spread(kind: str, high: float, low: float, count: int) -> Float64[np.ndarray, "t"]:
  """Return `count` sigmas from the highest to the lowest.

  Args:
    kind: `karras`, `exponential` or `beta`.
    high, low: first and last sigma.
    count: number of sigmas.
  """
  ramp = np.linspace(0, 1, count)
  if kind == "karras":
    # eq. 5: linear in sigma^(1 / rho).
    ends = high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO)
    return (ends[0] + ramp * (ends[1] - ends[0])) ** KARRAS_RHO
  if kind == "exponential":
    return np.exp(np.linspace(math.log(high), math.log(low), count))
  # Quantiles of Beta(0.6, 0.6): dense at both ends.
  from scipy.stats import beta

  return low + beta.ppf(1 - ramp, BETA_SHAPE, BETA_SHAPE) * (high - low)
