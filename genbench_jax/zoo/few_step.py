"""Distill the zoo's denoiser into a model of four steps, as a LoRA (consistency distillation, as in LCM-LoRA).

  python -m genbench_jax.zoo.few_step --work runs/few-step

The student f maps every point x_t of a trajectory of the teacher, which is guided, to the trajectory's clean end:

    loss = huber(f(x_t, t, text) - x_0),   x_t, x_0 from the teacher's sampler with guidance w

Latent consistency models replace x_0 by the student's own output one step further on, because long trajectories of large models are
expensive. Here a trajectory has eight steps of a small network, so its true end is affordable and nothing is bootstrapped. Only captions
are needed, no images. The student takes no guidance: four evaluations of the U-Net an image, where its teacher takes sixteen.

Reference:
  Latent Consistency Models (arXiv 2310.04378), LCM-LoRA (arXiv 2311.05556); regression on the teacher's ends: arXiv 2101.02388.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genbench_jax.benchmark.captions import caption
from genbench_jax.benchmark.worlds import world_example, world_size
from genbench_jax.diffusion import schedulers
from genbench_jax.diffusion.program import Guidance, draw_latents, guide
from genbench_jax.diffusion.sampler_tables import Steps
from genbench_jax.models.checkpoints import ZOO
from genbench_jax.models.diffusion_model import StableDiffusion, apply_text_encoders, apply_unet
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.models.tokenizer import tokenize
from genbench_jax.models.unet import Conditions
from genbench_jax.models.weights import leaves, tree_of
from genbench_jax.zoo.data import SHARES
from genbench_jax.zoo.training import fit

Factors = dict[str, dict[str, Array]]

# Trajectories of the teacher: how many, steps, guidance, and how many are solved at once.
COUNT, TEACHER_STEPS, GUIDANCE, AT_ONCE = 256, 8, 5.0, 64
# Every second point of a trajectory is learned from: the times at which LCM's sampler calls the student in four steps.
STRIDE = 2
STEPS, BATCH, RANK = 70, 32, 16
# The boundary condition f(x, 0) = x: `timestep_scaling` and `sigma_data` of LCM's sampler.
TIME_SCALE, DATA_DEVIATION = 10.0, 0.5
FILE = "pytorch_lora_weights.safetensors"


class Trajectories(NamedTuple):
  """What the student learns from.

  Attributes:
    points: noisy latents of each trajectory at each time.
    times: of the points.
    ends: clean latents of each trajectory.
    texts: encoded captions.
  """

  points: Float[np.ndarray, "n t h w c"]
  times: Int[np.ndarray, "t"]
  ends: Float[np.ndarray, "n h w c"]
  texts: Float[np.ndarray, "n l d"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--work", type=Path, required=True, help="where checkpoints are kept")
  parser.add_argument("--out", type=Path, default=ZOO / "few_step", help="where the LoRA goes")
  arguments = parser.parse_args()
  os.environ.setdefault("USE_TF", "0")
  teacher = load_stable_diffusion("zoo/diffusion")
  save(distill(teacher, solve(teacher, captions(COUNT)), arguments.work, STEPS), arguments.out)


def captions(count: int, seed: int = 0) -> list[str]:
  """Captions of the worlds that the teacher knows, in the shares in which it was trained."""
  rng = np.random.default_rng(seed)
  worlds = rng.choice(list(SHARES), size=count, p=list(SHARES.values()))
  examples = [world_example(w, "zoo", int(rng.integers(world_size(w, "zoo")))) for w in worlds]
  return [caption(w, example, rng) for w, example in zip(worlds, examples, strict=True)]


# ---- the teacher ----------------------------------------------------------------------------------


def solve(teacher: StableDiffusion, texts: list[str], seed: int = 0) -> Trajectories:
  """Run the teacher's sampler from fresh noise for every text.

  Args:
    teacher: the zoo's diffusion model.
    texts: captions.
    seed: of the noise.
  """
  table, _ = schedulers.sampler_steps(teacher.schedule, "dpmsolver++", TEACHER_STEPS)
  steps = jax.tree.map(jnp.asarray, table)
  states, empty = encode(teacher, texts), jnp.asarray(encode(teacher, [""]))
  shape = (
    teacher.unet.config.sample_size,
    teacher.unet.config.sample_size,
    teacher.latent_channels,
  )
  keys = jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(jax.random.key(seed), i)))(
    jnp.arange(len(texts))
  )
  params = jax.device_put(teacher.params["unet"])
  run = jax.jit(lambda params, text, noise: trajectory(teacher, params, steps, text, empty, noise))
  found = [
    run(params, states[i : i + AT_ONCE], draw_latents(keys[i : i + AT_ONCE], shape))
    for i in range(0, len(texts), AT_ONCE)
  ]
  points, ends = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
  return Trajectories(points[:, ::STRIDE], np.asarray(table.timestep)[::STRIDE], ends, states)


def encode(teacher: StableDiffusion, texts: list[str]) -> Float[np.ndarray, "n l d"]:
  """The text encoder's hidden states."""
  tokens = jnp.asarray(tokenize(teacher.tokenizer, texts, teacher.max_tokens))
  return np.asarray(apply_text_encoders(teacher.towers, teacher.params, [tokens]).states)


