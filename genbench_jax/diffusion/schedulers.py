"""The four samplers as tables: PNDM, DDIM, DPM-Solver++ 2M and Euler are all linear in what they have seen.

With x the latents, o the model's output and m_0, m_1, ... the predictions kept so far, newest first, every step of each
of them is

    m_0 = from_sample * x + from_output * o          (what the solver extrapolates: o itself, or the clean latents)
    x  <- sample * x + first * x_start + sum_k recent[k] * m_k

so a sampler is a table with one row a model evaluation, and one loop runs them all. The tables are exact: Diffusers' own
Flax schedulers end at the wrong sigma, clip latents, or lack spacings and offsets.

References: DDIM arXiv 2010.02502 eq. 12; PNDM arXiv 2202.09778 eq. 9, 12, 13; DPM-Solver++ arXiv 2211.01095
algorithm 2; Euler: Karras et al. arXiv 2206.00364 algorithm 1 without churn.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

from genbench_jax.errors import RunError, UsageError, unknown_name
from genbench_jax.models.noise_schedule import NoiseSchedule

HISTORY = 4  # predictions that a step may look at; PNDM's linear multistep takes four


class Steps(NamedTuple):
  """A sampler's table, one row a model evaluation; see the module's docstring for the columns."""

  timestep: Float32[Array, "t"]
  input_scale: Float32[Array, "t"]
  from_sample: Float32[Array, "t"]
  from_output: Float32[Array, "t"]
  sample: Float32[Array, "t"]
  first: Float32[Array, "t"]
  recent: Float32[Array, "t 4"]
  keep: Float32[Array, "t"]  # 1 where the step's prediction joins the history


# ---- timesteps ----------------------------------------------------------------------------------


def _timesteps(
  schedule: NoiseSchedule, count: int, usual: str, points: int, whole: bool = True
) -> Float64[np.ndarray, "t"]:
  """Descending timesteps by the checkpoint's spacing, or the sampler's usual one.

  `points` is how many the range is cut into for `leading` and `linspace`: DPM-Solver++ takes one more than it
  visits. `whole` rounds those of `linspace`, as all but Euler do.
  """
  total = len(schedule.alphas_cumprod)
  spacing = schedule.timestep_spacing or usual
  if spacing == "leading":
    steps = np.arange(points)[::-1][:count] * (total // points) + schedule.steps_offset
    return np.minimum(steps, total - 1).astype(np.float64)
  if spacing == "linspace":
    even = np.linspace(0, total - 1, points)[::-1][:count]
    return even.round() if whole else even
  if spacing == "trailing":
    return np.arange(total, 0, -total / count).round()[:count] - 1
  raise RunError(f"timestep_spacing {spacing!r}: leading, linspace and trailing are supported.")


# ---- the samplers -------------------------------------------------------------------------------


def _clean_and_noise(
  alpha: Float64[np.ndarray, "t"], prediction_type: str
) -> tuple[Float64[np.ndarray, "t 2"], Float64[np.ndarray, "t 2"]]:
  """Weights of (x, o) that give the predicted clean latents and the predicted noise."""
  signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
  if prediction_type == "epsilon":
    clean = np.stack([1 / signal, -noise / signal], -1)
    return clean, np.stack([np.zeros_like(alpha), np.ones_like(alpha)], -1)
  return np.stack([signal, -noise], -1), np.stack([noise, signal], -1)


def _alphas_at(
  schedule: NoiseSchedule, timesteps: Float64[np.ndarray, "t"], ends_at_one: bool
) -> Float64[np.ndarray, "t"]:
  """`alphas_cumprod` at whole timesteps; below zero, the value that the last step ends at."""
  final = 1.0 if ends_at_one else schedule.alphas_cumprod[0]
  index = timesteps.astype(int)
  return np.where(index >= 0, schedule.alphas_cumprod[np.maximum(index, 0)], final)


def _table(timestep: Float64[np.ndarray, "t"], **columns: Float64[np.ndarray, "t ..."]) -> Steps:
  """A table whose unnamed columns are those of a solver that extrapolates the output itself, unscaled."""
  ones, zeros = np.ones_like(timestep), np.zeros_like(timestep)
  columns = {"recent": np.zeros((len(timestep), 1))} | columns
  recent = np.asarray(columns.pop("recent"))
  usual = {
    "input_scale": ones,
    "from_sample": zeros,
    "from_output": ones,
    "first": zeros,
    "keep": ones,
  }
  padded = np.pad(recent, ((0, 0), (0, HISTORY - recent.shape[1])))
  columns = usual | columns | {"timestep": timestep, "recent": padded}
  rows: dict[str, Any] = {name: np.asarray(column, np.float32) for name, column in columns.items()}
  return Steps(**rows)


def _ddim(schedule: NoiseSchedule, count: int) -> tuple[Steps, float]:
  timesteps = _timesteps(schedule, count, "leading", count)
  previous = timesteps - len(schedule.alphas_cumprod) // count
  ends_at_one = schedule.set_alpha_to_one is not False
  alpha = _alphas_at(schedule, timesteps, ends_at_one)
  alpha_next = _alphas_at(schedule, previous, ends_at_one)
  clean, noise = _clean_and_noise(alpha, schedule.prediction_type)
  both = np.sqrt(alpha_next)[:, None] * clean + np.sqrt(1 - alpha_next)[:, None] * noise
  return _table(timesteps, sample=both[:, 0], recent=both[:, 1:]), 1.0


def _pndm(schedule: NoiseSchedule, count: int) -> tuple[Steps, float]:
  visited = _timesteps(schedule, count, "leading", count)
  ratio = len(schedule.alphas_cumprod) // count
  # The second evaluation, at the first step's end, only mends the first step (Heun): it starts from x_start again.
  timesteps = np.concatenate([visited[:2], visited[1:]])
  start, end = timesteps.copy(), timesteps - ratio
  start[1:2], end[1:2] = timesteps[1:2] + ratio, timesteps[1:2]
  ends_at_one = bool(schedule.set_alpha_to_one)
  alpha, alpha_next = (_alphas_at(schedule, times, ends_at_one) for times in (start, end))
  _, noise = _clean_and_noise(alpha, schedule.prediction_type)
  denominator = alpha * np.sqrt(1 - alpha_next) + np.sqrt(alpha * (1 - alpha) * alpha_next)
  factor = (alpha_next - alpha) / denominator
  base = np.sqrt(alpha_next / alpha) - factor * noise[:, 0]
  mends = np.arange(len(timesteps)) == 1
  recent = -(factor * noise[:, 1])[:, None] * _adams_bashforth(len(timesteps))
  columns = {"sample": np.where(mends, 0, base), "first": np.where(mends, base, 0), "keep": ~mends}
  return _table(timesteps, recent=recent, **columns), 1.0


def _adams_bashforth(evaluations: int) -> Float64[np.ndarray, "t 4"]:
  """Weights of the newest four outputs at each evaluation, PNDM's warm-up first."""
  warm_up = [
    [1, 0, 0, 0],
    [1 / 2, 1 / 2, 0, 0],
    [3 / 2, -1 / 2, 0, 0],
    [23 / 12, -16 / 12, 5 / 12, 0],
  ]
  steady = [[55 / 24, -59 / 24, 37 / 24, -9 / 24]] * max(0, evaluations - len(warm_up))
  return np.asarray((warm_up + steady)[:evaluations])


