"""The zoo's autoencoder: FlaxAutoencoderKL from 32 x 32 pixels to 4 x 4 latents of 8 channels."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from genbench_jax.zoo.data import TrainingSet
from genbench_jax.zoo.training import fit

KL_WEIGHT = 1e-4
CONFIG = {
  "in_channels": 3, "out_channels": 3, "latent_channels": 8, "sample_size": 32,
  "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
  "block_out_channels": (16, 32, 48, 64), "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip


def train_vae(data: TrainingSet, folder: Path, steps: int, seed: int = 0) -> Any:
  """Trains the model; returns its averaged parameters."""
  from diffusers import FlaxAutoencoderKL

  model = FlaxAutoencoderKL(**CONFIG)
  params = jax.jit(model.init_weights)(jax.random.key(seed))
  cumulative = np.cumsum(data.weights)

  def batch_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, step])
    index = np.searchsorted(cumulative, rng.random(64) * cumulative[-1])
    return {"images": data.images[index]}

  def loss(params: Any, batch: dict[str, Array], key: Array) -> Array:
    pixels = to_vae_pixels(batch["images"])
    posterior = model.apply({"params": params}, pixels, method=model.encode).latent_dist
    latents = posterior.sample(key)
    decoded = model.apply({"params": params}, latents, method=_decode)
    error = jnp.abs(decoded - pixels).mean() + 2 * jnp.square(decoded - pixels).mean()
    return error + KL_WEIGHT * posterior.kl().mean()

  return fit(loss, params, batch_of, steps, folder, learning_rate=2e-3)


def _decode(module: Any, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w 3"]:
  """The decoder alone: the model's own `decode` guesses the layout of its input."""
  return module.decoder(module.post_quant_conv(latents))


def encode(params: Any, images: UInt8[np.ndarray, "n 32 32 3"]) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of the latents of all images, [n, 4, 4, 8] each."""
  from diffusers import FlaxAutoencoderKL

  model = FlaxAutoencoderKL(**CONFIG)

  @jax.jit
  def moments(params: Any, images: Array) -> tuple[Array, Array]:
    posterior = model.apply({"params": params}, to_vae_pixels(images), method=model.encode)
    return posterior.latent_dist.mean, posterior.latent_dist.std

  parts = [moments(params, images[i : i + 500]) for i in range(0, len(images), 500)]
  means, deviations = zip(*parts, strict=True)
  return np.concatenate(means), np.concatenate(deviations)


def to_vae_pixels(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Pixels from -1 to 1."""
  return images.astype(jnp.float32) / 127.5 - 1
