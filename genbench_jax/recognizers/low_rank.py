"""Low-rank updates of linear layers: W x + (alpha / rank) B A x.

Reference:
  Hu et al., "LoRA: low-rank adaptation of large language models", 2022 (arXiv 2106.09685).
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models import weights

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
    if kind in ("weight", "kernel") and np.ndim(leaf) == 2 and re.search(pattern, module):
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
    if kind not in ("weight", "kernel") or module not in adapters:
      return leaf
    pair = adapters[module]
    addition = scale * jnp.matmul(pair["a"], pair["b"], precision="highest")
    # Add in float32; a bfloat16 sum would lose the small updates.
    return (jnp.asarray(leaf, jnp.float32) + addition).astype(leaf.dtype)

  return weights.tree_of(params, with_addition)


def adapted(
  adapters: Adapters, scale: float, dropout: float = 0.0, key: Array | None = None
) -> Any:
  """Return a context in which linear layers add their low-rank update; the weights are not changed.

  Args:
    adapters: updates by joined layer name.
    scale: alpha / rank.
    dropout: fraction of the inputs of A that is dropped; the others are scaled up.
    key: key of the dropout; None disables it.
  """
  # A stable index per layer, so that each one draws its own dropout mask from the key.
  places = {name: index for index, name in enumerate(sorted(adapters))}

  def intercept(
    call: Callable[..., Array], args: Any, kwargs: Any, context: nn.module.InterceptorContext
  ) -> Any:
    found = call(*args, **kwargs)
    name = ".".join(context.module.path)
    if context.method_name != "__call__" or name not in adapters:
      return found
    x, pair = args[0], adapters[name]
    if dropout and key is not None:
      x = dropped(jax.random.fold_in(key, places[name]), x, dropout)
    dtype = found.dtype
    return found + scale * (x.astype(dtype) @ pair["a"].astype(dtype)) @ pair["b"].astype(dtype)

  return nn.intercept_methods(intercept)


def dropped(key: Array, x: Float[Array, "*b d"], share: float) -> Float[Array, "*b d"]:
  """Apply dropout.

  Args:
    key: random key.
    x: values.
    share: share of the values that become zero.
  """
  # Scaling by 1 / (1 - share) keeps the expectation.
  kept = jax.random.bernoulli(key, 1 - share, x.shape)
  return jnp.where(kept, x / (1 - share), 0).astype(x.dtype)