def _sigmas(
  schedule: NoiseSchedule, timesteps: Float64[np.ndarray, "t"]
) -> Float64[np.ndarray, "t+1"]:
  """Noise over signal at the timesteps, interpolated, and at the end."""
  ratio = np.sqrt((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod)
  last = 0.0 if schedule.final_sigma_zero else ratio[0]
  return np.append(np.interp(timesteps, np.arange(len(ratio)), ratio), last)


def _dpm_solver(schedule: NoiseSchedule, count: int) -> tuple[Steps, float]:
  timesteps = _timesteps(schedule, count, "linspace", count + 1)
  sigmas = _sigmas(schedule, timesteps)
  alpha = 1 / (1 + sigmas**2)
  clean, _ = _clean_and_noise(alpha[:-1], schedule.prediction_type)
  shrink = sigmas[1:] / sigmas[:-1]  # exp(-h), h the step in log signal-to-noise
  gain = np.sqrt(alpha[1:]) * (1 - shrink)
  with np.errstate(divide="ignore"):
    step = -np.log(shrink)
  # D_0 + D_1 / 2 of the paper, D_1 = (m_0 - m_1) h / h_previous; no D_1 in the first step, nor mostly in the last.
  slope = np.append(0.0, 0.5 * step[1:] / step[:-1])
  if schedule.final_sigma_zero or (schedule.lower_order_final and count < 15):
    slope[-1] = 0.0
  recent = np.stack([gain * (1 + slope), -gain * slope], -1)
  sample = shrink * np.sqrt(alpha[1:] / alpha[:-1])
  columns = {"from_sample": clean[:, 0], "from_output": clean[:, 1]}
  return _table(timesteps, sample=sample, recent=recent, **columns), 1.0


def _euler(schedule: NoiseSchedule, count: int) -> tuple[Steps, float]:
  timesteps = _timesteps(schedule, count, "linspace", count, whole=False)
  sigmas = _sigmas(schedule, timesteps)
  sigma, move = sigmas[:-1], np.diff(sigmas)
  scale = 1 / np.sqrt(sigma**2 + 1)
  if schedule.prediction_type == "epsilon":
    sample, output = np.ones_like(sigma), move
  else:
    sample, output = 1 + move * sigma * scale**2, move * scale
  spacing = schedule.timestep_spacing or "linspace"
  start = sigmas.max() if spacing != "leading" else math.hypot(sigmas.max(), 1)
  return _table(timesteps, input_scale=scale, sample=sample, recent=output[:, None]), float(start)


SCHEDULERS: dict[str, Callable[[NoiseSchedule, int], tuple[Steps, float]]] = {
  "pndm": _pndm,
  "ddim": _ddim,
  "dpmsolver++": _dpm_solver,
  "euler": _euler,
}


def sampler_steps(schedule: NoiseSchedule, name: str, count: int) -> tuple[Steps, float]:
  """The table of a sampler, and what unit-normal latents are multiplied by at the start.

  Args:
    schedule: of the checkpoint.
    name: `pndm`, `ddim`, `dpmsolver++` or `euler`.
    count: sampler steps; PNDM makes one evaluation more.

  Raises:
    UsageError: there is no such sampler, or the count is out of range.
  """
  if name not in SCHEDULERS:
    raise unknown_name("scheduler", name, SCHEDULERS)
  total = len(schedule.alphas_cumprod)
  if not 1 <= count < total:
    raise UsageError(f"steps is {count}; it must be at least 1 and under the model's {total}.")
  return SCHEDULERS[name](schedule, count)


class State(NamedTuple):
  """Latents on their way: current, at the start, and the three predictions kept last, newest first."""

  latents: Float[Array, "b h w c"]
  start: Float[Array, "b h w c"]
  past: Float[Array, "3 b h w c"]


def start(latents: Float[Array, "b h w c"]) -> State:
  """The state before the first step, from latents at the sampler's initial scale."""
  return State(latents, latents, jnp.zeros((HISTORY - 1, *latents.shape), latents.dtype))


def step(row: Steps, state: State, output: Float[Array, "b h w c"]) -> State:
  """One step of any of the samplers; `row` is one row of its table."""
  prediction = row.from_sample * state.latents + row.from_output * output
  recent = jnp.concatenate([prediction[None], state.past])
  extrapolated = jnp.tensordot(row.recent, recent, axes=1)
  latents = row.sample * state.latents + row.first * state.start + extrapolated
  return State(latents, state.start, jnp.where(row.keep > 0, recent[:-1], state.past))
