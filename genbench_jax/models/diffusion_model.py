"""A latent diffusion model, and its networks as functions of parameters and arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Num

from genbench_jax.models import checkpoints
from genbench_jax.models.autoencoder import Autoencoder
from genbench_jax.models.clip_network import ClipText, end_positions
from genbench_jax.models.diffusion_networks import condition_shapes
from genbench_jax.models.diffusion_parts import TEXT_PARTS
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.models.unet import Conditions, UNet


@dataclasses.dataclass(frozen=True, eq=False)
class TextTower:
  """A text encoder of a diffusion model.

  Attributes:
    network: its layers.
    tokenizer: a `CLIPTokenizer`.
    max_tokens: length of a tokenized prompt.
  """

  network: ClipText
  tokenizer: Any
  max_tokens: int

  @property
  def width(self) -> int:
    """Width of the hidden states and of the token embeddings."""
    return self.network.sizes.encoder.width

  @property
  def vocabulary(self) -> int:
    """Number of token ids."""
    return self.network.sizes.vocabulary


class Texts(NamedTuple):
  """Encoded prompts.

  Attributes:
    states: hidden states; with two encoders, concatenated along the width.
    pooled: one feature per prompt; None for a single encoder.
  """

  states: Float[Array, "b l d"]
  pooled: Float[Array, "b p"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class StableDiffusion:
  """A latent text-to-image diffusion model of the Stable Diffusion family.

  Attributes:
    unet, vae: the networks, ours or diffusers' stock classes behind the same methods.
    towers: text encoders: one, or two for SDXL.
    params: parameters of `unet`, `vae`, `text_encoder` and, for SDXL, `text_encoder_2`, on the host, in the
      dtypes of the computation.
    schedule: noise schedule, from the checkpoint's scheduler configuration.
    dtype: dtype of the U-Net's and text encoders' computation.
    vae_dtype: dtype of the autoencoder's computation; float32 if it would overflow.
    zeros_for_empty: whether an empty negative prompt is encoded as zeros (SDXL).
    fingerprint: digest of the checkpoint.
  """

  unet: UNet
  vae: Autoencoder
  towers: tuple[TextTower, ...]
  params: checkpoints.Params
  schedule: NoiseSchedule
  dtype: Any
  vae_dtype: Any
  zeros_for_empty: bool
  fingerprint: str

  @property
  def tokenizer(self) -> Any:
    """Tokenizer of the first text encoder."""
    return self.towers[0].tokenizer

  @property
  def max_tokens(self) -> int:
    """Length of a tokenized prompt."""
    return min(tower.max_tokens for tower in self.towers)

  @property
  def latent_channels(self) -> int:
    """Channels of the latents."""
    return self.vae.config.latent_channels

  @property
  def downsampling_factor(self) -> int:
    """Image pixels per latent pixel along one side."""
    return self.vae.config.downsampling_factor

  @property
  def image_size(self) -> int:
    """Side in pixels of the training images."""
    return self.unet.config.sample_size * self.downsampling_factor

  @property
  def takes_guidance(self) -> bool:
    """Whether the guidance scale is an input of the U-Net, so that one evaluation per step is enough."""
    return self.unet.config.time_cond_proj_dim is not None


def described_conditions(model: StableDiffusion, rows: int) -> Conditions:
  """Return the shapes of the U-Net's conditions for a number of rows."""
  return condition_shapes(model.unet.config, rows, model.max_tokens, model.dtype)


