"""Layers shared by all networks, with the names and semantics of PyTorch's.

Each layer has a `weight` and, where PyTorch has one, a `bias`. Networks name their submodules by the
dotted names of the published checkpoint (`name="encoder.layers.0"`). A parameter's path joined by dots
is then the name of its PyTorch tensor, a rule that `weights.py` uses for loading. Layouts are JAX's:
linear weights are [in, out], convolution kernels [height, width, in, out].

`dtype` is the dtype of the computation; None uses the input's. Norms always compute in float32, because
bfloat16 keeps only 8 bits of a mean over thousands of values.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genbench_jax.errors import RunError
from genbench_jax.models.weights import is_table

Dtype: TypeAlias = Any
# PyTorch's `padding`: one number for all sides, one per axis, or (before, after) per axis.
Padding: TypeAlias = int | Sequence[int] | Sequence[tuple[int, int]]


def compute_dtype() -> Dtype:
  """Return bfloat16 on accelerators and float32 on CPU, which emulates bfloat16."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


class LowRank(NamedTuple):
  """A low-rank update of a linear layer: x W + dropout(x) down up. Its place in the tree is beside `weight`.

  Attributes:
    down: first factor.
    up: second factor, with the update's scale.
    dropout: fraction of the inputs that is dropped; the others are scaled up.
    key: key of the dropout; None disables it.

  Reference:
    Hu et al., "LoRA: low-rank adaptation of large language models", 2022 (arXiv 2106.09685).
  """

  down: Float[Array, "i r"]
  up: Float[Array, "r o"]
  dropout: float = 0.0
  key: Array | None = None

  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    if self.key is not None:
      kept = jax.random.bernoulli(self.key, 1 - self.dropout, x.shape)
      # Scaling by 1 / (1 - dropout) keeps the expectation.
      x = jnp.where(kept, x / (1 - self.dropout), 0).astype(x.dtype)
    return (x @ self.down.astype(x.dtype)) @ self.up.astype(x.dtype)


class Linear(nn.Module):
  """x W + b over the last axis. PyTorch's `Linear`. Adds the `low_rank` update that its parameters may have.

  Attributes:
    features: width of the output.
    use_bias: whether to add b.
    dtype: dtype of the computation.
  """

  features: int
  use_bias: bool = True
  dtype: Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    dtype = self.dtype or x.dtype
    weight = self.param("weight", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
    y = jnp.dot(x.astype(dtype), jnp.asarray(weight, dtype))
    update: LowRank | None = self.get_variable("params", "low_rank")
    if update is not None:
      y = y + update(x.astype(dtype))
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return y + jnp.asarray(bias, dtype)


class Conv(nn.Module):
  """A 2-D convolution of channels-last images. PyTorch's `Conv2d`.

  Attributes:
    features: output channels.
    kernel_size: side of the kernel, or (height, width).
    strides: stride along both axes, or one per axis.
    padding: zero padding.
    groups: number of channel groups that are convolved separately.
    use_bias: whether to add a bias.
    dtype: dtype of the computation.
  """

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: Padding = 0
  groups: int = 1
  use_bias: bool = True
  dtype: Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b u v o"]:
    dtype = self.dtype or x.dtype
    shape = (*pair(self.kernel_size), x.shape[-1] // self.groups, self.features)
    weight = self.param("weight", nn.initializers.lecun_normal(), shape)
    y = convolve(
      x.astype(dtype), jnp.asarray(weight, dtype), self.strides, self.padding, self.groups
    )
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return y + jnp.asarray(bias, dtype)


class LayerNorm(nn.Module):
  """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis. PyTorch's `LayerNorm`.

  Attributes:
    eps: added to the variance.
    use_bias: whether to add a bias.
  """

  eps: float = 1e-5
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    weight = self.param("weight", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:]) if self.use_bias else 0.0
    return layer_norm(x, weight, bias, self.eps)


class RmsNorm(nn.Module):
  """x / sqrt(mean(x^2) + eps) * weight over the last axis: no mean is subtracted, no bias added.

  Reference:
    Zhang and Sennrich, "Root mean square layer normalization", 2019 (arXiv 1910.07467).
  """

  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    weight = self.param("weight", nn.initializers.ones, x.shape[-1:])
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
    return (normed * jnp.asarray(weight, jnp.float32)).astype(x.dtype)


class GroupNorm(nn.Module):
  """Like `LayerNorm`, but over all positions and the channels of a group. PyTorch's `GroupNorm`.

  Attributes:
    groups: number of channel groups.
    eps: added to the variance.
  """

  groups: int
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
    weight = self.param("weight", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    return group_norm(x, weight, bias, self.groups, self.eps)


class Embed(nn.Module):
  """Look up rows of a table [num, features] by index. PyTorch's `Embedding`.

  Attributes:
    num: number of rows.
    features: width of a row.
    dtype: dtype of the result; None uses the table's.

  Raises:
    ValueError: `weights.is_table` does not know its name, so that its table would be loaded transposed.
  """

  num: int
  features: int
  dtype: Dtype = None

  def setup(self) -> None:
    if not is_table(str(self.name)):
      raise ValueError(f"{self.name!r} is not known as a table; add it to weights.TABLES.")
    self.weight = self.param("weight", nn.initializers.normal(0.02), (self.num, self.features))

  def __call__(self, index: Int[Array, "*b"]) -> Float[Array, "*b d"]:
    return jnp.asarray(self.table)[index]

  @property
  def table(self) -> Float[Array, "n d"]:
    """All embeddings, in `dtype`."""
    return jnp.asarray(self.weight, self.dtype)


# ---- functional forms ---------------------------------------------------------------------------


def pair(value: int | Sequence[int]) -> tuple[int, int]:
  """Return `value` as (height, width)."""
  height, width = (value, value) if isinstance(value, int) else value
  return height, width


def convolve(
  x: Float[Array, "b h w i"],
  weight: Float[Array, "kh kw j o"],
  strides: int | Sequence[int] = 1,
  padding: Padding = 0,
  groups: int = 1,
) -> Float[Array, "b u v o"]:
  """Apply a 2-D convolution without bias; for the arguments see `Conv`.

  Args:
    x: images.
    weight: kernel; j input channels of each group.
    strides: step along both axes.
    padding: zeros around the image, or the name of a scheme.
    groups: number of groups of channels.
  """
  sides = (padding, padding) if isinstance(padding, int) else padding
  around = [(side, side) if isinstance(side, int) else (side[0], side[1]) for side in sides]
  return jax.lax.conv_general_dilated(
    x,
    weight,
    pair(strides),
    around,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def layer_norm(
  x: Float[Array, "*b d"], weight: Float[Array, "d"], bias: Float[Array, "d"] | float, eps: float
) -> Float[Array, "*b d"]:
  """Normalize each row, see `LayerNorm`.

  Args:
    x: rows.
    weight, bias: factor and addend of each channel.
    eps: added to the variance.
  """
  wide = x.astype(jnp.float32)
  # Two passes: E[x^2] - E[x]^2 cancels half the digits if the mean is large.
  centered = wide - wide.mean(axis=-1, keepdims=True)
  variance = jnp.square(centered).mean(axis=-1, keepdims=True)
  normed = centered * jax.lax.rsqrt(variance + eps)
  return (normed * jnp.asarray(weight, jnp.float32) + jnp.asarray(bias, jnp.float32)).astype(
    x.dtype
  )


def group_norm(
  x: Float[Array, "b *s c"],
  weight: Float[Array, "c"],
  bias: Float[Array, "c"],
  groups: int,
  eps: float,
) -> Float[Array, "b *s c"]:
  """Normalize each group of channels, see `GroupNorm`.

  Args:
    x: images or sequences.
    weight, bias: factor and addend of each channel.
    groups: number of groups of channels.
    eps: added to the variance.
  """
  parts = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
  mean = parts.mean(axis=(1, 3), keepdims=True)
  if x.dtype == jnp.float32:
    variance = jnp.square(parts - mean).mean(axis=(1, 3), keepdims=True)
  else:  # saves a pass over memory; the input has too few digits for cancellation to matter
    variance = jnp.square(parts).mean(axis=(1, 3), keepdims=True) - jnp.square(mean)
  normed = ((parts - mean) * jax.lax.rsqrt(variance + eps)).reshape(x.shape)
  return (normed * jnp.asarray(weight, jnp.float32) + jnp.asarray(bias, jnp.float32)).astype(
    x.dtype
  )


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """Return x Phi(x), Phi being the normal CDF, by erf: `jax.nn.gelu` uses erfc, which costs twice as much."""
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * (0.5**0.5)))).astype(x.dtype)


