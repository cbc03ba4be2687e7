"""The zoo's autoencoder: 32 x 32 pixels to 4 x 4 latents with 8 channels."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from genbench_jax.models.autoencoder import Autoencoder, read_autoencoder_config
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import apply_decoder, apply_encoder
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
  """Return the network, without parameters."""
  return Autoencoder(read_autoencoder_config(Settings(CONFIG, Path("the zoo's autoencoder"))))


def train_vae(data: TrainingSet, folder: Path, steps: int, seed: int = 0) -> Any:
  """Train the model and return its averaged parameters.

  Args:
    data: images.
    folder: folder for checkpoints, from which a stopped training resumes.
    steps: number of steps, with 32 images each.
    seed: seed of the weights and of sampling.
  """
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
    # KL divergence of N(mean, deviation^2) from N(0, 1), summed over the latents of an image.
    divergence = 0.5 * (mean**2 + deviation**2 - 1 - 2 * jnp.log(deviation)).sum((1, 2, 3))
    return jnp.abs(error).mean() + 2 * jnp.square(error).mean() + KL_WEIGHT * divergence.mean()

  return fit(loss, params, batch_of, steps, folder, learning_rate=2e-3)


def moments(
  model: Any, params: Any, pixels: Float[Array, "b H W 3"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
  """Return mean and standard deviation of the latents.

  Args:
    model: the autoencoder.
    params: its parameters.
    pixels: images from -1 to 1.
  """
  mean, log_variance = apply_encoder(model, params, pixels)
  return mean, jnp.exp(0.5 * log_variance)


def encode(params: Any, images: UInt8[np.ndarray, "n 32 32 3"]) -> Float[np.ndarray, "n 4 4 8"]:
  """Return the mean latents of all images.

  The denoiser is trained on means rather than samples. The sampling deviation is a third of the signal; the
  decoder tolerates it, but it would blur generated images.
  """
  model = zoo_autoencoder()
  encoder = jax.jit(lambda params, images: moments(model, params, to_vae_pixels(images))[0])
  return np.concatenate([encoder(params, images[i : i + 500]) for i in range(0, len(images), 500)])


def to_vae_pixels(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Scale images to -1 .. 1."""
  return images.astype(jnp.float32) / 127.5 - 1
