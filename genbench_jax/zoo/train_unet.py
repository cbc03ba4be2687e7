"""The zoo's denoiser: a U-Net for 4 x 4 latents with v-prediction, conditioned on the frozen CLIP's texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import apply_unet
from genbench_jax.models.unet import Conditions, UNet
from genbench_jax.models.unet_config import read_unet_config
from genbench_jax.zoo.data import TrainingSet, batches
from genbench_jax.zoo.training import fit

CONFIG: dict[str, Any] = {
  "sample_size": 4, "in_channels": 8, "out_channels": 8, "layers_per_block": 1,
  "block_out_channels": (64, 128), "cross_attention_dim": 64, "attention_head_dim": 4,
  "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
  "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


def signal_levels() -> Float[np.ndarray, "1000"]:
  """Return alpha_bar of Stable Diffusion's scaled-linear schedule."""
  betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
  return np.cumprod(1 - betas).astype(np.float32)


def zoo_unet() -> UNet:
  """Return the network, without parameters."""
  return UNet(read_unet_config(Settings(CONFIG, Path("the zoo's UNet"))))


def example_inputs() -> tuple[Any, ...]:
  """Return latents, times and texts with the network's input shapes, for `init`."""
  side, channels, width = (
    CONFIG[key] for key in ("sample_size", "in_channels", "cross_attention_dim")
  )
  text = jnp.zeros((1, 1, width))
  return jnp.zeros((1, side, side, channels)), jnp.zeros(1), Conditions(text)


def train_unet(
  data: TrainingSet,
  latents: Float[np.ndarray, "n 4 4 8"],
  encode_text: Callable[[Int[Array, "b l"]], Array],
  tokenizer: Any,
  folder: Path,
  steps: int,
  seed: int = 0,
) -> Any:
  """Train the model on latents of unit variance and return its averaged parameters.

  Args:
    data: images and the sources of their captions.
    latents: latents of the images, in the same order.
    encode_text: token ids -> hidden states, see `train_clip.text_encoder`.
    tokenizer: the zoo's tokenizer.
    folder: folder for checkpoints, from which a stopped training resumes.
    steps: number of steps, with 64 images each.
    seed: seed of the weights and of sampling.
  """
  model = zoo_unet()
  params = jax.jit(model.init)(jax.random.key(seed), *example_inputs())["params"]
  levels = jnp.asarray(signal_levels())
  draw = batches(data, tokenizer, size=64, seed=seed + 1, empty_share=0.1)

  def batch_of(step: int) -> dict[str, Any]:
    batch = draw(step)
    return {"latents": latents[batch["index"]], "text": encode_text(jnp.asarray(batch["tokens"]))}

  def loss(params: Any, batch: dict[str, Array], key: Array) -> Array:
    time_key, noise_key = jax.random.split(key)
    clean = batch["latents"]
    # Stratified times, one per 1/b of the schedule: the same expectation with less variance.
    strata = jnp.arange(len(clean)) + jax.random.uniform(time_key, (len(clean),))
    times = (strata * (1000 / len(clean))).astype(jnp.int32)
    noise = jax.random.normal(noise_key, clean.shape)
    signal = jnp.sqrt(levels[times])[:, None, None, None]
    sigma = jnp.sqrt(1 - levels[times])[:, None, None, None]
    noisy = signal * clean + sigma * noise
    # v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x (Salimans and Ho, 2022, arXiv 2202.00512).
    velocity = apply_unet(model, params, noisy, times, Conditions(batch["text"]))
    return jnp.square(velocity - (signal * noise - sigma * clean)).mean()

  return fit(loss, params, batch_of, steps, folder, learning_rate=1e-3, average_decay=0.9995)
