"""Load Stable Diffusion 1, 2 and XL: networks, parameters, tokenizers and noise schedule."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench_jax.errors import RunError, unknown_name
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import StableDiffusion, TextTower
from genbench_jax.models.diffusion_networks import build_networks, network_shapes
from genbench_jax.models.diffusion_parts import (
  DOWNLOADS,
  CheckpointParts,
  folder_parts,
  with_autoencoder,
)
from genbench_jax.models.diffusion_settings import IMPLEMENTATIONS, OURS
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.lora import with_loras
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.models.single_file import single_file_parts
from genbench_jax.models.tokenizer import load_tokenizer

# XLA's CPU backend uses an array in place, without a copy, if its address is a multiple of this (in bytes).
ALIGNMENT = 64


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
    schedule=NoiseSchedule.from_config(scheduler, mend=not two_towers),
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


def aligned(array: np.ndarray) -> np.ndarray:
  """Move an array to an address that XLA's CPU backend uses without a copy, so that weights exist once."""
  if array.ctypes.data % ALIGNMENT == 0:
    return array
  raw = np.empty(array.nbytes + ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % ALIGNMENT
  moved = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
  moved[...] = array
  return moved
