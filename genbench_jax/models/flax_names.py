"""Names and layouts of upstream's former Flax classes: hub folders still hold their `msgpack` files.

diffusers and transformers deleted the classes (0.40 and 5.0). Their kernels have JAX's layouts, [in, out] and [h, w, in, out],
and leaves of their own names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

Tensor: TypeAlias = Shaped[np.ndarray, "..."]

# The autoencoder's attention has one name in Flax, one in today's PyTorch files, and Flax's in the older ones.
VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}


def torch_name(path: Sequence[str]) -> str:
  """The PyTorch name of a leaf: `down_blocks_0/conv1/kernel` is `down_blocks.0.conv1.weight`."""
  *modules, leaf = path
  parts = [
    _torch_module(module, above) for module, above in zip(modules, ("", *modules), strict=False)
  ]
  return ".".join([*parts, _LEAVES.get(leaf, leaf)])


def _torch_module(module: str, above: str) -> str:
  if module in ("linear_1", "linear_2"):  # the time embedding's layers are called so in PyTorch too
    return module
  if above.startswith("attentions_") and module in VAE_ATTENTION:
    return VAE_ATTENTION[module]
  return re.sub(r"_(\d+)$", r".\1", module)


def torch_state(params: Mapping[str, Any]) -> dict[str, Tensor]:
  """A tree of upstream's Flax classes under PyTorch's names and in its layouts."""
  return {
    torch_name(path): _torch_layout(path[-1], np.asarray(leaf)) for path, leaf in paths(params)
  }


def _torch_layout(leaf: str, tensor: Tensor) -> Tensor:
  if leaf == "kernel":
    tensor = tensor.transpose(_TO_TORCH[tensor.ndim])
  return np.ascontiguousarray(tensor) if tensor.ndim else tensor


def paths(
  tree: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  """Path and leaf of everything in a tree."""
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from paths(value, (*above, str(name)))
    else:
      yield (*above, str(name)), value
