"""The autoencoder of Stable Diffusion in the original layout."""

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from genbench_jax.models.checkpoints import Weights, numbered, tensor_shape

VAE_ATTENTION = {
  "group_norm": "norm",
  "to_q": "q",
  "to_k": "k",
  "to_v": "v",
  "to_out.0": "proj_out",
}


def autoencoder(tensors: Weights, two_towers: bool) -> tuple[dict[str, Any], Weights]:
  """Return the autoencoder's configuration and the readers of its tensors under our names.

  Raises:
    RunError: a tensor is missing.
  """
  levels = numbered(tensors, r"encoder\.down\.(\d+)\.")
  widths = [
    tensor_shape(tensors, f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)
  ]
  layers = numbered(tensors, r"encoder\.down\.0\.block\.(\d+)\.")
  config = {
    "block_out_channels": widths,
    "layers_per_block": layers,
    "latent_channels": tensor_shape(tensors, "decoder.conv_in.weight")[1],
    "down_block_types": ["DownEncoderBlock2D"] * levels,
    "up_block_types": ["UpDecoderBlock2D"] * levels,
    "use_quant_conv": "quant_conv.weight" in tensors,
    "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    "scaling_factor": 0.13025 if two_towers else 0.18215,
    "force_upcast": two_towers,
  }
  weights: Weights = {}
  for name, read in tensors.items():
    if name.startswith(("loss.", "model_ema.")):
      continue  # used in training only
    ours = _our_vae_name(name, levels)
    squeezed = ".attentions." in ours and ours.endswith(".weight")
    weights[ours] = functools.partial(_matrix, read) if squeezed else read
  return config, weights


def _matrix(read: Callable[[], np.ndarray]) -> np.ndarray:
  """Read a projection of the original attention, a 1 x 1 convolution, as a matrix."""
  tensor = read()
  return tensor[..., 0, 0] if tensor.ndim == 4 else tensor


def _our_vae_name(name: str, levels: int) -> str:
  name = re.sub(r"encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets.", name)
  name = re.sub(
    r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", name
  )

  # The original decoder counts from the highest resolution.
  def turned(match: re.Match[str]) -> str:
    return f"decoder.up_blocks.{levels - 1 - int(match[1])}."

  name = re.sub(r"decoder\.up\.(\d+)\.", turned, name)
  name = re.sub(r"(up_blocks\.\d+)\.block\.", r"\1.resnets.", name)
  name = re.sub(r"(up_blocks\.\d+)\.upsample\.", r"\1.upsamplers.0.", name)
  name = name.replace("mid.block_1.", "mid_block.resnets.0.")
  name = name.replace("mid.block_2.", "mid_block.resnets.1.")
  for ours, theirs in VAE_ATTENTION.items():
    name = name.replace(f"mid.attn_1.{theirs}.", f"mid_block.attentions.0.{ours}.")
  return re.sub(r"(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name).replace(
    "nin_shortcut", "conv_shortcut"
  )
