"""Stable Diffusion checkpoints: the Flax modules, their parameters and what goes with them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, upstream
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.models.tokenizer import load_tokenizer

DOWNLOADS = (
  "model_index.json",
  "scheduler/scheduler_config.json",
  "tokenizer/*.json",
  "tokenizer/merges.txt",
  *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
  *(f"{part}/diffusion_pytorch_model*safetensors*" for part in ("unet", "vae")),
  *(f"{part}/diffusion_flax_model.msgpack" for part in ("unet", "vae")),
  "text_encoder/model*safetensors*",
  "text_encoder/flax_model.msgpack",
)

# What the Flax modules do, for settings that PyTorch's know and they don't. A checkpoint that asks for else is refused.
FIXED_UNET = {
  "act_fn": "silu",
  "norm_num_groups": 32,
  "norm_eps": 1e-5,
  "mid_block_type": "UNetMidBlock2DCrossAttn",
  "center_input_sample": False,
  "downsample_padding": 1,
  "mid_block_scale_factor": 1,
  "dual_cross_attention": False,
  "class_embed_type": None,
  "addition_embed_type": None,
  "num_attention_heads": None,
  "encoder_hid_dim": None,
  "resnet_time_scale_shift": "default",
  "time_embedding_type": "positional",
  "conv_in_kernel": 3,
  "conv_out_kernel": 3,
  "attention_type": "default",
}
FIXED_VAE = {
  "act_fn": "silu",
  "use_quant_conv": True,
  "use_post_quant_conv": True,
  "mid_block_add_attention": True,
  "shift_factor": None,
  "latents_mean": None,
}


@dataclasses.dataclass(frozen=True, eq=False)
class StableDiffusion:
  """A latent text-to-image diffusion model of the Stable Diffusion 1 and 2 family.

  Attributes:
    unet, vae, text_encoder: Flax modules.
    params: `{"unet": ..., "vae": ..., "text_encoder": ...}` on the host, in the dtype of the computation.
    tokenizer: a `CLIPTokenizer`.
    max_tokens: length of a tokenized prompt.
    schedule: of the noise, from the checkpoint's scheduler configuration.
    latent_channels: channels of the latents.
    downsampling_factor: pixels a latent, along a side.
    scaling_factor: latents of the UNet over those of the autoencoder.
    image_size: side in pixels that the model was trained for.
    fingerprint: identity of the checkpoint.
  """

  unet: Any
  vae: Any
  text_encoder: Any
  params: checkpoints.Params
  tokenizer: Any
  max_tokens: int
  schedule: NoiseSchedule
  latent_channels: int
  downsampling_factor: int
  scaling_factor: float
  image_size: int
  fingerprint: str

  @property
  def dtype(self) -> Any:
    """The dtype of the computation."""
    return self.unet.dtype


def load_stable_diffusion(
  checkpoint: str, revision: str | None = None, dtype: Any = None
) -> StableDiffusion:
  """Loads a Stable Diffusion 1.x or 2.x from a folder or hub id in the Hugging Face layout.

  Args:
    checkpoint: local folder, or hub id such as `stabilityai/stable-diffusion-2-1-base`.
    revision: commit, tag or branch of a hub id.
    dtype: of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(str(checkpoint), revision, DOWNLOADS)
  dtype = compute_dtype() if dtype is None else dtype
  unet, vae, text_encoder = _modules(folder, dtype)
  shapes = parameter_shapes(folder)
  params = {name: checkpoints.load_params(folder / name, shapes[name], dtype) for name in shapes}
  tokenizer = load_tokenizer(folder / "tokenizer")
  factor = 2 ** (len(vae.block_out_channels) - 1)
  config = checkpoints.read_json(folder / "scheduler" / "scheduler_config.json")
  return StableDiffusion(
    unet=unet,
    vae=vae,
    text_encoder=text_encoder,
    params=params,
    tokenizer=tokenizer,
    max_tokens=min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings),
    schedule=NoiseSchedule.from_config(config),
    latent_channels=vae.latent_channels,
    downsampling_factor=factor,
    scaling_factor=vae.scaling_factor,
    image_size=unet.sample_size * factor,
    fingerprint=checkpoints.fingerprint(folder),
  )


def _modules(folder: Path, dtype: Any) -> tuple[Any, Any, Any]:
  """The UNet, the autoencoder and the text tower that the configurations in `folder` describe."""
  upstream.silence()
  upstream.silence("diffusers")
  from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
  from transformers import CLIPTextConfig, FlaxCLIPTextModel

  unet = _module(FlaxUNet2DConditionModel, folder / "unet" / "config.json", FIXED_UNET, dtype)
  vae = _module(FlaxAutoencoderKL, folder / "vae" / "config.json", FIXED_VAE, dtype)
  text_config = checkpoints.read_json(folder / "text_encoder" / "config.json")
  text = FlaxCLIPTextModel.module_class(CLIPTextConfig.from_dict(text_config), dtype=dtype)
  if unet.in_channels != vae.latent_channels:
    raise RunError(
      f"{folder}: the UNet takes {unet.in_channels} channels and the autoencoder has {vae.latent_channels}:"
      " inpainting and depth models are not supported."
    )
  return unet, vae, text


def _module(module_class: Any, path: Path, fixed: Mapping[str, Any], dtype: Any) -> Any:
  config = checkpoints.read_json(path)
  for name, value in fixed.items():
    if config.get(name, value) != value:
      raise RunError(f"{path}: {name} is {config[name]!r}; only {value!r} is supported.")
  known = {field.name for field in dataclasses.fields(module_class)} - {"parent", "name", "dtype"}
  settings = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in config.items()
    if name in known and value is not None
  }
  return module_class(**settings, dtype=dtype)


def parameter_shapes(folder: Path) -> dict[str, checkpoints.Params]:
  """The parameter trees of the model whose configurations stand in `folder`, as shapes."""
  unet, vae, text_encoder = _modules(folder, jnp.float32)
  length = text_encoder.config.max_position_embeddings
  tokens = jax.ShapeDtypeStruct((1, length), np.int32)
  text = jax.ShapeDtypeStruct((1, length, unet.cross_attention_dim), np.float32)
  latents = _image(unet.sample_size, unet.in_channels)
  time = jax.ShapeDtypeStruct((1,), np.int32)
  # The smallest image that the autoencoder's strides divide: its parameters don't depend on the size.
  pixels = _image(2 ** len(vae.block_out_channels), vae.in_channels)
  return {
    "unet": checkpoints.shapes_of(unet.init, latents, time, text),
    "vae": checkpoints.shapes_of(vae.init, pixels),
    "text_encoder": checkpoints.shapes_of(text_encoder.init, tokens, tokens, tokens),
  }


def _image(side: int, channels: int) -> jax.ShapeDtypeStruct:
  """An image as upstream's modules take it: channels first."""
  return jax.ShapeDtypeStruct((1, channels, side, side), np.float32)
