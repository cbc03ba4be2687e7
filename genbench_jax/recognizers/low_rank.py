"""Low-rank updates of linear layers: W x + (alpha / rank) B A x.

Reference:
  Hu et al., "LoRA: low-rank adaptation of large language models", 2022 (arXiv 2106.09685).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from genbench_jax.models import weights
from genbench_jax.models.layers import LowRank
from genbench_jax.models.weights import Params

Adapters = dict[str, dict[str, Any]]


def initial_adapters(params: Mapping[str, Any], pattern: str, rank: int, seed: int = 0) -> Adapters:
  """Create a pair of matrices per matching layer: A random, B zero, so that nothing changes yet.

  Args:
    params: parameters of the network; linear weights are [in, out].
    pattern: regular expression for layer names, such as `vision_model.*q_proj$`.
    rank: rank of the updates.
    seed: of A, which is uniform within 1 / sqrt(in): PyTorch's `kaiming_uniform_(a=sqrt(5))`, as in
      the code of both papers.
  """
  generator = np.random.default_rng(seed)
  found: Adapters = {}
  for name, leaf in weights.leaves(params):
    module, _, kind = name.rpartition(".")
    if kind == "weight" and np.ndim(leaf) == 2 and re.search(pattern, module):
      inputs, outputs = leaf.shape
      # kaiming_uniform with a = sqrt(5) has the bound sqrt(6 / ((1 + a^2) in)) = 1 / sqrt(in).
      bound = math.sqrt(1 / inputs)
      found[module] = {
        "a": generator.uniform(-bound, bound, (inputs, rank)).astype(np.float32),
        "b": np.zeros((rank, outputs), np.float32),
      }
  return found


def merged(params: Mapping[str, Any], adapters: Adapters, scale: float) -> Any:
  """Return the network's parameters with the updates merged in.

  Args:
    params: parameters of the network.
    adapters: updates by joined layer name.
    scale: alpha / rank.
  """

  def with_addition(name: str, leaf: Any) -> Any:
    module, _, kind = name.rpartition(".")
    if kind != "weight" or module not in adapters:
      return leaf
    pair = adapters[module]
    addition = scale * jnp.matmul(pair["a"], pair["b"], precision="highest")
    # Add in float32; a bfloat16 sum would lose the small updates.
    return (jnp.asarray(leaf, jnp.float32) + addition).astype(leaf.dtype)

  return weights.tree_of(params, with_addition)


def adapted(
  params: Mapping[str, Any],
  adapters: Adapters,
  scale: float,
  dropout: float = 0.0,
  key: Array | None = None,
) -> Params:
  """Return the network's parameters with the updates beside the weights, for `layers.Linear` to add.

  Args:
    params: parameters of the network.
    adapters: updates by joined layer name.
    scale: alpha / rank.
    dropout: fraction of the inputs of A that is dropped; the others are scaled up.
    key: key of the dropout; None disables it.
  """
  updates = {}
  # A stable index per layer, so that each one draws its own dropout mask from the key.
  for index, (name, pair) in enumerate(sorted(adapters.items())):
    own = jax.random.fold_in(key, index) if dropout and key is not None else None
    updates[name] = LowRank(jnp.asarray(pair["a"]), scale * jnp.asarray(pair["b"]), dropout, own)
  return _with_updates(params, updates)


def _with_updates(
  tree: Mapping[str, Any], updates: Mapping[str, LowRank], above: str = ""
) -> Params:
  """Return the tree with each update in its layer. Names may contain dots, as in `weights.tree_of`."""
  own = updates.get(above.removesuffix("."))
  leaves = {
    name: _with_updates(value, updates, f"{above}{name}.") if isinstance(value, Mapping) else value
    for name, value in tree.items()
  }
  return leaves if own is None else leaves | {"low_rank": own}
