"""Read SigLIP weights in big_vision's format, an .npz, under the names of transformers' checkpoints.

big_vision stores attention heads as a separate axis and, for some models, stacks all layers of a tower
in one array. Each tensor is converted to PyTorch's layout, which the loader expects.
"""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from genbench_jax.errors import RunError
from genbench_jax.runtime.npz import read_npz

Tensor = Shaped[np.ndarray, "..."]
_MOST_BYTES = 1 << 35

# big_vision's module -> transformers' module, inside a layer.
_IN_LAYER = {
  "LayerNorm_0": "layer_norm1",
  "LayerNorm_1": "layer_norm2",
  "MlpBlock_0/Dense_0": "mlp.fc1",
  "MlpBlock_0/Dense_1": "mlp.fc2",
  "MultiHeadDotProductAttention_0/query": "self_attn.q_proj",
  "MultiHeadDotProductAttention_0/key": "self_attn.k_proj",
  "MultiHeadDotProductAttention_0/value": "self_attn.v_proj",
  "MultiHeadDotProductAttention_0/out": "self_attn.out_proj",
}
# The same for modules outside the layers.
_MODULES = {
  "img/embedding": "vision_model.embeddings.patch_embedding",
  "img/Transformer/encoder_norm": "vision_model.post_layernorm",
  "img/MAPHead_0/LayerNorm_0": "vision_model.head.layernorm",
  "img/MAPHead_0/MlpBlock_0/Dense_0": "vision_model.head.mlp.fc1",
  "img/MAPHead_0/MlpBlock_0/Dense_1": "vision_model.head.mlp.fc2",
  "img/MAPHead_0/MultiHeadDotProductAttention_0/out": "vision_model.head.attention.out_proj",
  "txt/Encoder_0/encoder_norm": "text_model.final_layer_norm",
  "txt/head": "text_model.head",
}
_POOLING = "img/MAPHead_0/MultiHeadDotProductAttention_0"
_LAYER = re.compile(
  r"(img/Transformer|txt/Encoder_0)/encoderblock(?:_(\d+)|/(?:(\d+)/)?)/?(.+)/(kernel|bias|scale)"
)


def read_big_vision(path: Path) -> dict[str, Callable[[], Tensor]]:
  """Return a map from transformers' tensor names to functions that return the tensor.

  Raises:
    RunError: the file is damaged or contains an unknown tensor.
  """
  try:
    found = read_npz(path, _MOST_BYTES)
    arrays = {name.removeprefix("params/"): array for name, array in found.items()}
  except (OSError, ValueError, TypeError) as error:
    raise RunError(f"{path} is not a readable .npz in big_vision's format ({error}).") from error
  try:
    renamed = dict(_renamed(arrays))
  except (KeyError, ValueError) as error:
    raise RunError(f"{path} contains no SigLIP model: {error}.") from error
  return {name: functools.partial(_same, tensor) for name, tensor in renamed.items()}


def _same(tensor: Tensor) -> Tensor:
  return tensor


def _renamed(arrays: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
  """Yield every tensor with its name in transformers."""
  pooling = {}
  for name, array in arrays.items():
    if name.startswith(_POOLING) and "/out/" not in name:
      pooling[name.removeprefix(f"{_POOLING}/")] = array
    elif match := _LAYER.fullmatch(name):
      yield from _of_layers(match, array)
    else:
      yield _outside(name, array)
  if pooling:
    yield from _pooled(pooling)


def _of_layers(match: re.Match[str], array: Tensor) -> Iterator[tuple[str, Tensor]]:
  """Yield one layer's tensor, or those of all layers if they are stacked along the first axis."""
  tower = "vision_model" if match[1].startswith("img") else "text_model"
  number = match[2] or match[3]
  layers = [(number, array)] if number else list(enumerate(array))
  for index, part in layers:
    module = f"{tower}.encoder.layers.{index}.{_IN_LAYER[match[4]]}"
    yield f"{module}.{_leaf(match[5])}", _to_torch(match[4], match[5], part)


def _leaf(name: str) -> str:
  return "bias" if name == "bias" else "weight"


def _to_torch(module: str, leaf: str, array: Tensor) -> Tensor:
  """Convert a tensor to PyTorch's layout: heads joined, kernels [out, in] or [out, in, h, w]."""
  attention = "MultiHeadDotProductAttention_0" in module
  if leaf == "bias":
    return array.reshape(-1)
  if leaf != "kernel":
    return array
  if attention:  # [in, heads, width] for query, key and value; [heads, width, out] for the output
    width = array.shape[-1] if module.endswith("/out") else array.shape[0]
    array = array.reshape(-1, width) if module.endswith("/out") else array.reshape(width, -1)
  return array.transpose((1, 0) if array.ndim == 2 else (3, 2, 0, 1))


def _outside(name: str, array: Tensor) -> tuple[str, Tensor]:
  """Convert a tensor that is neither in a layer nor a projection of the pooling attention."""
  single = {
    "t": ("logit_scale", (1,)),
    "b": ("logit_bias", (1,)),
    "img/pos_embedding": ("vision_model.embeddings.position_embedding.weight", None),
    "txt/pos_embedding": ("text_model.embeddings.position_embedding.weight", None),
    "txt/Embed_0/embedding": ("text_model.embeddings.token_embedding.weight", None),
    "img/MAPHead_0/probe": ("vision_model.head.probe", (1, 1, -1)),
  }
  if name in single:
    wanted, shape = single[name]
    return wanted, array.reshape(shape or (-1, array.shape[-1]))
  module, _, leaf = name.rpartition("/")
  return f"{_MODULES[module]}.{_leaf(leaf)}", _to_torch(module, leaf, array)


def _pooled(arrays: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
  """Yield the pooling attention's input projections, which PyTorch stores as one tensor."""
  parts = ("query", "key", "value")
  kernels = [_to_torch(_POOLING, "kernel", arrays[f"{part}/kernel"]) for part in parts]
  biases = [arrays[f"{part}/bias"].reshape(-1) for part in parts]
  yield "vision_model.head.attention.in_proj_weight", np.concatenate(kernels)
  yield "vision_model.head.attention.in_proj_bias", np.concatenate(biases)
