"""Samplers as coefficient tables: each is linear in its history and in the noise it adds.

With x the latents, o the model output, z fresh unit-normal noise and m_0, m_1, ... the stored
predictions (newest first), each step is

    m_0 = from_sample * x + from_output * o
    x  <- sample * x + first * x_start + sum_k recent[k] * m_k + noise * z

where m_0 is the quantity to extrapolate: o itself, or the clean latents. A sampler is therefore a table with one row per model evaluation (`sampler_tables`), and a single
loop runs all of them. Each sampler is tested against the scheduler of the same name in Diffusers
(PyTorch).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.diffusion.sampler_tables import HISTORY, TABLES, Request, Steps
from genbench_jax.diffusion.scheduler_settings import SAMPLER_OF, check_settings
from genbench_jax.errors import RunError, UsageError, unknown_name
from genbench_jax.models.noise_schedule import NoiseSchedule

# Selects the scheduler of the checkpoint.
AUTO = "auto"
# Samplers that accept a list of timesteps, and samplers with an `eta`.
EXPLICIT = ("dpmsolver++", "euler", "euler_ancestral", "lcm", "tcd")
WITH_ETA = ("ddim", "tcd")


def sampler_name(schedule: NoiseSchedule, name: str) -> str:
  """Return the sampler for a name; `auto` is the checkpoint's own.

  Raises:
    UsageError: the name is unknown, or the checkpoint's own scheduler is not supported.
  """
  if name != AUTO:
    if name not in TABLES:
      raise unknown_name("scheduler", name, (*TABLES, AUTO))
    return name
  if schedule.scheduler not in SAMPLER_OF:
    own = repr(schedule.scheduler) if schedule.scheduler else "not named"
    raise UsageError(
      f"scheduler 'auto': the checkpoint's own is {own}; choose one of {', '.join(TABLES)}."
    )
  return SAMPLER_OF[schedule.scheduler]


def sampler_steps(
  schedule: NoiseSchedule,
  name: str,
  count: int,
  eta: float = 0.0,
  timesteps: Sequence[int] | None = None,
) -> tuple[Steps, float]:
  """Return the table of a sampler and the initial scale of unit-normal latents.

  Args:
    schedule: noise schedule of the checkpoint.
    name: a key of `TABLES`, or `auto`.
    count: number of steps; PNDM needs one more evaluation. Ignored if `timesteps` are given.
    eta: fraction of fresh noise in DDIM (0 to 1; 1 is DDPM) and in TCD (its gamma).
    timesteps: descending timesteps to visit; None lets the sampler choose.

  Raises:
    UsageError: the sampler is unknown, or a setting is out of range or does not apply to it.
    RunError: the sampler does not support a setting of the checkpoint.
  """
  name = sampler_name(schedule, name)
  total = len(schedule.alphas_cumprod)
  if timesteps is not None and name not in EXPLICIT:
    raise UsageError(f"scheduler {name!r} does not accept timesteps; {', '.join(EXPLICIT)} do.")
  count = count if timesteps is None else len(timesteps)
  if not 1 <= count < total:
    raise UsageError(f"steps is {count}; it must be at least 1 and less than the model's {total}.")
  if not 0 <= eta <= 1:  # also catches NaN
    raise UsageError(f"eta is {eta}; it must be from 0 to 1.")
  if eta and name not in WITH_ETA:
    raise UsageError(f"scheduler {name!r} has no eta (got {eta}); only {', '.join(WITH_ETA)} have.")
  check_settings(schedule, name, timesteps is not None)
  steps, initial_scale = TABLES[name](schedule, Request(count, eta, timesteps))
  if not all(np.isfinite(column).all() for column in steps) or not math.isfinite(initial_scale):
    raise RunError(
      f"scheduler {name!r} starts at zero-terminal SNR, where a model with prediction_type"
      f" {schedule.prediction_type!r} cannot be sampled. Choose another scheduler or timestep_spacing."
    )
  return steps, initial_scale


class State(NamedTuple):
  """State of the sampling loop: latents, initial latents, last three predictions (newest first).

  Every operation is elementwise, so that latents of any shape will do; the sampler's are [b, h, w, c].
  """

  latents: Float[Array, "*s"]
  start: Float[Array, "*s"]
  past: Float[Array, "3 *s"]


def start(latents: Float[Array, "*s"]) -> State:
  """Return the initial state for latents at the sampler's initial scale."""
  return State(latents, latents, jnp.zeros((HISTORY - 1, *latents.shape), latents.dtype))


def step(
  row: Steps,
  state: State,
  output: Float[Array, "*s"],
  noise: Float[Array, "*s"] | None = None,
) -> State:
  """Advance the state by one row of the table.

  Args:
    row: one row of the sampler's table.
    state: current state.
    output: output of the model.
    noise: unit-normal noise, for samplers that add noise.
  """
  prediction = row.from_sample * state.latents + row.from_output * output
  # [HISTORY, b, h, w, c]: this prediction and the stored ones, newest first.
  recent = jnp.concatenate([prediction[None], state.past])
  extrapolated = jnp.tensordot(row.recent, recent, axes=1)
  latents = row.sample * state.latents + row.first * state.start + extrapolated
  if noise is not None:
    latents = latents + row.noise * noise
  return State(latents, state.start, jnp.where(row.keep > 0, recent[:-1], state.past))
