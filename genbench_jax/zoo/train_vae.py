"""The zoo's autoencoder: from 32 x 32 pixels to 4 x 4 latents of 8 channels."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from genbench_jax.models.autoencoder import Autoencoder, read_autoencoder_config
from genbench_jax.models.configuration import Settings
from genbench_jax.models.stable_diffusion import apply_decoder, apply_encoder
from genbench_jax.zoo.data import TrainingSet
from genbench_jax.zoo.training import fit

KL_WEIGHT = 1e-4
BATCH = 32
CONFIG: dict[str, Any] = {
  "in_channels": 3, "out_channels": 3, "latent_channels": 8, "sample_size": 32,
  "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
  "block_out_channels": (16, 32, 48, 64), "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip


def zoo_autoencoder() -> Autoencoder:
  """The network, without weights."""
  return Autoencoder(read_autoencoder_config(Settings(CONFIG, Path("the zoo's autoencoder"))))


def train_vae(data: TrainingSet, folder: Path, steps: int, seed: int = 0) -> Any:
  """Trains the model; returns its averaged parameters."""
  model = zoo_autoencoder()
  images = jnp.zeros((1, CONFIG["sample_size"], CONFIG["sample_size"], 3))
  params = jax.jit(model.init)(jax.random.key(seed), images)["params"]
  cumulative = np.cumsum(data.weights)

  def batch_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, step])
    index = np.searchsorted(cumulative, rng.random(BATCH) * cumulative[-1])
    return {"images": data.images[index]}

  def loss(params: Any, batch: dict[str, Array], key: Array) -> Array:
    pixels = to_vae_pixels(batch["images"])
    mean, deviation = moments(model, params, pixels)
    latents = mean + deviation * jax.random.normal(key, mean.shape)
    error = apply_decoder(model, params, latents) - pixels
    divergence = 0.5 * (mean**2 + deviation**2 - 1 - 2 * jnp.log(deviation)).sum((1, 2, 3))
    return jnp.abs(error).mean() + 2 * jnp.square(error).mean() + KL_WEIGHT * divergence.mean()

  return fit(loss, params, batch_of, steps, folder, learning_rate=2e-3)


def moments(
  model: Any, params: Any, pixels: Float[Array, "b H W 3"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
  """Mean and standard deviation of the latents."""
  mean, log_variance = apply_encoder(model, params, pixels)
  return mean, jnp.exp(0.5 * log_variance)


def encode(params: Any, images: UInt8[np.ndarray, "n 32 32 3"]) -> Float[np.ndarray, "n 4 4 8"]:
  """The mean latents of all images.

  The denoiser learns these and not samples: a deviation of a third of the signal, which the decoder has
  learned to bear, would only blur what is generated.
  """
  model = zoo_autoencoder()
  encoder = jax.jit(lambda params, images: moments(model, params, to_vae_pixels(images))[0])
  return np.concatenate([encoder(params, images[i : i + 500]) for i in range(0, len(images), 500)])


def to_vae_pixels(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Pixels from -1 to 1."""
  return images.astype(jnp.float32) / 127.5 - 1
