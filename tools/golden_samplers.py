"""Write tests/data/golden_samplers.npz: results of PyTorch's schedulers from eight numbers with a made-up model.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 diffusers==0.42.0 scipy
  PYTHONPATH=. torchenv/bin/python tools/golden_samplers.py

A case is a sampler, settings that differ from Stable Diffusion's, a number of steps, eta, and its result and timesteps. Noise is
drawn with NumPy in the order of the steps. The test suite reads the file and needs no torch.
"""

import itertools
import json
from pathlib import Path

import diffusers
import numpy as np
import torch

from genbench_jax.zoo import tiny as testing

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_samplers.npz"
CLASSES = {
  "ddim": diffusers.DDIMScheduler,
  "pndm": diffusers.PNDMScheduler,
  "dpmsolver++": diffusers.DPMSolverMultistepScheduler,
  "euler": diffusers.EulerDiscreteScheduler,
  "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
  "lcm": diffusers.LCMScheduler,
  "tcd": diffusers.TCDScheduler,
}
SPACINGS = ("leading", "linspace", "trailing")
V, SAMPLE = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
ZERO_SNR = V | {"rescale_betas_zero_snr": True}


def cases() -> list[tuple[str, dict, int, float, list[int] | None]]:
  """Return tuples of sampler, settings, number of steps, eta, and explicit timesteps."""
  found = []
  for spacing, prediction, count in itertools.product(SPACINGS, ({}, V), (1, 4, 20)):
    found.append(("euler_ancestral", prediction | {"timestep_spacing": spacing}, count, 0.0, None))
    settings = prediction | {"timestep_spacing": spacing}
    found += [("ddim", settings, count, eta, None) for eta in (0.3, 1.0)]
  for sampler in ("ddim", "dpmsolver++", "euler", "lcm", "tcd"):
    for spacing, count in itertools.product(("linspace", "trailing"), (1, 2, 8)):
      found.append((sampler, SAMPLE | {"timestep_spacing": spacing}, count, 0.0, None))
      found.append((sampler, ZERO_SNR | {"timestep_spacing": spacing}, count, 0.0, None))
  found.append(("euler_ancestral", ZERO_SNR | {"timestep_spacing": "trailing"}, 8, 0.0, None))
  found.append(("pndm", ZERO_SNR, 8, 0.0, None))
  sigmas = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
  for sampler, key, prediction, count in itertools.product(
    ("euler", "dpmsolver++"), sigmas, ({}, V), (2, 5, 20)
  ):
    found.append((sampler, prediction | {key: True}, count, 0.0, None))
  found.append(
    ("euler", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}, 6, 0.0, None)
  )
  found.append(("euler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}, 6, 0.0, None))
  found.append(("euler", {"interpolation_type": "log_linear"}, 6, 0.0, None))
  found.append(("euler", {"final_sigmas_type": "sigma_min"}, 6, 0.0, None))
  for settings, count in itertools.product(
    (
      {"solver_order": 1},
      {"solver_order": 3},
      {"solver_type": "heun"},
      {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
      {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
      {"use_lu_lambdas": True},
      {"algorithm_type": "sde-dpmsolver++"},
      {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
      {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    ),
    (1, 5, 20),
  ):
    if settings.get("use_lu_lambdas") and count == 1:
      continue
    found.append(("dpmsolver++", settings, count, 0.0, None))
  for prediction, count in itertools.product(({}, V), (1, 2, 4, 8)):
    found.append(("lcm", prediction, count, 0.0, None))
    found += [("tcd", prediction, count, eta, None) for eta in (0.0, 0.3, 1.0)]
  found.append(("lcm", {"original_inference_steps": 100, "timestep_scaling": 5.0}, 3, 0.0, None))
  # Timesteps that single precision rounds to another number, settings of other samplers, steps of length zero.
  found += [
    ("dpmsolver++", {"use_exponential_sigmas": True}, count, 0.0, None) for count in (17, 33)
  ]
  found += [("dpmsolver++", {"use_karras_sigmas": True}, count, 0.0, None) for count in (18, 43)]
  ends = {"final_sigmas_type": "sigma_min"}
  found.append(("dpmsolver++", {"use_exponential_sigmas": True} | ends, 50, 0.0, None))
  stochastic = {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}
  found.append(("dpmsolver++", stochastic | ends, 16, 0.0, None))
  found.append(("dpmsolver++", {"use_lu_lambdas": True, "sigma_min": 0.2}, 5, 0.0, None))
  found.append(("euler", {"use_lu_lambdas": True}, 5, 0.0, None))
  explicit = [999, 749, 499, 249]  # DMD2's timesteps
  found += [(sampler, {}, 4, 0.0, explicit) for sampler in ("lcm", "tcd", "euler", "dpmsolver++")]
  return found


def end_of(
  name: str, settings: dict, count: int, eta: float, given: list[int] | None
) -> tuple[np.ndarray, np.ndarray]:
  """Return the scheduler's results from eight starting values, and its timesteps, padded with -1."""
  scheduler = CLASSES[name].from_config(testing.SCHEDULER | settings)
  scheduler.set_timesteps(**({"timesteps": given} if given else {"num_inference_steps": count}))
  if hasattr(scheduler, "set_begin_index"):
    scheduler.set_begin_index(
      0
    )  # timesteps that are rounded to the same number must not be skipped
  draws = iter(noises(64))
  module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
  module.randn_tensor = lambda shape, **_: torch.from_numpy(next(draws))[:, None]
  options = {"eta": eta} if name in ("ddim", "tcd") else {}
  x = torch.linspace(-2, 2, 8)[:, None] * scheduler.init_noise_sigma
  for t in scheduler.timesteps:
    output = torch.sin(3 * scheduler.scale_model_input(x, t)) + t / 1000
    x = scheduler.step(output, t, x, **options).prev_sample
  padding = np.full(64 - len(scheduler.timesteps), -1)
  return x[:, 0].numpy(), np.append(scheduler.timesteps.numpy(), padding).astype(np.float32)


def noises(count: int) -> np.ndarray:
  """Return the noise of each step [t, 8]; the test suite draws the same."""
  return np.random.default_rng(7).standard_normal((count, 8), np.float32)


def main() -> None:
  listed = cases()
  ends, timesteps = (
    np.stack(rows) for rows in zip(*(end_of(*case) for case in listed), strict=True)
  )
  assert np.isfinite(ends).all()
  cases_text = np.array([json.dumps(case) for case in listed])
  np.savez_compressed(OUT, cases=cases_text, ends=ends, timesteps=timesteps)
  print(f"{OUT}: {len(listed)} cases, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
