"""Load Stable Diffusion 1, 2 and XL: networks, parameters, tokenizers and noise schedule."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num

from genbench_jax.errors import RunError, unknown_name
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.autoencoder import Autoencoder, read_autoencoder_config
from genbench_jax.models.clip_network import ClipText, TextSizes, end_positions
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_parts import (
  DOWNLOADS,
  TEXT_PARTS,
  CheckpointParts,
  folder_configs,
  folder_parts,
  with_autoencoder,
)
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.models.tokenizer import load_tokenizer
from genbench_jax.models.unet import Conditions, UNet
from genbench_jax.models.unet_config import NUM_SIZES, UNetConfig, read_unet_config

OURS = "ours"
IMPLEMENTATIONS = (OURS, "diffusers")
# XLA's CPU backend uses an array in place, without a copy, if its address is a multiple of this (in bytes).
ALIGNMENT = 64


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


def load_stable_diffusion(
  checkpoint: str | Path,
  revision: str | None = None,
  dtype: Any = None,
  implementation: str = OURS,
  loras: Sequence[tuple[str | Path, float]] = (),
  autoencoder: str | Path = "",
) -> StableDiffusion:
  """Load a Stable Diffusion 1, 2 or XL, or a model distilled from one.

  Args:
    checkpoint: local folder or hub id in the Hugging Face layout, such as
      `stabilityai/stable-diffusion-xl-base-1.0`, or a `.safetensors` file in the original layout.
    revision: commit, tag or branch of a hub id.
    dtype: dtype of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.
    implementation: `ours`, or `diffusers` for the stock Flax classes of diffusers below 0.40.
    loras: (LoRA file, weight) pairs to fuse into the weights.
    autoencoder: folder or hub id of an autoencoder to use instead of the checkpoint's.

  Raises:
    UsageError: there is no such checkpoint or implementation.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  if implementation not in IMPLEMENTATIONS:
    raise unknown_name("implementation", implementation, IMPLEMENTATIONS)
  parts = open_parts(checkpoint, revision, loras, autoencoder)
  model = build(parts, compute_dtype() if dtype is None else dtype)
  return model if implementation == OURS else _with_stock_networks(model, parts)


def open_parts(
  checkpoint: str | Path,
  revision: str | None = None,
  loras: Sequence[tuple[str | Path, float]] = (),
  autoencoder: str | Path = "",
) -> CheckpointParts:
  """Locate what `load_stable_diffusion` loads, without reading weights.

  The result's fingerprint covers everything.

  Args:
    checkpoint: folder, hub id or file.
    revision: commit, tag or branch of a hub id.
    loras: (LoRA file, weight) pairs.
    autoencoder: folder or hub id of another autoencoder.

  Raises:
    UsageError: there is no such checkpoint, file or autoencoder.
    RunError: one of them is incomplete, corrupt or made for another model.
  """
  from genbench_jax.models.lora import with_loras
  from genbench_jax.models.single_file import single_file_parts

  if checkpoints.is_single_file(checkpoint):
    parts = single_file_parts(Path(checkpoint).expanduser())
  else:
    parts = folder_parts(checkpoints.locate(str(checkpoint), revision, DOWNLOADS))
  if autoencoder:
    parts = with_autoencoder(parts, str(autoencoder))
  if "vae" not in parts.configs:
    raise RunError(f"{parts.where} contains no autoencoder; name one.")
  return with_loras(parts, loras)


def build(parts: CheckpointParts, dtype: Any) -> StableDiffusion:
  """Build the model from a checkpoint's parts and read its parameters.

  Raises:
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  model = describe(parts.configs, dtype)
  dtypes = {"vae": model.vae_dtype}
  params = {
    name: weights.load(
      parts.weights[name], tree, parts.where / name, dtypes.get(name, dtype), place=aligned
    )
    for name, tree in model.params.items()
  }
  towers = tuple(
    _with_tokenizer(tower, folder, pad)
    for tower, folder, pad in zip(model.towers, parts.tokenizers, parts.pads, strict=True)
  )
  zeros = model.zeros_for_empty and parts.pipeline.get("force_zeros_for_empty_prompt", True)
  return dataclasses.replace(
    model,
    params=params,
    towers=towers,
    zeros_for_empty=bool(zeros),
    fingerprint=parts.fingerprint,
  )


def describe(configs: Mapping[str, Settings], dtype: Any) -> StableDiffusion:
  """Build a model from configurations, with shapes as parameters and without tokenizers.

  Args:
    configs: configurations of `unet`, `vae`, the text encoders and, if known, the `scheduler`.
    dtype: dtype of the computation.

  Raises:
    RunError: the configurations are of another architecture, or inconsistent.
  """
  unet, vae, networks = build_networks(configs, dtype)
  two_towers = len(networks) == 2
  # SDXL's autoencoder overflows in float16 (`force_upcast`), and bfloat16 visibly loses detail.
  vae_dtype = jnp.float32 if two_towers and vae.config.force_upcast is not False else dtype
  scheduler = configs["scheduler"].values if "scheduler" in configs else {}
  params = {
    part: jax.tree.map(
      lambda leaf, of=vae_dtype if part == "vae" else dtype: jax.ShapeDtypeStruct(leaf.shape, of),
      tree,
    )
    for part, tree in network_shapes(unet, vae, networks).items()
  }
  return StableDiffusion(
    unet=unet,
    vae=vae,
    towers=tuple(TextTower(network, None, network.sizes.positions) for network in networks),
    params=params,
    schedule=NoiseSchedule.from_config(scheduler, mend_offset=not two_towers),
    dtype=dtype,
    vae_dtype=vae_dtype,
    zeros_for_empty=two_towers,
    fingerprint="",
  )


def _with_stock_networks(model: StableDiffusion, parts: CheckpointParts) -> StableDiffusion:
  from genbench_jax.models.stock_diffusion import stock_networks, stock_params

  unet: Any  # stock networks have the same methods as ours
  vae: Any
  unet, vae = stock_networks(parts.configs, model.dtype, model.vae_dtype)
  params = stock_params(unet, vae, model.params)
  return dataclasses.replace(model, unet=unet, vae=vae, params=params)


def _with_tokenizer(tower: TextTower, folder: Path, pad: str | None) -> TextTower:
  tokenizer = load_tokenizer(folder)
  if pad is not None:
    tokenizer.pad_token = pad
  length = min(tokenizer.model_max_length, tower.max_tokens)
  return dataclasses.replace(tower, tokenizer=tokenizer, max_tokens=length)


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
  conditions = _described(unet.config, 1, 1, np.float32)
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


def described_conditions(model: StableDiffusion, rows: int) -> Conditions:
  """Return the shapes of the U-Net's conditions for a number of rows."""
  return _described(model.unet.config, rows, model.max_tokens, model.dtype)


def _described(config: UNetConfig, rows: int, length: int, dtype: Any) -> Conditions:
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


def parameter_shapes(folder: Path) -> dict[str, checkpoints.Params]:
  """Return the shapes of the parameters of the model whose configurations are in `folder`."""
  return network_shapes(*build_networks(folder_configs(folder), jnp.float32))


def aligned(array: np.ndarray) -> np.ndarray:
  """Move an array to an address that XLA's CPU backend uses without a copy, so that weights exist once."""
  if array.ctypes.data % ALIGNMENT == 0:
    return array
  raw = np.empty(array.nbytes + ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % ALIGNMENT
  moved = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
  moved[...] = array
  return moved


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


# ---- networks as functions ----------------------------------------------------------------------


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
