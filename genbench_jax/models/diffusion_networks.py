"""Networks of Stable Diffusion 1, 2 and XL, and the shapes of their parameters, from configurations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.autoencoder import Autoencoder, read_autoencoder_config
from genbench_jax.models.clip_network import ClipText, TextSizes
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_parts import TEXT_PARTS, folder_configs
from genbench_jax.models.unet import Conditions, UNet
from genbench_jax.models.unet_config import NUM_SIZES, UNetConfig, read_unet_config


def build_networks(
  configs: Mapping[str, Settings], dtype: Any
) -> tuple[UNet, Autoencoder, tuple[ClipText, ...]]:
  """Create the U-Net, the autoencoder and the text encoders that configurations describe.

  Raises:
    RunError: the configurations are of another architecture, or inconsistent.
  """
  unet = UNet(read_unet_config(configs["unet"]))
  vae = Autoencoder(read_autoencoder_config(configs["vae"]))
  if not unet.config.in_channels == unet.config.out_channels == vae.config.latent_channels:
    raise RunError(
      f"{configs['unet'].path}: the U-Net takes {unet.config.in_channels} channels and the autoencoder has"
      f" {vae.config.latent_channels}: inpainting and depth models are not supported."
    )
  towers = [_text_network(configs[part], part, dtype) for part in TEXT_PARTS if part in configs]
  _check_widths(configs["unet"], unet, towers)
  return unet, vae, tuple(towers)


def _text_network(settings: Settings, part: str, dtype: Any) -> ClipText:
  # SDXL's second encoder is a `CLIPTextModelWithProjection`. Of the others, only hidden states are used.
  projection = settings.integer("projection_dim", 512) if part == "text_encoder_2" else 0
  return ClipText(TextSizes.read(settings), projection, dtype)


def _check_widths(settings: Settings, unet: UNet, towers: Sequence[ClipText]) -> None:
  width = sum(tower.sizes.encoder.width for tower in towers)
  if unet.config.cross_attention_dim != width:
    raise settings.error("cross_attention_dim", f"the text encoders' states have width {width}")
  pooled = towers[-1].projection if len(towers) == 2 else 0
  if unet.config.pooled_width != pooled:
    raise settings.error(
      "projection_class_embeddings_input_dim", f"the text encoders' pooled text has width {pooled}"
    )


def unet_shapes(settings: Settings) -> checkpoints.Params:
  """Return the shapes of the parameters of the U-Net that a configuration describes."""
  return _unet_shapes(UNet(read_unet_config(settings)))


def _unet_shapes(unet: UNet) -> checkpoints.Params:
  # Parameters do not depend on the image size: use the smallest side that all strides divide.
  side = 2 ** len(unet.config.block_out_channels)
  latents = _floats(1, side, side, unet.config.in_channels)
  conditions = condition_shapes(unet.config, 1, 1, np.float32)
  return weights.parameter_shapes(unet.init, latents, _floats(1), conditions)


def network_shapes(
  unet: UNet, vae: Autoencoder, towers: Sequence[ClipText]
) -> dict[str, checkpoints.Params]:
  """Return the shapes of the parameters of all parts.

  Args:
    unet: the U-Net.
    vae: the autoencoder.
    towers: one or two text encoders.
  """
  pixels = 2 ** len(vae.config.block_out_channels)
  images = _floats(1, pixels, pixels, vae.config.in_channels)
  shapes = {"unet": _unet_shapes(unet), "vae": weights.parameter_shapes(vae.init, images)}
  for part, tower in zip(TEXT_PARTS, towers, strict=False):
    shapes[part] = weights.parameter_shapes(tower.init, jax.ShapeDtypeStruct((1, 1), np.int32))
  return shapes


def parameter_shapes(folder: Path) -> dict[str, checkpoints.Params]:
  """Return the shapes of the parameters of the model whose configurations are in `folder`."""
  return network_shapes(*build_networks(folder_configs(folder), jnp.float32))


def condition_shapes(config: UNetConfig, rows: int, length: int, dtype: Any) -> Conditions:
  """Return the shapes of the conditions that a U-Net takes.

  Args:
    config: configuration of the U-Net.
    rows: number of images.
    length: tokens per prompt.
    dtype: dtype of the text.
  """

  def shape(*sizes: int, of: Any = dtype) -> Any:
    return jax.ShapeDtypeStruct((rows, *sizes), of)

  return Conditions(
    text=shape(length, config.cross_attention_dim),
    pooled=shape(config.pooled_width) if config.takes_sizes else None,
    sizes=shape(NUM_SIZES, of=np.float32) if config.takes_sizes else None,
    guidance=None if config.time_cond_proj_dim is None else shape(of=np.float32),
  )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, np.float32)
