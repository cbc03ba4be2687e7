"""The U-Net of Stable Diffusion 1, 2 and XL and of few-step models distilled from them.

Follows diffusers' `UNet2DConditionModel`, but images are channels-last. Submodules have PyTorch's names
including dots, so that a parameter's path joined by "." is its tensor's name in a checkpoint:
`down_blocks.0.resnets.1` / `conv1` / `weight`.

Reference:
  Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022 (arXiv 2112.10752).
  Podell et al., "SDXL", 2023 (arXiv 2307.01952).
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from genbench_jax.models.convolution import Conv
from genbench_jax.models.layers import GroupNorm, Linear
from genbench_jax.models.unet_config import UNetConfig
from genbench_jax.models.unet_transformer import Transformer


class Conditions(NamedTuple):
  """Inputs of the U-Net other than latents and timestep, per row.

  Attributes:
    text: hidden states of the prompt.
    pooled: one feature of the whole prompt (SDXL).
    sizes: original height and width, crop top and left, target height and width, in pixels (SDXL).
    guidance: guidance scale, for distilled models that take it as an input (`time_cond_proj_dim`).
  """

  text: Float[Array, "b l d"]
  pooled: Float[Array, "b p"] | None = None
  sizes: Float[Array, "b 6"] | None = None
  guidance: Float[Array, "b"] | None = None


def sinusoids(
  position: Float[Array, "..."], width: int, cosine_first: bool, shift: float
) -> Float[Array, "... d"]:
  """Return sin and cos of position * 10000^(-i / (width / 2 - shift)).

  Always in float32: positions reach 1000, and bfloat16 cannot distinguish 999 from 1000.

  Args:
    position: timesteps or other scalars to embed.
    width: width of the result.
    cosine_first: whether the cosines come first (`flip_sin_to_cos`).
    shift: `freq_shift`; 1 in tensor2tensor's formula, 0 in Stable Diffusion's.
  """
  half = width // 2
  rates = jnp.exp(-math.log(10000) * jnp.arange(half, dtype=jnp.float32) / (half - shift))
  angles = position.astype(jnp.float32)[..., None] * rates
  parts = [jnp.cos(angles), jnp.sin(angles)] if cosine_first else [jnp.sin(angles), jnp.cos(angles)]
  return jnp.concatenate(parts, axis=-1)


class TimeEmbedding(nn.Module):
  """Two linear layers over sinusoids, after adding a projected condition. diffusers' `TimestepEmbedding`."""

  width: int

  @nn.compact
  def __call__(
    self, sinusoids: Float[Array, "b d"], condition: Float[Array, "b c"] | None = None
  ) -> Float[Array, "b w"]:
    if condition is not None:
      projection = Linear(sinusoids.shape[-1], use_bias=False, name="cond_proj")
      sinusoids = sinusoids + projection(condition)
    hidden = jax.nn.silu(Linear(self.width, name="linear_1")(sinusoids))
    return Linear(self.width, name="linear_2")(hidden)


class ResnetBlock(nn.Module):
  """Two convolutions with a residual connection. The time embedding is added between them.

  diffusers' `ResnetBlock2D`, also used by the autoencoder, without time.
  """

  features: int
  groups: int
  eps: float
  platform: str | None = None

  @nn.compact
  def __call__(
    self, hidden: Float[Array, "b h w c"], time: Float[Array, "b t"] | None = None
  ) -> Float[Array, "b h w d"]:
    inner = jax.nn.silu(GroupNorm(self.groups, self.eps, name="norm1")(hidden))
    inner = Conv(self.features, platform=self.platform, name="conv1")(inner)
    if time is not None:
      # [b, d] -> [b, 1, 1, d], the same for all pixels.
      inner += Linear(self.features, name="time_emb_proj")(jax.nn.silu(time))[:, None, None]
    inner = jax.nn.silu(GroupNorm(self.groups, self.eps, name="norm2")(inner))
    inner = Conv(self.features, platform=self.platform, name="conv2")(inner)
    if hidden.shape[-1] != self.features:
      shortcut = Conv(self.features, 1, padding=0, platform=self.platform, name="conv_shortcut")
      hidden = shortcut(hidden)
    return hidden + inner