def trajectory(
  teacher: StableDiffusion,
  params: Any,
  steps: Steps,
  text: Float[Array, "b l d"],
  empty: Float[Array, "1 l d"],
  noise: Float[Array, "b h w c"],
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b h w c"]]:
  """The latents before each step of the guided sampler, and those after the last.

  Args:
    teacher: the network is used.
    params: of its U-Net.
    steps: the sampler's table; it adds no noise.
    text: encoded captions.
    empty: the encoded empty prompt.
    noise: unit-normal latents.
  """
  strength = Guidance(jnp.float32(GUIDANCE), jnp.float32(0))
  both = jnp.concatenate([jnp.broadcast_to(empty, text.shape), text])

  def body(state: schedulers.State, row: Steps) -> tuple[schedulers.State, Array]:
    doubled = jnp.tile(row.input_scale * state.latents, (2, 1, 1, 1))
    time = jnp.asarray(row.timestep)
    negative, positive = jnp.split(
      apply_unet(teacher.unet, params, doubled, time, Conditions(both)), 2
    )
    return schedulers.step(row, state, guide(negative, positive, strength)), state.latents

  last, points = jax.lax.scan(body, schedulers.start(noise), steps)
  return jnp.moveaxis(points, 0, 1), last.latents


# ---- the student ----------------------------------------------------------------------------------


def distill(
  teacher: StableDiffusion, data: Trajectories, folder: Path, steps: int, seed: int = 0
) -> Factors:
  """Train the student; return its averaged low-rank factors, see `low_rank`.

  Args:
    teacher: its weights are where the student starts.
    data: the teacher's trajectories.
    folder: for checkpoints, from which a stopped training goes on.
    steps: of 32 points.
    seed: of the factors and of what is drawn.
  """
  weights = jax.device_put(teacher.params["unet"])
  levels = jnp.asarray(teacher.schedule.alphas_cumprod, jnp.float32)

  def batch_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, step])
    row = rng.integers(len(data.ends), size=BATCH)
    # Every time as often: the same expectation with less variance.
    time = np.arange(BATCH) % len(data.times)
    found = {"noisy": data.points[row, time], "end": data.ends[row], "text": data.texts[row]}
    return found | {"times": data.times[time].astype(np.int32)}

  def loss(factors: Factors, batch: Mapping[str, Array], key: Array) -> Array:
    noisy, times = batch["noisy"], batch["times"]
    student = merged(weights, factors)
    velocity = apply_unet(teacher.unet, student, noisy, times, Conditions(batch["text"]))
    return pseudo_huber(clean_end(velocity, noisy, levels, times) - batch["end"]).mean()

  factors = low_rank(weights, RANK, jax.random.key(seed))
  return fit(
    loss, factors, batch_of, steps, folder, learning_rate=2e-3, average_decay=0.98, warm_up=30
  )