def conditions_of(
  model: StableDiffusion,
  texts: Texts,
  shape: tuple[int, ...],
  guidance_scale: Float[Array, ""] | float = 1.0,
) -> Conditions:
  """Return the U-Net's conditions for images with latents [b, h, w, c], one text per row.

  Args:
    model: the diffusion model.
    texts: encoded prompts.
    shape: shape of the latents.
    guidance_scale: used only by models that take it as an input.
  """
  rows, sizes, scales = len(texts.states), None, None
  if model.unet.config.takes_sizes:
    height, width = (side * model.downsampling_factor for side in shape[1:3])
    # (original height, width, crop top, left, target height, width): uncropped, at the target size, as
    # recommended by SDXL's authors (arXiv 2307.01952).
    sizes = jnp.asarray([height, width, 0, 0, height, width], jnp.float32)
    sizes = jnp.broadcast_to(sizes, (rows, len(sizes)))
  if model.takes_guidance:
    scales = jnp.broadcast_to(jnp.asarray(guidance_scale, jnp.float32), rows)
  return Conditions(texts.states, texts.pooled, sizes, scales)


def apply_unet(
  unet: UNet,
  params: checkpoints.Params,
  latents: Float[Array, "b h w c"],
  timestep: Num[Array, ""] | Num[Array, "b"],
  conditions: Conditions,
  platform: str | None = None,
) -> Float[Array, "b h w c"]:
  """Return the U-Net's output: noise, velocity or clean latents, depending on its training.

  Args:
    unet: the network.
    params: its parameters.
    latents: noisy latents, in the model's dtype.
    timestep: one for all rows, or one per row.
    conditions: conditions of each row.
    platform: `cpu`, `gpu` or `tpu`, where the computation runs; JAX's default backend if None.
  """
  times = jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), len(latents))
  output = unet.clone(platform=platform).apply({"params": params}, latents, times, conditions)
  return jnp.asarray(output)


def apply_decoder(
  vae: Autoencoder,
  params: checkpoints.Params,
  latents: Float[Array, "b h w c"],
  platform: str | None = None,
) -> Float[Array, "b H W 3"]:
  """Decode latents at the autoencoder's own scale to images, about -1 to 1.

  Args:
    vae: the network.
    params: its parameters.
    latents: latents at the autoencoder's own scale.
    platform: see `apply_unet`.
  """
  decoder = vae.clone(platform=platform)
  return jnp.asarray(decoder.apply({"params": params}, latents, method="decode"))


def apply_encoder(
  vae: Autoencoder,
  params: checkpoints.Params,
  images: Float[Array, "b H W 3"],
  platform: str | None = None,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
  """Encode images from -1 to 1 to mean and log variance of latents at the autoencoder's own scale.

  Args:
    vae: the network.
    params: its parameters.
    images: images, from -1 to 1.
    platform: see `apply_unet`.
  """
  encoder = vae.clone(platform=platform)
  mean, log_variance = encoder.apply({"params": params}, images, method="encode")
  return jnp.asarray(mean), jnp.asarray(log_variance)


def apply_text_encoders(
  towers: Sequence[TextTower],
  params: checkpoints.Params,
  tokens: Sequence[Int32[Array, "b l"]],
  learned: Sequence[Float[Array, "n _"] | None] | None = None,
) -> Texts:
  """Encode token ids to the hidden states that the U-Net expects.

  Args:
    towers: the text encoders.
    params: parameters of `text_encoder` and, for SDXL, `text_encoder_2`.
    tokens: token ids for each encoder; an id >= its vocabulary's size v refers to row id - v of `learned`.
    learned: embeddings of new tokens, for each encoder.
  """
  learned = [None] * len(towers) if learned is None else learned
  given = list(zip(TEXT_PARTS, towers, tokens, learned, strict=False))
  states: list[Any] = [
    tower.network.apply({"params": params[part]}, ids, rows) for part, tower, ids, rows in given
  ]
  if len(towers) == 1:
    return Texts(states[0].last, None)
  # SDXL concatenates both encoders' penultimate layers, without the final norm, and pools the second.
  joined = jnp.concatenate([state.hidden[-2] for state in states], axis=-1)
  part, tower, ids, _ = given[-1]
  ends = end_positions(ids, tower.tokenizer.eos_token_id)
  pool = {"params": params[part]}, states[-1], ends
  return Texts(joined, jnp.asarray(tower.network.apply(*pool, method="pooled")))