def upsample(hidden: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
  """Double height and width by nearest-neighbor interpolation."""
  batch, height, width, channels = hidden.shape
  wide = jnp.broadcast_to(hidden[:, :, None, :, None], (batch, height, 2, width, 2, channels))
  return wide.reshape(batch, 2 * height, 2 * width, channels)


class UNet(nn.Module):
  """Predict noise, velocity or the clean sample from noisy latents, depending on the training.

  Attributes:
    config: architecture.
    platform: `cpu`, `gpu` or `tpu`, for the choice of kernels; JAX's default backend if None.
  """

  config: UNetConfig
  platform: str | None = None

  @nn.compact
  def __call__(
    self,
    latents: Float[Array, "b h w c"],
    timestep: Num[Array, "b"],
    conditions: Conditions,
  ) -> Float[Array, "b h w o"]:
    config = self.config
    time = self._time(timestep, conditions, latents.dtype)
    hidden = self._conv(config.block_out_channels[0], "conv_in")(latents)
    # For n levels with l blocks each, n (l + 1) states: the upward path takes each exactly once.
    skips = [hidden]
    for level in range(len(config.block_out_channels)):
      hidden, more = self._down(level, hidden, time, conditions.text)
      skips += more
    hidden = self._middle(hidden, time, conditions.text)
    for level in reversed(range(len(config.block_out_channels))):
      hidden = self._up(level, hidden, skips, time, conditions.text)
    norm = GroupNorm(config.norm_num_groups, config.norm_eps, name="conv_norm_out")
    return self._conv(config.out_channels, "conv_out")(jax.nn.silu(norm(hidden)))

  def _time(
    self, timestep: Num[Array, "b"], conditions: Conditions, dtype: Any
  ) -> Float[Array, "b t"]:
    """Embed the timestep and the other conditions that apply to the whole image."""
    config = self.config
    width = config.block_out_channels[0]
    kind = (config.flip_sin_to_cos, config.freq_shift)
    waves = sinusoids(jnp.broadcast_to(timestep, len(conditions.text)), width, *kind).astype(dtype)
    guidance = None
    if config.time_cond_proj_dim is not None:
      if conditions.guidance is None:
        raise ValueError("this U-Net needs the guidance scale as an input")
      # Distilled models embed w - 1 with factor 1000, sine first and shift 1 (arXiv 2310.04378).
      strength = 1000 * (conditions.guidance - 1)
      guidance = sinusoids(strength, config.time_cond_proj_dim, False, 1).astype(dtype)
    time = TimeEmbedding(4 * width, name="time_embedding")(waves, guidance)
    if not config.takes_sizes:
      return time
    if conditions.pooled is None or conditions.sizes is None:
      raise ValueError("this U-Net needs pooled texts and image sizes")
    sizes = sinusoids(conditions.sizes, config.addition_time_embed_dim, *kind)
    # [b, 6, e] -> [b, 6 e]. Cast after the sinusoids: sizes in pixels exceed the precision of bfloat16.
    sizes = sizes.reshape(len(sizes), -1).astype(dtype)
    added = jnp.concatenate([conditions.pooled.astype(dtype), sizes], axis=-1)
    return time + TimeEmbedding(4 * width, name="add_embedding")(added)

  def _down(
    self, level: int, hidden: Any, time: Any, text: Any
  ) -> tuple[Float[Array, "b h w c"], list[Float[Array, "b _ _ _"]]]:
    skips = []
    for layer in range(self.config.layers_per_block):
      hidden = self._resnet(level, f"down_blocks.{level}.resnets.{layer}")(hidden, time)
      if self.config.down_attends[level]:
        hidden = self._transformer(level, f"down_blocks.{level}.attentions.{layer}")(hidden, text)
      skips.append(hidden)
    if level < len(self.config.block_out_channels) - 1:
      name = f"down_blocks.{level}.downsamplers.0.conv"
      hidden = self._conv(hidden.shape[-1], name, strides=2)(hidden)
      skips.append(hidden)
    return hidden, skips

  def _middle(self, hidden: Any, time: Any, text: Any) -> Float[Array, "b h w c"]:
    last = len(self.config.block_out_channels) - 1
    hidden = self._resnet(last, "mid_block.resnets.0")(hidden, time)
    hidden = self._transformer(last, "mid_block.attentions.0")(hidden, text)
    return self._resnet(last, "mid_block.resnets.1")(hidden, time)

  def _up(
    self, level: int, hidden: Any, skips: list[Any], time: Any, text: Any
  ) -> Float[Array, "b h w c"]:
    """Apply one level of the upward path; skips are taken from the end of the list."""
    block = len(self.config.block_out_channels) - 1 - level
    # One block more than on the way down, for the state before the level's first block.
    for layer in range(self.config.layers_per_block + 1):
      hidden = jnp.concatenate([hidden, skips.pop()], axis=-1)
      hidden = self._resnet(level, f"up_blocks.{block}.resnets.{layer}")(hidden, time)
      if self.config.up_attends[block]:
        hidden = self._transformer(level, f"up_blocks.{block}.attentions.{layer}")(hidden, text)
    if level:
      name = f"up_blocks.{block}.upsamplers.0.conv"
      hidden = self._conv(hidden.shape[-1], name)(upsample(hidden))
    return hidden

  def _conv(self, features: int, name: str, strides: int = 1) -> Conv:
    return Conv(features, strides=strides, platform=self.platform, name=name)

  def _resnet(self, level: int, name: str) -> ResnetBlock:
    config = self.config
    sizes = (config.block_out_channels[level], config.norm_num_groups, config.norm_eps)
    return ResnetBlock(*sizes, self.platform, name=name)

  def _transformer(self, level: int, name: str) -> Transformer:
    config = self.config
    return Transformer(
      heads=config.heads[level],
      layers=config.transformer_layers[level],
      groups=config.norm_num_groups,
      linear_projection=config.use_linear_projection,
      platform=self.platform,
      name=name,
    )
