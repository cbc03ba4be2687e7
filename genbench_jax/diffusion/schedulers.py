"""Samplers as tables: all of them are linear in what they have seen, and in the noise that they add.

With x the latents, o the model's output, z fresh unit-normal noise and m_0, m_1, ... the predictions kept so far, newest first,
every step of each of them is

    m_0 = from_sample * x + from_output * o          (what the solver extrapolates: o itself, or the clean latents)
    x  <- sample * x + first * x_start + sum_k recent[k] * m_k + noise * z

so a sampler is a table with one row a model evaluation (`sampler_tables`), and one loop runs them all. Each is held to
PyTorch's scheduler of the same name.
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

# `auto` is the checkpoint's own.
SCHEDULERS = tuple(TABLES)
AUTO = "auto"
# Samplers that take a list of timesteps, and those in which `eta` has a meaning.
EXPLICIT = ("dpmsolver++", "euler", "euler_ancestral", "lcm", "tcd")
WITH_ETA = ("ddim", "tcd")


def sampler_name(schedule: NoiseSchedule, name: str) -> str:
  """The sampler that a name stands for: itself, or for `auto` the checkpoint's own.

  Raises:
    UsageError: there is no such sampler, or the checkpoint's own is not among them.
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
  """The table of a sampler, and what unit-normal latents are multiplied by at the start.

  Args:
    schedule: of the checkpoint.
    name: one of `SCHEDULERS`, or `auto`.
    count: sampler steps; PNDM makes one evaluation more. Without effect beside `timesteps`.
    eta: share of fresh noise in DDIM (0 to 1; 1 is DDPM) and TCD (its gamma).
    timesteps: to be visited, descending, where the sampler is not to space them itself.

  Raises:
    UsageError: there is no such sampler, or a setting is out of range or has no meaning for it.
    RunError: the checkpoint asks the sampler for what it does not do.
  """
  name = sampler_name(schedule, name)
  total = len(schedule.alphas_cumprod)
  if timesteps is not None and name not in EXPLICIT:
    raise UsageError(f"scheduler {name!r} takes no timesteps; {', '.join(EXPLICIT)} do.")
  count = count if timesteps is None else len(timesteps)
  if not 1 <= count < total:
    raise UsageError(f"steps is {count}; it must be at least 1 and under the model's {total}.")
  if not 0 <= eta <= 1:  # NaN fails both comparisons
    raise UsageError(f"eta is {eta}; it must be from 0 to 1.")
  if eta and name not in WITH_ETA:
    raise UsageError(f"eta is {eta}; scheduler {name!r} has none, only {', '.join(WITH_ETA)} have.")
  check_settings(schedule, name)
  steps, initial_scale = TABLES[name](schedule, Request(count, eta, timesteps))
  if not all(np.isfinite(column).all() for column in steps) or not math.isfinite(initial_scale):
    raise RunError(
      f"scheduler {name!r} begins where there is no signal, which a model that predicts"
      f" {schedule.prediction_type} can't be sampled from (zero-terminal SNR)."
    )
  return steps, initial_scale


class State(NamedTuple):
  """Latents on their way: current, at the start, and the three predictions kept last, newest first."""

  latents: Float[Array, "b h w c"]
  start: Float[Array, "b h w c"]
  past: Float[Array, "3 b h w c"]


def start(latents: Float[Array, "b h w c"]) -> State:
  """The state before the first step, from latents at the sampler's initial scale."""
  return State(latents, latents, jnp.zeros((HISTORY - 1, *latents.shape), latents.dtype))


def step(
  row: Steps,
  state: State,
  output: Float[Array, "b h w c"],
  noise: Float[Array, "b h w c"] | None = None,
) -> State:
  """One step of any of the samplers; `row` is one row of its table, `noise` unit-normal where the sampler adds any."""
  prediction = row.from_sample * state.latents + row.from_output * output
  recent = jnp.concatenate([prediction[None], state.past])
  extrapolated = jnp.tensordot(row.recent, recent, axes=1)
  latents = row.sample * state.latents + row.first * state.start + extrapolated
  if noise is not None:
    latents = latents + row.noise * noise
  return State(latents, state.start, jnp.where(row.keep > 0, recent[:-1], state.past))