def gelu_tanh(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """Return the tanh approximation of GELU, for checkpoints trained with it."""
  return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """Return x sigmoid(1.702 x), which OpenAI's CLIP uses instead of GELU."""
  return x * jax.nn.sigmoid(1.702 * x)


# Activations by the names that configurations use.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  "gelu": gelu,
  "gelu_new": gelu_tanh,
  "gelu_pytorch_tanh": gelu_tanh,
  "quick_gelu": quick_gelu,
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
  "swish": jax.nn.silu,
}


def activation(name: str) -> Callable[[Array], Array]:
  """Return the activation function that a configuration names.

  Raises:
    RunError: the name is unknown.
  """
  if name not in ACTIVATIONS:
    raise RunError(f"activation {name!r} is not supported; known are {', '.join(ACTIVATIONS)}.")
  return ACTIVATIONS[name]


def attend(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  bias: Float[Array, "#b #h #q k"] | None = None,
  scale: float | None = None,
) -> Float[Array, "b q h d"]:
  """Compute softmax(scale query key^T + bias) value for each head, with the softmax in float32.

  Unlike `attention.attention`, this form supports a bias; sequences of encoders are short.

  Args:
    query, key, value: projections, already split into heads.
    bias: added to the scores: relative positions, or a large negative number to mask.
    scale: factor on the scores; 1 / sqrt(d) by default.
  """
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  scores = scale * jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
  scores = scores if bias is None else scores + bias
  # Divide by the sum at the end: each query then needs d divisions instead of k, and XLA's CPU backend saves a
  # pass over the scores. For SigLIP B/16 that is 4 of 36 ms per layer and image.
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
  total = weights.sum(axis=-1)[..., None].swapaxes(1, 2)
  mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
  return (mixed / total).astype(value.dtype)


def causal_bias(length: int) -> Float[Array, "1 1 l l"]:
  """Return an attention bias: zero for a token itself and its predecessors, else a large negative number."""
  seen = jnp.tril(jnp.ones((length, length), bool))
  return jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)[None, None]
