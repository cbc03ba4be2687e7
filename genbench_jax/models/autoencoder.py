"""The autoencoder between pixels and latents, `AutoencoderKL` of diffusers.

Covers Stable Diffusion 1, 2 and XL (4 latent channels) and checkpoints with 16 latent channels. Images
are channels-last; parameters keep PyTorch's names, as in `unet`.

Reference:
  Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022
  (arXiv 2112.10752).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models.attention import attention
from genbench_jax.models.configuration import Settings
from genbench_jax.models.convolution import Conv
from genbench_jax.models.diffusion_settings import refuse_unknown, widths
from genbench_jax.models.layers import GroupNorm, Linear
from genbench_jax.models.unet import ResnetBlock, upsample

EPS = 1e-6  # of every group norm: diffusers hard-codes it for the VAE (the U-Net uses 1e-5)
# Settings with one supported value, and settings that are read or have no influence here.
FIXED: dict[str, tuple[Any, ...]] = {"act_fn": ("silu", "swish")}
UNDERSTOOD = [
  "in_channels",
  "out_channels",
  "latent_channels",
  "block_out_channels",
  "layers_per_block",
  "norm_num_groups",
  "sample_size",
  "scaling_factor",
  "shift_factor",
  "latents_mean",
  "latents_std",
  "force_upcast",
  "use_quant_conv",
  "use_post_quant_conv",
  "mid_block_add_attention",
  "down_block_types",
  "up_block_types",
]


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
  """Architecture and latent scaling of an autoencoder.

  Attributes:
    in_channels, out_channels: image channels.
    latent_channels: channels of the latents.
    block_out_channels: channels per level, from the highest resolution to the lowest.
    layers_per_block: resnet blocks per encoder level; the decoder has one more.
    norm_num_groups: groups of every group norm.
    scaling_factor: factor from the autoencoder's latents to the diffusion model's.
    shift_factor: subtracted from the autoencoder's latents before scaling.
    latents_mean, latents_std: per-channel statistics that replace the shift; empty if not configured.
    force_upcast: whether half precision overflows; None if the file does not say.
    use_quant_conv, use_post_quant_conv: whether a 1 x 1 convolution follows the encoder or precedes
      the decoder.
    mid_block_add_attention: whether the middle block has attention.
  """

  in_channels: int = 3
  out_channels: int = 3
  latent_channels: int = 4
  block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
  layers_per_block: int = 2
  norm_num_groups: int = 32
  scaling_factor: float = 0.18215
  shift_factor: float = 0.0
  latents_mean: tuple[float, ...] = ()
  latents_std: tuple[float, ...] = ()
  force_upcast: bool | None = None
  use_quant_conv: bool = True
  use_post_quant_conv: bool = True
  mid_block_add_attention: bool = True

  @property
  def downsampling_factor(self) -> int:
    """Image pixels per latent pixel along one side."""
    return 2 ** (len(self.block_out_channels) - 1)

  def from_diffusion(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Convert the diffusion model's latents to the autoencoder's own scale."""
    if self.latents_mean:
      scaled = latents * jnp.asarray(self.latents_std) / self.scaling_factor
      return scaled + jnp.asarray(self.latents_mean)
    return latents / self.scaling_factor + self.shift_factor

  def to_diffusion(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Invert `from_diffusion`."""
    if self.latents_mean:
      centered = latents - jnp.asarray(self.latents_mean)
      return centered * self.scaling_factor / jnp.asarray(self.latents_std)
    return (latents - self.shift_factor) * self.scaling_factor


def read_autoencoder_config(settings: Settings) -> AutoencoderConfig:
  """Read the configuration of an autoencoder.

  Raises:
    RunError: a setting is out of range or not supported.
  """
  refuse_unknown(settings, FIXED, UNDERSTOOD)
  channels = widths(settings, "block_out_channels", (64,))
  for key, kind in (
    ("down_block_types", "DownEncoderBlock2D"),
    ("up_block_types", "UpDecoderBlock2D"),
  ):
    if list(settings.values.get(key) or [kind] * len(channels)) != [kind] * len(channels):
      raise settings.error(
        key, f"only {kind} is supported, once for each of the {len(channels)} levels"
      )
  groups = settings.integer("norm_num_groups", 32, high=1024)
  if any(width % groups for width in channels):
    raise settings.error("norm_num_groups", f"it must divide each of {channels}")
  latent_channels = settings.integer("latent_channels", 4, high=256)
  mean, std = (_by_channel(settings, f"latents_{x}", latent_channels) for x in ("mean", "std"))
  if bool(mean) != bool(std):
    raise settings.error(
      "latents_mean", "latents_mean and latents_std must both be given or both be absent"
    )
  says = settings.values.get("force_upcast") is not None
  return AutoencoderConfig(
    in_channels=settings.integer("in_channels", 3, high=16),
    out_channels=settings.integer("out_channels", 3, high=16),
    latent_channels=latent_channels,
    block_out_channels=channels,
    layers_per_block=settings.integer("layers_per_block", 1, high=16),
    norm_num_groups=groups,
    scaling_factor=settings.number("scaling_factor", 0.18215, low=1e-6),
    shift_factor=settings.number("shift_factor", 0, low=-1e6),
    latents_mean=mean,
    latents_std=std,
    force_upcast=settings.flag("force_upcast", True) if says else None,
    use_quant_conv=settings.flag("use_quant_conv", True),
    use_post_quant_conv=settings.flag("use_post_quant_conv", True),
    mid_block_add_attention=settings.flag("mid_block_add_attention", True),
  )


def _by_channel(settings: Settings, key: str, channels: int) -> tuple[float, ...]:
  values = settings.values.get(key)
  if values is None:
    return ()
  if not isinstance(values, list | tuple) or len(values) != channels:
    raise settings.error(key, f"expected {channels} numbers")
  each = (Settings({key: value}, settings.path) for value in values)
  return tuple(item.number(key, low=-1e6) for item in each)


class MiddleAttention(nn.Module):
  """Single-head self-attention over all pixels, with a residual connection.

  diffusers' `Attention` with one head as wide as the channels.
  """

  groups: int
  platform: str | None = None

  @nn.compact
  def __call__(self, hidden: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    batch, height, width, channels = hidden.shape
    rows = GroupNorm(self.groups, EPS, name="group_norm")(hidden)
    # [b, h, w, c] -> [b, h w, c], then [b, h w, 1, c] for a single head.
    rows = rows.reshape(batch, height * width, channels)
    query, key, value = (
      Linear(channels, name=name)(rows)[:, :, None] for name in ("to_q", "to_k", "to_v")
    )
    mixed = attention(query, key, value, self.platform)[:, :, 0]
    return hidden + Linear(channels, name="to_out.0")(mixed).reshape(hidden.shape)


class _Half(nn.Module):
  """Layers that the encoder and the decoder share."""

  config: AutoencoderConfig
  platform: str | None = None

  def _resnet(self, width: int, name: str) -> ResnetBlock:
    return ResnetBlock(width, self.config.norm_num_groups, EPS, self.platform, name=name)

  def _conv(self, features: int, name: str, **options: Any) -> Conv:
    return Conv(features, platform=self.platform, name=name, **options)

  def _middle(self, hidden: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    width, groups = hidden.shape[-1], self.config.norm_num_groups
    hidden = self._resnet(width, "mid_block.resnets.0")(hidden)
    if self.config.mid_block_add_attention:
      attend = MiddleAttention(groups, self.platform, name="mid_block.attentions.0")
      hidden = attend(hidden)
    return self._resnet(width, "mid_block.resnets.1")(hidden)

  def _out(self, hidden: Float[Array, "b h w c"], features: int) -> Float[Array, "b h w d"]:
    hidden = GroupNorm(self.config.norm_num_groups, EPS, name="conv_norm_out")(hidden)
    return self._conv(features, "conv_out")(jax.nn.silu(hidden))


class Encoder(_Half):
  """Map images to the mean and log variance of their latents, stacked along the channels."""

  @nn.compact
  def __call__(self, images: Float[Array, "b H W 3"]) -> Float[Array, "b h w m"]:
    config = self.config
    hidden = self._conv(config.block_out_channels[0], "conv_in")(images)
    for level, width in enumerate(config.block_out_channels):
      for layer in range(config.layers_per_block):
        hidden = self._resnet(width, f"down_blocks.{level}.resnets.{layer}")(hidden)
      if level < len(config.block_out_channels) - 1:
        name = f"down_blocks.{level}.downsamplers.0.conv"
        # diffusers pads its downsampling only at the bottom and right, not symmetrically.
        hidden = self._conv(width, name, strides=2, padding=((0, 1), (0, 1)))(hidden)
    return self._out(self._middle(hidden), 2 * config.latent_channels)


class Decoder(_Half):
  """Map latents to images."""

  @nn.compact
  def __call__(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
    config = self.config
    # The decoder starts with the middle block: latents have the lowest resolution.
    hidden = self._middle(self._conv(config.block_out_channels[-1], "conv_in")(latents))
    for block, width in enumerate(reversed(config.block_out_channels)):
      # As in diffusers, the decoder has one block more per level than the encoder.
      for layer in range(config.layers_per_block + 1):
        hidden = self._resnet(width, f"up_blocks.{block}.resnets.{layer}")(hidden)
      if block < len(config.block_out_channels) - 1:
        hidden = self._conv(width, f"up_blocks.{block}.upsamplers.0.conv")(upsample(hidden))
    return self._out(hidden, config.out_channels)


class Autoencoder(nn.Module):
  """Encoder and decoder, with the 1 x 1 convolutions at the latents if the checkpoint has them.

  Attributes:
    config: architecture.
    platform: `cpu`, `gpu` or `tpu`, for the choice of kernels; JAX's default backend if None.
  """

  config: AutoencoderConfig
  platform: str | None = None

  def setup(self) -> None:
    config = self.config
    self.encoder = Encoder(config, self.platform)
    self.decoder = Decoder(config, self.platform)
    if config.use_quant_conv:
      self.quant_conv = Conv(2 * config.latent_channels, 1, padding=0, platform=self.platform)
    if config.use_post_quant_conv:
      self.post_quant_conv = Conv(config.latent_channels, 1, padding=0, platform=self.platform)

  def encode(
    self, images: Float[Array, "b H W 3"]
  ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Return mean and log variance of the latents, at the autoencoder's own scale.

    `images` range from -1 to 1.
    """
    moments = self.encoder(images)
    moments = self.quant_conv(moments) if self.config.use_quant_conv else moments
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    # diffusers' bounds; the variance of untrained or overflowing weights would otherwise be infinite.
    return mean, jnp.clip(log_variance, -30, 20)

  def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
    """Return images, about -1 to 1, from latents at the autoencoder's own scale."""
    latents = self.post_quant_conv(latents) if self.config.use_post_quant_conv else latents
    return self.decoder(latents)

  def __call__(self, images: Float[Array, "b H W 3"]) -> Float[Array, "b H W 3"]:
    """Encode and decode, so that `init` creates every parameter."""
    return self.decode(self.encode(images)[0])
