"""Names and layouts of upstream's former Flax classes, whose `msgpack` files hub folders still contain.

diffusers 0.40 and transformers 5.0 deleted the classes. Their kernels have JAX's layouts, [in, out] and
[h, w, in, out], but other names than PyTorch's tensors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

Tensor: TypeAlias = Shaped[np.ndarray, "..."]

# The VAE's attention: Flax and old PyTorch files use the names on the left, new files those on the right.
VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}


def torch_name(path: Sequence[str]) -> str:
  """Return the PyTorch name of a Flax leaf: `down_blocks_0/conv1/kernel` is `down_blocks.0.conv1.weight`."""
  *modules, leaf = path
  parts = [
    _torch_module(module, above) for module, above in zip(modules, ("", *modules), strict=False)
  ]
  return ".".join([*parts, _LEAVES.get(leaf, leaf)])


def _torch_module(module: str, above: str) -> str:
  if module in ("linear_1", "linear_2"):  # the time embedding: PyTorch also uses an underscore here
    return module
  if above.startswith("attentions_") and module in VAE_ATTENTION:
    return VAE_ATTENTION[module]
  return re.sub(r"_(\d+)$", r".\1", module)


def torch_state(params: Mapping[str, Any]) -> dict[str, Tensor]:
  """Convert the parameters of an upstream Flax class to PyTorch's names and layouts."""
  return {
    torch_name(path): _torch_layout(path[-1], np.asarray(leaf)) for path, leaf in paths(params)
  }


def _torch_layout(leaf: str, tensor: Tensor) -> Tensor:
  if leaf == "kernel":
    tensor = tensor.transpose(TO_TORCH[tensor.ndim])
  return np.ascontiguousarray(tensor) if tensor.ndim else tensor


def paths(
  tree: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  """Yield path and value of every leaf of a tree."""
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from paths(value, (*above, str(name)))
    else:
      yield (*above, str(name)), value
