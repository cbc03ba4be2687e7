"""Coefficient tables of the samplers, one row per model evaluation (columns: `schedulers`).

References: DDIM arXiv 2010.02502, eq. 12 and 16. PNDM arXiv 2202.09778, eq. 9, 12 and 13.
DPM-Solver++ arXiv 2211.01095,
algorithm 2. Euler: Karras et al. arXiv 2206.00364, algorithm 1 without churn; its ancestral form:
Crowson's k-diffusion.
Consistency sampling: LCM arXiv 2310.04378; TCD arXiv 2402.19159, algorithm 4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Num

from genbench_jax.diffusion import scheduler_settings as settings
from genbench_jax.diffusion.timesteps import (
  explicit,
  sigmas_at,
  spread,
  steps_of_sigmas,
  timesteps,
  training_sigmas,
)
from genbench_jax.errors import UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule

HISTORY = 4  # predictions that a step may combine; PNDM's linear multistep uses four
FEW_STEPS = 15  # below this, DPM-Solver++ lowers its order in the last steps

Row = Float64[np.ndarray, "t"]


class Steps(NamedTuple):
  """Table of a sampler, one row per model evaluation; see `schedulers` for the columns."""

  timestep: Float32[np.ndarray, "t"]
  input_scale: Float32[np.ndarray, "t"]
  from_sample: Float32[np.ndarray, "t"]
  from_output: Float32[np.ndarray, "t"]
  sample: Float32[np.ndarray, "t"]
  first: Float32[np.ndarray, "t"]
  recent: Float32[np.ndarray, "t 4"]
  keep: Float32[np.ndarray, "t"]  # 1 where the step's prediction joins the history
  noise: Float32[np.ndarray, "t"]


class Request(NamedTuple):
  """Sampling settings that determine a table.

  Attributes:
    steps: number of sampler steps.
    eta: fraction of fresh noise, for DDIM and TCD.
    timesteps: timesteps to visit; None lets the sampler choose.
  """

  steps: int
  eta: float = 0.0
  timesteps: Sequence[int] | None = None


def _clean_and_noise(
  alpha: Row, prediction_type: str
) -> tuple[Float64[np.ndarray, "t 2"], Float64[np.ndarray, "t 2"]]:
  """Return weights of (x, o) that give the predicted clean latents and the predicted noise.

  From x = sqrt(alpha) clean + sqrt(1 - alpha) noise, with o = noise (epsilon), clean (sample) or
  sqrt(alpha) noise - sqrt(1 - alpha) clean (velocity).
  """
  signal, noise = np.sqrt(alpha), np.sqrt(1 - alpha)
  zeros, ones = np.zeros_like(alpha), np.ones_like(alpha)
  if prediction_type == "epsilon":
    # At zero terminal SNR x holds no signal, and the clean latents cannot be recovered from the
    # noise: the weights are infinite, which `sampler_steps` rejects.
    with np.errstate(divide="ignore"):
      clean = np.stack([1 / signal, -noise / signal], -1)
    return clean, np.stack([zeros, ones], -1)
  if prediction_type == "sample":
    return np.stack([zeros, ones], -1), np.stack([1 / noise, -signal / noise], -1)
  return np.stack([signal, -noise], -1), np.stack([noise, signal], -1)


def _alphas_at(schedule: NoiseSchedule, steps: Row, ends_at_one: bool) -> Row:
  """Return `alphas_cumprod` at integer timesteps; negative ones are the end of sampling."""
  final = 1.0 if ends_at_one else schedule.alphas_cumprod[0]
  index = steps.astype(int)
  return np.where(index >= 0, schedule.alphas_cumprod[np.maximum(index, 0)], final)


def _table(timestep: Row, **columns: Num[np.ndarray, "t ..."] | Bool[np.ndarray, "t"]) -> Steps:
  """Build a table; missing columns are those of a solver that extrapolates the raw output."""
  ones, zeros = np.ones_like(timestep), np.zeros_like(timestep)
  columns = {"recent": np.zeros((len(timestep), 1))} | columns
  recent = np.asarray(columns.pop("recent"))
  usual = {"input_scale": ones, "from_sample": zeros, "from_output": ones}
  usual |= {"first": zeros, "keep": ones, "noise": zeros}
  padded = np.pad(recent, ((0, 0), (0, HISTORY - recent.shape[1])))
  columns = usual | columns | {"timestep": timestep, "recent": padded}
  rows: dict[str, Any] = {name: np.asarray(column, np.float32) for name, column in columns.items()}
  return Steps(**rows)


def _ddim(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited = timesteps(schedule, request.steps, "leading", request.steps)
  previous = visited - len(schedule.alphas_cumprod) // request.steps
  ends_at_one = settings.choice(schedule, "ddim", "set_alpha_to_one")
  alpha = _alphas_at(schedule, visited, ends_at_one)
  alpha_next = _alphas_at(schedule, previous, ends_at_one)
  # eq. 12: x <- sqrt(a') clean + sqrt(1 - a' - s^2) noise + s z, and eq. 16: s = eta sqrt((1 -
  # a')/(1 - a) (1 - a/a')).
  clean, noise = _clean_and_noise(alpha, schedule.prediction_type)
  variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
  fresh = request.eta * np.sqrt(variance)
  kept = np.sqrt(np.maximum(0, 1 - alpha_next - fresh**2))
  both = np.sqrt(alpha_next)[:, None] * clean + kept[:, None] * noise
  return _table(visited, sample=both[:, 0], recent=both[:, 1:], noise=fresh), 1.0


def _pndm(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  schedule = schedule.without_zero_snr()  # PNDM does not read `rescale_betas_zero_snr`
  visited = timesteps(schedule, request.steps, "leading", request.steps)
  ratio = len(schedule.alphas_cumprod) // request.steps
  # The second evaluation, at the end of the first step, corrects that step (Heun): it restarts from
  # x_start.
  steps = np.concatenate([visited[:2], visited[1:]])
  start, end = steps.copy(), steps - ratio
  start[1:2], end[1:2] = steps[1:2] + ratio, steps[1:2]
  ends_at_one = settings.choice(schedule, "pndm", "set_alpha_to_one")
  alpha, alpha_next = (_alphas_at(schedule, times, ends_at_one) for times in (start, end))
  _, noise = _clean_and_noise(alpha, schedule.prediction_type)
  # eq. 9, the transfer from alpha to alpha': x <- sqrt(a'/a) x - (a' - a) noise / denominator.
  denominator = alpha * np.sqrt(1 - alpha_next) + np.sqrt(alpha * (1 - alpha) * alpha_next)
  factor = (alpha_next - alpha) / denominator
  base = np.sqrt(alpha_next / alpha) - factor * noise[:, 0]
  mends = np.arange(len(steps)) == 1
  recent = -(factor * noise[:, 1])[:, None] * _adams_bashforth(len(steps))
  columns = {"sample": np.where(mends, 0, base), "first": np.where(mends, base, 0), "keep": ~mends}
  return _table(steps, recent=recent, **columns), 1.0


def _adams_bashforth(evaluations: int) -> Float64[np.ndarray, "t 4"]:
  """Return the weights of the newest four outputs at each evaluation, with PNDM's warm-up first.

  After the warm-up these are the coefficients of the fourth-order Adams-Bashforth method.
  """
  warm_up = [
    [1, 0, 0, 0],
    [1 / 2, 1 / 2, 0, 0],
    [3 / 2, -1 / 2, 0, 0],
    [23 / 12, -16 / 12, 5 / 12, 0],
  ]
  steady = [[55 / 24, -59 / 24, 37 / 24, -9 / 24]] * max(0, evaluations - len(warm_up))
  return np.asarray((warm_up + steady)[:evaluations], np.float64)


# ---- samplers parametrized by sigma
# ---------------------------------------------------------------


def _last_sigma(schedule: NoiseSchedule, name: str) -> float:
  ends_at_zero = settings.choice(schedule, name, "final_sigmas_type") == "zero"
  return 0.0 if ends_at_zero else training_sigmas(schedule)[0]


def _dpm_sigmas(schedule: NoiseSchedule, request: Request) -> tuple[Row, Float64[np.ndarray, "u"]]:
  """Return the timesteps and sigmas of DPM-Solver++, including the final sigma."""
  name, trained = "dpmsolver++", training_sigmas(schedule)
  kind = settings.sigma_kind(schedule, name)
  if request.timesteps is not None:
    visited = explicit(schedule, request.timesteps, name)
    sigmas = sigmas_at(schedule, visited)
  elif kind is None:
    # The schedule is cut where log(signal / noise) falls below a bound.
    cut = int((-np.log(trained) < settings.number(schedule, "lambda_min_clipped")).sum())
    last = len(trained) - cut
    visited = timesteps(schedule, request.steps, "linspace", request.steps + 1, last=last)
    sigmas = sigmas_at(schedule, visited)
  else:
    ends = trained[-1], trained[0]
    if not settings.choice(schedule, name, "use_lu_lambdas"):  # Lu's always span the whole schedule
      ends = settings.sigma_ends(schedule, *ends)
    sigmas = spread(kind, *ends, request.steps)
    visited = steps_of_sigmas(schedule, sigmas)
    rounds = any(schedule.settings.get(key) for key in ("use_karras_sigmas", "use_lu_lambdas"))
    if rounds and schedule.settings.get("beta_schedule") != "squaredcos_cap_v2":
      visited = visited.round()
    else:
      # Rounded down. In single precision, Stable Diffusion's schedule ends at 998.99998 here: the highest
      # timestep is 998, as in all published images with these spacings.
      visited = np.floor(visited)
  return visited, np.append(sigmas, _last_sigma(schedule, name))


def _dpm_solver(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited, sigmas = _dpm_sigmas(schedule, request)
  count = len(visited)
  stochastic = settings.choice(schedule, "dpmsolver++", "algorithm_type") == "sde-dpmsolver++"
  heun = settings.choice(schedule, "dpmsolver++", "solver_type") == "heun"
  # From sigma = noise / signal with signal^2 + noise^2 = 1.
  alpha = 1 / (1 + sigmas**2)
  clean, _ = _clean_and_noise(alpha[:-1], schedule.prediction_type)
  # First order: x' = (sigma'/sigma) (signal'/signal) x + signal' (1 - exp(-h)) clean. The SDE adds
  # sigma' signal' sqrt(1 - exp(-2h)) z and decays twice as fast.
  shrink = sigmas[1:] / sigmas[:-1]  # exp(-h), h the step in log signal-to-noise
  decay = shrink**2 if stochastic else shrink
  with np.errstate(
    divide="ignore"
  ):  # the last sigma may be 0; that step is first-order and ignores h
    step = -np.log(shrink)
  # The stochastic solver equals the deterministic one with 2h instead of h.
  width = 2 * step if stochastic else step
  orders = _dpm_orders(schedule, count)
  recent = np.zeros((count, 3))
  for i, order in enumerate(orders):
    if step[i] == 0:  # the last sigma is the smallest one already: nothing moves
      continue
    ratios = [step[i - k] / step[i] for k in range(1, order)]
    recent[i] = _dpm_weights(float(decay[i]), float(width[i]), ratios, heun)
  signal = np.sqrt(alpha)
  sample = shrink * signal[1:] / signal[:-1] * (shrink if stochastic else 1)
  fresh = np.sqrt(np.maximum(0, 1 - decay)) if stochastic else np.zeros(count)
  columns = {"from_sample": clean[:, 0], "from_output": clean[:, 1]}
  columns["noise"] = sigmas[1:] * signal[1:] * fresh
  return _table(visited, sample=sample, recent=signal[1:, None] * recent, **columns), 1.0


def _dpm_orders(schedule: NoiseSchedule, count: int) -> list[int]:
  """Return the order of each step: it grows with the history, and usually falls at the end."""

  def of(key: str) -> Any:
    return settings.choice(schedule, "dpmsolver++", key)

  falls = of("lower_order_final") and count < FEW_STEPS
  orders = [min(of("solver_order"), i + 1) for i in range(count)]
  if falls and count > 1:
    orders[-2] = min(orders[-2], 2)
  if falls or of("euler_at_final") or of("final_sigmas_type") == "zero":
    orders[-1] = 1
  return orders


def _dpm_weights(
  decay: float, width: float, ratios: Sequence[float], heun: bool
) -> Float64[np.ndarray, "3"]:
  """Return the weights of the newest three predictions, relative to the signal at the end.

  Args:
    decay: exp(-width).
    width: length h of the step in log(signal / noise); 2h for the stochastic solver.
    ratios: earlier steps relative to this one, newest first; there are order - 1 of them.
    heun: use the exact integral of the slope instead of the midpoint rule.
  """
  weights = np.array([1 - decay, 0.0, 0.0])
  if not ratios:
    return weights
  # Exact integrals of exp(-t) t over the step, relative to its length; the midpoint rule
  # approximates the first by (1 - decay) / 2.
  exact = 1 - (1 - decay) / width
  slope = np.array([1.0, -1.0, 0.0]) / ratios[0]  # first divided difference, D_1
  if len(ratios) == 1:
    return weights + (exact if heun else (1 - decay) / 2) * slope
  older = np.array([0.0, 1.0, -1.0]) / ratios[1]
  bend = (slope - older) / (ratios[0] + ratios[1])  # second divided difference, D_2
  curvature = 0.5 - (decay - 1 + width) / width**2
  return weights + exact * (slope + ratios[0] * bend) + curvature * bend


def _euler_sigmas(
  schedule: NoiseSchedule, request: Request, name: str
) -> tuple[Row, Float64[np.ndarray, "u"]]:
  """Return the timesteps and sigmas of Euler, including the final sigma."""
  if request.timesteps is not None:
    visited = explicit(schedule, request.timesteps, name)
  else:
    visited = timesteps(schedule, request.steps, "linspace", request.steps, whole=False)
  sigmas = sigmas_at(schedule, visited)
  if name == "euler_ancestral":
    return visited, np.append(sigmas, 0.0)
  if settings.choice(schedule, name, "interpolation_type") == "log_linear":
    ends = np.log(training_sigmas(schedule)[[-1, 0]])
    sigmas = np.exp(np.linspace(ends[0], ends[1], request.steps + 1))
  kind = settings.sigma_kind(schedule, name)
  if kind is not None:
    sigmas = spread(kind, *settings.sigma_ends(schedule, sigmas[0], sigmas[-1]), len(visited))
    visited = steps_of_sigmas(schedule, sigmas)
  # Log-linear sigmas already include their end.
  return visited, np.append(sigmas, _last_sigma(schedule, name))[: len(visited) + 1]


def _euler(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited, sigmas = _euler_sigmas(schedule, request, "euler")
  move = np.diff(sigmas)
  return _euler_table(schedule, visited, sigmas, move, np.zeros(len(visited)))


def _euler_ancestral(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited, sigmas = _euler_sigmas(schedule, request, "euler_ancestral")
  before, after = sigmas[:-1], sigmas[1:]
  # Step down too far (to `down`), then add fresh noise (`up`) so that down^2 + up^2 = after^2.
  up = np.sqrt(after**2 * (before**2 - after**2) / before**2)
  down = np.sqrt(after**2 - up**2)
  return _euler_table(schedule, visited, sigmas, down - before, up)


def _euler_table(
  schedule: NoiseSchedule, visited: Row, sigmas: Float64[np.ndarray, "u"], move: Row, noise: Row
) -> tuple[Steps, float]:
  """Build the table of x + move dx/dsigma + noise z, with dx/dsigma = (x - clean) / sigma."""
  sigma = sigmas[:-1]
  scale = 1 / np.sqrt(sigma**2 + 1)
  if schedule.prediction_type == "epsilon":
    sample, output = np.ones_like(sigma), move
  elif schedule.prediction_type == "sample":
    sample, output = 1 + move / sigma, -move / sigma
  else:
    sample, output = 1 + move * sigma * scale**2, move * scale
  spacing = schedule.timestep_spacing or "linspace"
  # x = clean + sigma noise starts at the highest sigma; with `leading` spacing, Diffusers scales it
  # by sqrt(sigma^2 + 1).
  start = sigmas.max() if spacing != "leading" else math.hypot(sigmas.max(), 1)
  columns = {"sample": sample, "recent": output[:, None], "noise": noise}
  return _table(visited, input_scale=scale, **columns), float(start)


# ---- consistency models -------------------------------------------------------------------------


def _consistency_steps(schedule: NoiseSchedule, request: Request, name: str) -> Row:
  """Return timesteps spaced evenly among those that the model was distilled on."""
  if request.timesteps is not None:
    return explicit(schedule, request.timesteps, name)
  total = len(schedule.alphas_cumprod)
  trained = int(settings.number(schedule, "original_inference_steps"))
  if trained > total or request.steps > trained:
    raise UsageError(
      f"steps is {request.steps}; {name} supports at most the {min(trained, total)} steps that the model was distilled on."
    )
  distilled = (np.arange(1, trained + 1) * (total // trained) - 1)[::-1]
  picked = np.floor(np.linspace(0, trained, request.steps, endpoint=False)).astype(int)
  return distilled[picked].astype(np.float64)


def _lcm(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited = _consistency_steps(schedule, request, "lcm")
  alpha = _alphas_at(schedule, visited, True)
  alpha_next = np.append(alpha[1:], 1.0)  # the last step ends at the prediction itself
  clean, _ = _clean_and_noise(alpha, schedule.prediction_type)
  # c_skip and c_out of consistency models: at time zero the model is the identity.
  scaled = visited * settings.number(schedule, "timestep_scaling")
  skip = 0.25 / (scaled**2 + 0.25)
  out = scaled / np.sqrt(scaled**2 + 0.25)
  signal = np.sqrt(alpha_next)
  sample = signal * (skip + out * clean[:, 0])
  recent = signal * out * clean[:, 1]
  noise = np.sqrt(1 - alpha_next)
  return _table(visited, sample=sample, recent=recent[:, None], noise=noise), 1.0


def _tcd(schedule: NoiseSchedule, request: Request) -> tuple[Steps, float]:
  visited = _consistency_steps(schedule, request, "tcd")
  following = np.append(visited[1:], 0.0)
  # In single precision, as in Diffusers: the rounding decides on which side of an integer the
  # product falls.
  jump = np.floor(np.float32(1 - request.eta) * following.astype(np.float32)).astype(np.float64)
  alpha, alpha_next, alpha_jump = (
    _alphas_at(schedule, steps, True) for steps in (visited, following, jump)
  )
  clean, noise = _clean_and_noise(alpha, schedule.prediction_type)
  both = np.sqrt(alpha_jump)[:, None] * clean + np.sqrt(1 - alpha_jump)[:, None] * noise
  # Gamma sampling: jump to an earlier time than the next one, then add noise back up to it.
  back = np.sqrt(alpha_next / alpha_jump)
  fresh = np.sqrt(np.maximum(0, 1 - alpha_next / alpha_jump))
  back[-1], fresh[-1] = 1.0, 0.0
  if request.eta == 0:
    back, fresh = np.ones_like(back), np.zeros_like(fresh)
  both *= back[:, None]
  return _table(visited, sample=both[:, 0], recent=both[:, 1:], noise=fresh), 1.0


TABLES: dict[str, Callable[[NoiseSchedule, Request], tuple[Steps, float]]] = {
  "pndm": _pndm,
  "ddim": _ddim,
  "dpmsolver++": _dpm_solver,
  "euler": _euler,
  "euler_ancestral": _euler_ancestral,
  "lcm": _lcm,
  "tcd": _tcd,
}
