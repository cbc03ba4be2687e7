"""The layers that every network here is made of, with the names and meaning of PyTorch's.

Each layer holds `weight` and, where PyTorch has one, `bias`. A network gives its submodules the dotted names of the
published checkpoint (`name="encoder.layers.0"`), so that the path of a parameter, joined by dots, is the name of its
PyTorch tensor; `weights.py` loads by that rule. Layouts are JAX's: linear weights are [in, out], convolution kernels
[height, width, in, out].

`dtype` is that of the computation; None takes the input's. Norms compute in float32 whatever the input is, because
bfloat16 keeps 8 bits of a mean of thousands of values.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genbench_jax.errors import RunError
from genbench_jax.models.weights import is_table

Dtype: TypeAlias = Any
# As PyTorch's `padding`: one number for all sides, one an axis, or (before, after) an axis.
Padding: TypeAlias = int | Sequence[int] | Sequence[tuple[int, int]]


def compute_dtype() -> Dtype:
  """bfloat16 on accelerators, float32 on CPU, where bfloat16 is emulated."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


class Linear(nn.Module):
  """x W + b over the last axis.

  Attributes:
    features: width of the output.
    use_bias: whether b is there.
    dtype: of the computation.
  """

  features: int
  use_bias: bool = True
  dtype: Dtype = None

  @nn.compact
  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    dtype = self.dtype or x.dtype
    weight = self.param("weight", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
    y = jnp.dot(x.astype(dtype), jnp.asarray(weight, dtype))
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return y + jnp.asarray(bias, dtype)


class Conv(nn.Module):
  """A 2-d convolution, channels last.

  Attributes:
    features: channels of the output.
    kernel_size: side of the kernel, or (height, width).
    strides: of both axes, or one each.
    padding: zeros around the image.
    groups: the channels are split into so many, and each convolved by itself.
    use_bias: whether a bias is added.
    dtype: of the computation.
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
  """(x - mean) / sqrt(variance + eps) over the last axis, times `weight`, plus `bias`.

  Attributes:
    eps: added to the variance.
    use_bias: whether a bias is added.
  """

  eps: float = 1e-5
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    weight = self.param("weight", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:]) if self.use_bias else 0.0
    return layer_norm(x, weight, bias, self.eps)


class RmsNorm(nn.Module):
  """x / sqrt(mean of x^2 + eps) over the last axis, times `weight`: no mean is taken off, no bias added.

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
  """As `LayerNorm`, over all places and the channels of a group.

  Attributes:
    groups: the channels are split into so many.
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
  """Rows of a table [num, features], looked up by index.

  Attributes:
    num: rows.
    features: width of a row.
    dtype: of the result; None is the table's.

  Raises:
    ValueError: its name is not one that `weights.is_table` knows, so that its table would be loaded transposed.
  """

  num: int
  features: int
  dtype: Dtype = None

  def setup(self) -> None:
    if not is_table(str(self.name)):
      raise ValueError(f"{self.name!r} is not known as a table: add it to weights.TABLES.")
    self.weight = self.param("weight", nn.initializers.normal(0.02), (self.num, self.features))

  def __call__(self, index: Int[Array, "*b"]) -> Float[Array, "*b d"]:
    return jnp.asarray(self.table)[index]

  @property
  def table(self) -> Float[Array, "n d"]:
    """All rows, in `dtype`."""
    return jnp.asarray(self.weight, self.dtype)


# ---- the same as functions ----------------------------------------------------------------------


def pair(value: int | Sequence[int]) -> tuple[int, int]:
  """(value, value), or the two values."""
  height, width = (value, value) if isinstance(value, int) else value
  return height, width


def convolve(
  x: Float[Array, "b h w i"],
  weight: Float[Array, "kh kw j o"],
  strides: int | Sequence[int] = 1,
  padding: Padding = 0,
  groups: int = 1,
) -> Float[Array, "b u v o"]:
  """A 2-d convolution without bias; the arguments are those of `Conv`."""
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
  """See `LayerNorm`."""
  wide = x.astype(jnp.float32)
  # The variance after the mean: E[x^2] - E[x]^2 loses half the digits where the mean is large.
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
  """See `GroupNorm`."""
  parts = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
  mean = parts.mean(axis=(1, 3), keepdims=True)
  if x.dtype == jnp.float32:
    variance = jnp.square(parts - mean).mean(axis=(1, 3), keepdims=True)
  else:  # one pass over memory less; the input has too few digits for cancellation to matter
    variance = jnp.square(parts).mean(axis=(1, 3), keepdims=True) - jnp.square(mean)
  normed = ((parts - mean) * jax.lax.rsqrt(variance + eps)).reshape(x.shape)
  return (normed * jnp.asarray(weight, jnp.float32) + jnp.asarray(bias, jnp.float32)).astype(
    x.dtype
  )


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """x times the normal distribution function, by erf: XLA's erfc, which `jax.nn.gelu` takes, costs twice as much."""
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * (0.5**0.5)))).astype(x.dtype)


def gelu_tanh(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """The approximation of gelu by tanh, for checkpoints that were trained with it."""
  return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
  """x sigmoid(1.702 x): what OpenAI's CLIPs take for gelu."""
  return x * jax.nn.sigmoid(1.702 * x)


# By the names that configurations use.
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
  """The function that a configuration names.

  Raises:
    RunError: there is none of the name.
  """
  if name not in ACTIVATIONS:
    raise RunError(f"activation {name!r} is not supported; known are {', '.join(ACTIVATIONS)}.")
  return ACTIVATIONS[name]


def attend(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  bias: Float[Array, "#b #h q k"] | None = None,
  scale: float | None = None,
) -> Float[Array, "b q h d"]:
  """softmax(scale query key^T + bias) value, for each head; the softmax in float32.

  Args:
    query, key, value: heads apart.
    bias: added to the scores: positions, or a large negative number where nothing may be seen.
    scale: 1 / sqrt(d) by default.
  """
  scale = query.shape[-1] ** -0.5 if scale is None else scale
  scores = scale * jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
  scores = scores if bias is None else scores + bias
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def causal_bias(length: int) -> Float[Array, "1 1 l l"]:
  """Zero where a token may look, at itself and those before it, and a large negative number elsewhere."""
  seen = jnp.tril(jnp.ones((length, length), bool))
  return jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)[None, None]
