"""The U-Net of Stable Diffusion in the original layout: configuration from shapes, names of tensors."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.models.checkpoints import Weights, numbered, tensor_shape
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_networks import unet_shapes
from genbench_jax.models.weights import torch_shapes

# Our module names -> the original code's, inside a residual block and outside of the blocks.
RESNET = {
  "norm1": "in_layers.0",
  "conv1": "in_layers.2",
  "time_emb_proj": "emb_layers.1",
  "norm2": "out_layers.0",
  "conv2": "out_layers.3",
  "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
  "time_embedding.linear_1": "time_embed.0",
  "time_embedding.linear_2": "time_embed.2",
  "add_embedding.linear_1": "label_emb.0.0",
  "add_embedding.linear_2": "label_emb.0.2",
  "time_embedding.cond_proj": "time_embed.cond_proj",
  "conv_in": "input_blocks.0.0",
  "conv_norm_out": "out.0",
  "conv_out": "out.2",
}


def unet_config(path: Path, tensors: Weights, two_towers: bool) -> dict[str, Any]:
  """Derive the U-Net's configuration from the names and shapes of its tensors.

  Args:
    path: the checkpoint, for messages.
    tensors: tensors of the U-Net under the original names.
    two_towers: whether the model has two text encoders (SDXL).

  Raises:
    RunError: a tensor is missing, or the levels differ in their numbers of blocks.
  """
  entry = tensor_shape(tensors, "input_blocks.0.0.weight")
  widths, depths, layers = [entry[0]], [0], [0]
  for index in range(1, numbered(tensors, r"input_blocks\.(\d+)\.")):
    if f"input_blocks.{index}.0.op.weight" in tensors:
      widths, depths, layers = [*widths, 0], [*depths, 0], [*layers, 0]
      continue
    widths[-1] = tensor_shape(tensors, f"input_blocks.{index}.0.out_layers.3.weight")[0]
    layers[-1] += 1
    depths[-1] = _depth(tensors, f"input_blocks.{index}.1.")
  if len(set(layers)) != 1:
    raise RunError(
      f"{path}: levels of the U-Net with different numbers of blocks are not supported."
    )
  middle = _depth(tensors, "middle_block.1.")
  text = tensor_shape(tensors, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]
  linear = len(tensor_shape(tensors, "middle_block.1.proj_in.weight")) == 2
  config: dict[str, Any] = {
    "in_channels": entry[1],
    "out_channels": tensor_shape(tensors, "out.2.weight")[0],
    "block_out_channels": widths,
    "layers_per_block": layers[0],
    "cross_attention_dim": text,
    # Stable Diffusion 1 has 8 heads at every level; later models have heads of 64 channels.
    "attention_head_dim": [width // 64 for width in widths] if linear else 8,
    "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), middle],
    "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
    "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)],
    "use_linear_projection": linear,
    "sample_size": 128 if two_towers else 64,
  }
  if "label_emb.0.0.weight" in tensors:
    width = tensor_shape(tensors, "label_emb.0.0.weight")[1]
    config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    config["projection_class_embeddings_input_dim"] = width
  return config


def _depth(tensors: Iterable[str], prefix: str) -> int:
  """Count the transformer blocks under a prefix."""
  return numbered(tensors, re.escape(prefix) + r"transformer_blocks\.(\d+)\.")


def unet_names_of(config: Mapping[str, Any]) -> dict[str, str]:
  """Return original name -> our name for every tensor of the U-Net that a configuration describes."""
  shapes = unet_shapes(Settings(config, Path("unet")))
  return unet_names(torch_shapes(shapes))


def unet_names(ours: Collection[str]) -> dict[str, str]:
  """Return original name -> our name, for our names of a U-Net's tensors."""
  layers = numbered(ours, r"down_blocks\.\d+\.resnets\.(\d+)\.")
  attending = {match[1] for name in ours if (match := re.match(r"(up_blocks\.\d+)\.att", name))}
  return {_original(name, layers, attending): name for name in ours}


def _original(name: str, layers: int, attending: Collection[str]) -> str:
  """Return the original code's name of one of our tensors.

  The original numbers all blocks consecutively. On the way down, each level has its layers and then a
  downsampling block. On the way up, it has one layer more, and the last block also upsamples.
  """
  for ours, theirs in UNET_ENDS.items():
    if name.startswith(f"{ours}."):
      return theirs + name.removeprefix(ours)
  path = name.split(".")
  if path[0] == "mid_block":
    index, kind, rest = int(path[2]), path[1], path[3:]
    block = f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    return f"{block}.{_inside(kind, rest)}"
  level, kind, index, rest = int(path[1]), path[2], int(path[3]), path[4:]
  if path[0] == "down_blocks":
    if kind == "downsamplers":
      return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest[-1]}"
    block = f"input_blocks.{1 + level * (layers + 1) + index}"
  else:
    last = kind == "upsamplers"
    block = f"output_blocks.{level * (layers + 1) + (layers if last else index)}"
    if last:
      return f"{block}.{2 if f'up_blocks.{level}' in attending else 1}.conv.{rest[-1]}"
  return f"{block}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: list[str]) -> str:
  return ".".join(rest if kind == "attentions" else [RESNET[rest[0]], *rest[1:]])
