"""The autoencoder between pixels and latents (`AutoencoderKL`): of Stable Diffusion 1, 2, XL, and of 16 channels.

Images are channels last; parameters carry PyTorch's names, as in `unet`.
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

EPS = 1e-6  # of every group norm
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
  """Sizes of an autoencoder.

  Attributes:
    in_channels, out_channels: of the images.
    latent_channels: of the latents.
    block_out_channels: channels of each level, from the largest images to the smallest.
    layers_per_block: resnet blocks of a level in the encoder; the decoder has one more.
    norm_num_groups: of the group norms.
    scaling_factor: latents of the diffusion model over those of the autoencoder.
    shift_factor: taken off the autoencoder's latents before they are scaled.
    latents_mean, latents_std: of each channel, in place of zero and one; empty where the file has none.
    force_upcast: whether it overflows in half precision; None where the file does not say.
    use_quant_conv, use_post_quant_conv: whether there is a 1 x 1 convolution behind the encoder, before the decoder.
    mid_block_add_attention: whether its middle attends.
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
    """Pixels a latent, along a side."""
    return 2 ** (len(self.block_out_channels) - 1)

  def from_diffusion(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Latents of the diffusion model at the autoencoder's own scale."""
    if self.latents_mean:
      scaled = latents * jnp.asarray(self.latents_std) / self.scaling_factor
      return scaled + jnp.asarray(self.latents_mean)
    return latents / self.scaling_factor + self.shift_factor

  def to_diffusion(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The inverse of `from_diffusion`."""
    if self.latents_mean:
      centered = latents - jnp.asarray(self.latents_mean)
      return centered * self.scaling_factor / jnp.asarray(self.latents_std)
    return (latents - self.shift_factor) * self.scaling_factor


def read_autoencoder_config(settings: Settings) -> AutoencoderConfig:
  """Read an autoencoder's configuration.

  Raises:
    RunError: a setting is out of its range, or asks for what our autoencoder does not do.
  """
  refuse_unknown(settings, FIXED, UNDERSTOOD)
  channels = widths(settings, "block_out_channels", (64,))
  for key, kind in (
    ("down_block_types", "DownEncoderBlock2D"),
    ("up_block_types", "UpDecoderBlock2D"),
  ):
    if list(settings.values.get(key) or [kind] * len(channels)) != [kind] * len(channels):
      raise settings.error(key, f"only {kind} is supported, one for each of {len(channels)} levels")
  groups = settings.integer("norm_num_groups", 32, high=1024)
  if any(width % groups for width in channels):
    raise settings.error("norm_num_groups", f"wanted a divisor of {channels}")
  latent_channels = settings.integer("latent_channels", 4, high=256)
  mean, std = (_by_channel(settings, f"latents_{x}", latent_channels) for x in ("mean", "std"))
  if bool(mean) != bool(std):
    raise settings.error("latents_mean", "latents_mean and latents_std come together")
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
    raise settings.error(key, f"wanted {channels} numbers")
  each = (Settings({key: value}, settings.path) for value in values)
  return tuple(item.number(key, low=-1e6) for item in each)


class MiddleAttention(nn.Module):
  """Attention of every pixel to all others, one head, beside a shortcut."""

  groups: int
  platform: str | None = None

  @nn.compact
  def __call__(self, hidden: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    batch, height, width, channels = hidden.shape
    rows = GroupNorm(self.groups, EPS, name="group_norm")(hidden)
    rows = rows.reshape(batch, height * width, channels)
    query, key, value = (
      Linear(channels, name=name)(rows)[:, :, None] for name in ("to_q", "to_k", "to_v")
    )
    mixed = attention(query, key, value, self.platform)[:, :, 0]
    return hidden + Linear(channels, name="to_out.0")(mixed).reshape(hidden.shape)


class _Half(nn.Module):
  """What encoder and decoder share."""

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
  """Images to the mean and log variance of latents."""

  @nn.compact
  def __call__(self, images: Float[Array, "b H W 3"]) -> Float[Array, "b h w m"]:
    config = self.config
    hidden = self._conv(config.block_out_channels[0], "conv_in")(images)
    for level, width in enumerate(config.block_out_channels):
      for layer in range(config.layers_per_block):
        hidden = self._resnet(width, f"down_blocks.{level}.resnets.{layer}")(hidden)
      if level < len(config.block_out_channels) - 1:
        name = f"down_blocks.{level}.downsamplers.0.conv"
        # Zeros below and to the right only: the original pads its images so.
        hidden = self._conv(width, name, strides=2, padding=((0, 1), (0, 1)))(hidden)
    return self._out(self._middle(hidden), 2 * config.latent_channels)


class Decoder(_Half):
  """Latents to images."""

  @nn.compact
  def __call__(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
    config = self.config
    hidden = self._middle(self._conv(config.block_out_channels[-1], "conv_in")(latents))
    for block, width in enumerate(reversed(config.block_out_channels)):
      for layer in range(config.layers_per_block + 1):
        hidden = self._resnet(width, f"up_blocks.{block}.resnets.{layer}")(hidden)
      if block < len(config.block_out_channels) - 1:
        hidden = self._conv(width, f"up_blocks.{block}.upsamplers.0.conv")(upsample(hidden))
    return self._out(hidden, config.out_channels)


class Autoencoder(nn.Module):
  """Encoder and decoder, with the 1 x 1 convolutions at the latents where the checkpoint has them.

  Attributes:
    config: sizes.
    platform: for the choice of kernels.
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
    """Mean and log variance of the latents of images from -1 to 1, at the autoencoder's own scale."""
    moments = self.encoder(images)
    moments = self.quant_conv(moments) if self.config.use_quant_conv else moments
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, jnp.clip(log_variance, -30, 20)

  def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
    """Images, about -1 to 1, of latents at the autoencoder's own scale."""
    latents = self.post_quant_conv(latents) if self.config.use_post_quant_conv else latents
    return self.decoder(latents)

  def __call__(self, images: Float[Array, "b H W 3"]) -> Float[Array, "b H W 3"]:
    """Images there and back; touches every parameter."""
    return self.decode(self.encode(images)[0])