def clean_end(
  velocity: Float[Array, "b h w c"],
  noisy: Float[Array, "b h w c"],
  levels: Float[Array, "t"],
  times: Int[Array, "b"],
) -> Float[Array, "b h w c"]:
  """The consistency function c_skip x + c_out x_0, which is x itself at time 0 (arXiv 2303.01469, equation 5).

  Args:
    velocity: the network's output, v = signal e - sigma x_0.
    noisy: x = signal x_0 + sigma e.
    levels: alpha_bar of every training step; signal is its root, sigma that of the rest.
    times: training step of each row.
  """
  level = levels[times][:, None, None, None]
  clean = jnp.sqrt(level) * noisy - jnp.sqrt(1 - level) * velocity
  scaled = TIME_SCALE * times[:, None, None, None].astype(jnp.float32)
  total = scaled**2 + DATA_DEVIATION**2
  return DATA_DEVIATION**2 / total * noisy + scaled / jnp.sqrt(total) * clean


def pseudo_huber(error: Float[Array, "b h w c"]) -> Float[Array, "b"]:
  """sqrt(|e|^2 + c^2) - c of each row, c = 0.00054 sqrt(d): outliers pull less than by squares (arXiv 2310.14189)."""
  squares = jnp.square(error).sum(axis=(1, 2, 3))
  offset = 0.00054 * error[0].size ** 0.5
  return jnp.sqrt(squares + offset**2) - offset


# ---- the low rank ---------------------------------------------------------------------------------


def low_rank(weights: Any, rank: int, key: Array) -> Factors:
  """Module -> factors `down [..., in, r]` and `up [r, out]` of every linear layer and convolution; `up` starts at zero.

  Args:
    weights: weights by module.
    rank: rank of the factors.
    key: draws `down`.
  """
  kernels = {
    name.removesuffix(".weight"): leaf
    for name, leaf in leaves(weights)
    if name.endswith(".weight") and leaf.ndim in (2, 4)
  }
  keys = jax.random.split(key, len(kernels))
  return {
    name: {
      "down": jax.random.normal(own, (*kernel.shape[:-1], rank)) / kernel[..., 0].size ** 0.5,
      "up": jnp.zeros((rank, kernel.shape[-1])),
    }
    for own, (name, kernel) in zip(keys, kernels.items(), strict=True)
  }


def merged(weights: Any, factors: Factors) -> Any:
  """The weights with the product of the factors added."""

  def change(name: str, leaf: Array) -> Array:
    pair = factors.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
    return leaf if pair is None else leaf + pair["down"] @ pair["up"]

  return tree_of(weights, change)


def save(factors: Factors, folder: Path) -> None:
  """Write the factors as diffusers' `load_lora_weights` reads them, in float16."""
  from safetensors.numpy import save_file

  tensors = {}
  for name, pair in factors.items():
    down, up = (np.asarray(pair[key], np.float16) for key in ("down", "up"))
    # [in, r] and [h, w, in, r] to PyTorch's [r, in] and [r, in, h, w]; the other factor is [out, r] or [out, r, 1, 1].
    down = down.transpose((1, 0) if down.ndim == 2 else (3, 2, 0, 1))
    up = up.T.reshape(*up.T.shape, *(1,) * (down.ndim - 2))
    tensors[f"unet.{name}.lora_A.weight"] = np.array(down, order="C")
    tensors[f"unet.{name}.lora_B.weight"] = np.array(up, order="C")
  folder.mkdir(parents=True, exist_ok=True)
  save_file(tensors, folder / FILE, metadata={"format": "pt"})


if __name__ == "__main__":
  main()
