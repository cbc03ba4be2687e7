"""Inception-v3 as FID papers use it: the network of 2015-12-05 that TensorFlow's reference code runs.

It differs from the classifier that goes by the same name: average pools do not count the zeros around, the last block takes a
maximum, there are 1,008 logits. Names are those of the published PyTorch file, `pt_inception-2015-12-05`.

Reference:
  Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016 (arXiv 1512.00567).
  Heusel et al., "GANs trained by a two time-scale update rule", 2017 (arXiv 1706.08500): the distance.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models.layers import Dtype, Padding, convolve

SIDE, FEATURES, LOGITS = 299, 2048, 1008
# Of the batch norms, whose statistics are fixed.
EPS = 1e-3


class InceptionOutput(NamedTuple):
  """What the network makes of images; what is not used, the compiler leaves out.

  Attributes:
    features: after the last pool, the ones of FID and KID.
    logits: of 1,008 classes, without the last bias: the Inception score's code leaves it out.
  """

  features: Float[Array, "b 2048"]
  logits: Float[Array, "b 1008"]


class Unit(NamedTuple):
  """A convolution with its batch norm folded in: y = relu(x * kernel + shift)."""

  kernel: Float[Array, "h w i o"]
  shift: Float[Array, "o"]


class Block(nn.Module):
  """Branches over the same input, side by side."""

  dtype: Dtype

  def unit(self, name: str, channels: int, features: int, kernel: tuple[int, int] = (1, 1)) -> Unit:
    """The parameters of a named convolution, its batch norm folded in.

    With fixed statistics gamma (conv - mean) / sqrt(variance + eps) + beta is a convolution by scaled kernels and a shift.
    """
    weight = self.param(
      f"{name}.conv.weight", nn.initializers.he_normal(), (*kernel, channels, features)
    )
    gamma = self.param(f"{name}.bn.weight", nn.initializers.ones, (features,))
    beta = self.param(f"{name}.bn.bias", nn.initializers.zeros, (features,))
    mean = self.param(f"{name}.bn.running_mean", nn.initializers.zeros, (features,))
    variance = self.param(f"{name}.bn.running_var", nn.initializers.ones, (features,))
    parts = [jnp.asarray(part, jnp.float32) for part in (gamma, beta, mean, variance)]
    scale = parts[0] * jax.lax.rsqrt(parts[3] + EPS)
    kernels = jnp.asarray(weight, jnp.float32) * scale
    return Unit(kernels.astype(self.dtype), (parts[1] - parts[2] * scale).astype(self.dtype))

  def conv(
    self,
    x: Float[Array, "b h w i"],
    name: str,
    features: int,
    kernel: tuple[int, int] = (1, 1),
    strides: int = 1,
    padding: Padding = 0,
  ) -> Float[Array, "b u v o"]:
    """One convolution with batch norm and relu."""
    unit = self.unit(name, x.shape[-1], features, kernel)
    return jax.nn.relu(convolve(x, unit.kernel, strides, padding) + unit.shift)

  def pointwise(
    self, x: Float[Array, "b h w i"], widths: dict[str, int]
  ) -> list[Float[Array, "b h w o"]]:
    """Several 1 x 1 convolutions of one input as one matrix product, before relu: the input is read once."""
    units = [self.unit(name, x.shape[-1], width) for name, width in widths.items()]
    kernel = jnp.concatenate([unit.kernel[0, 0] for unit in units], axis=-1)
    # Shifts come after a pool where there is one; a pool keeps constants, so they may come before it, too.
    product = x @ kernel + jnp.concatenate([unit.shift for unit in units])
    ends = [sum(list(widths.values())[: index + 1]) for index in range(len(widths) - 1)]
    return jnp.split(product, ends, axis=-1)


def max_pool(x: Float[Array, "b h w c"], strides: int, padding: int = 0) -> Float[Array, "b u v c"]:
  """The maximum of each 3 x 3 window.

  Of shifted slices, along one axis and then the other: XLA's own windows take seven times as long on CPU.
  """
  if padding:
    sides = (padding, padding)
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
  for axis in (2, 1):
    first, second, third = _thirds(x, axis, strides)
    x = jnp.maximum(jnp.maximum(first, second), third)
  return x


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """The mean of each 3 x 3 window over what lies inside the image.

  It commutes with 1 x 1 convolutions, so it is taken after them, where there are fewer channels.
  """
  counts = []
  for axis in (2, 1):
    around = [(1, 1) if other == axis else (0, 0) for other in range(4)]
    x = sum(_thirds(jnp.pad(x, around), axis, 1), start=jnp.zeros((), x.dtype))
    places = np.arange(x.shape[axis])
    counts.append(3 - (places == 0) - (places == x.shape[axis] - 1))
  return x / jnp.asarray(np.outer(counts[1], counts[0])[None, :, :, None], x.dtype)


def _thirds(x: Float[Array, "b h w c"], axis: int, strides: int) -> list[Float[Array, "b u v c"]]:
  """The first, second and third element of each window of three along an axis."""
  last = (x.shape[axis] - 3) // strides * strides
  return [jax.lax.slice_in_dim(x, first, first + last + 1, strides, axis) for first in range(3)]


class BlockA(Block):
  """35 x 35: 1 x 1, 5 x 5 and two 3 x 3 convolutions, and a pool."""

  pool: int = 32

  @nn.compact
  def __call__(self, x: Float[Array, "b 35 35 c"]) -> Float[Array, "b 35 35 d"]:
    widths = {"branch1x1": 64, "branch5x5_1": 48, "branch3x3dbl_1": 64, "branch_pool": self.pool}
    one, five, double, pool = self.pointwise(x, widths)
    five = self.conv(jax.nn.relu(five), "branch5x5_2", 64, (5, 5), padding=2)
    double = self.conv(jax.nn.relu(double), "branch3x3dbl_2", 96, (3, 3), padding=1)
    double = self.conv(double, "branch3x3dbl_3", 96, (3, 3), padding=1)
    return _joined(jax.nn.relu(one), five, double, jax.nn.relu(average_pool(pool)))


class BlockB(Block):
  """From 35 x 35 to 17 x 17."""

  @nn.compact
  def __call__(self, x: Float[Array, "b 35 35 c"]) -> Float[Array, "b 17 17 d"]:
    three = self.conv(x, "branch3x3", 384, (3, 3), strides=2)
    double = self.conv(x, "branch3x3dbl_1", 64)
    double = self.conv(double, "branch3x3dbl_2", 96, (3, 3), padding=1)
    double = self.conv(double, "branch3x3dbl_3", 96, (3, 3), strides=2)
    return _joined(three, double, max_pool(x, 2))


class BlockC(Block):
  """17 x 17: 7 x 7 convolutions taken apart into rows and columns."""

  width: int = 128

  @nn.compact
  def __call__(self, x: Float[Array, "b 17 17 768"]) -> Float[Array, "b 17 17 768"]:
    width, row, column = self.width, (1, 7), (7, 1)
    widths = {"branch1x1": 192, "branch7x7_1": width, "branch7x7dbl_1": width, "branch_pool": 192}
    one, seven, double, pool = self.pointwise(x, widths)
    seven = self.conv(jax.nn.relu(seven), "branch7x7_2", width, row, padding=(0, 3))
    seven = self.conv(seven, "branch7x7_3", 192, column, padding=(3, 0))
    double = self.conv(jax.nn.relu(double), "branch7x7dbl_2", width, column, padding=(3, 0))
    double = self.conv(double, "branch7x7dbl_3", width, row, padding=(0, 3))
    double = self.conv(double, "branch7x7dbl_4", width, column, padding=(3, 0))
    double = self.conv(double, "branch7x7dbl_5", 192, row, padding=(0, 3))
    return _joined(jax.nn.relu(one), seven, double, jax.nn.relu(average_pool(pool)))


class BlockD(Block):
  """From 17 x 17 to 8 x 8."""

  @nn.compact
  def __call__(self, x: Float[Array, "b 17 17 768"]) -> Float[Array, "b 8 8 1280"]:
    three, seven = self.pointwise(x, {"branch3x3_1": 192, "branch7x7x3_1": 192})
    three = self.conv(jax.nn.relu(three), "branch3x3_2", 320, (3, 3), strides=2)
    seven = self.conv(jax.nn.relu(seven), "branch7x7x3_2", 192, (1, 7), padding=(0, 3))
    seven = self.conv(seven, "branch7x7x3_3", 192, (7, 1), padding=(3, 0))
    seven = self.conv(seven, "branch7x7x3_4", 192, (3, 3), strides=2)
    return _joined(three, seven, max_pool(x, 2))


class BlockE(Block):
  """8 x 8: 3 x 3 convolutions taken apart into a row and a column side by side.

  Attributes:
    maximum: whether the pool takes the maximum, as only the last block does: a slip of the original that all scores
      in the literature contain.
  """

  maximum: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "b 8 8 c"]) -> Float[Array, "b 8 8 2048"]:
    widths = {"branch1x1": 320, "branch3x3_1": 384, "branch3x3dbl_1": 448}
    if self.maximum:
      one, three, double = self.pointwise(x, widths)
      pool = self.conv(max_pool(x, 1, padding=1), "branch_pool", 192)
    else:
      one, three, double, pool = self.pointwise(x, widths | {"branch_pool": 192})
      pool = jax.nn.relu(average_pool(pool))
    three = self._row_and_column(jax.nn.relu(three), "branch3x3_2")
    double = self.conv(jax.nn.relu(double), "branch3x3dbl_2", 384, (3, 3), padding=1)
    double = self._row_and_column(double, "branch3x3dbl_3")
    return _joined(jax.nn.relu(one), three, double, pool)

  def _row_and_column(self, x: Float[Array, "b 8 8 384"], name: str) -> Float[Array, "b 8 8 768"]:
    row = self.conv(x, f"{name}a", 384, (1, 3), padding=(0, 1))
    return _joined(row, self.conv(x, f"{name}b", 384, (3, 1), padding=(1, 0)))


def _joined(*branches: Float[Array, "b h w _"]) -> Float[Array, "b h w c"]:
  return jnp.concatenate(branches, axis=-1)


# The blocks between the stem and the last pool, in order.
BLOCKS: Sequence[tuple[str, type[Block], dict[str, Any]]] = (
  ("Mixed_5b", BlockA, {"pool": 32}),
  ("Mixed_5c", BlockA, {"pool": 64}),
  ("Mixed_5d", BlockA, {"pool": 64}),
  ("Mixed_6a", BlockB, {}),
  ("Mixed_6b", BlockC, {"width": 128}),
  ("Mixed_6c", BlockC, {"width": 160}),
  ("Mixed_6d", BlockC, {"width": 160}),
  ("Mixed_6e", BlockC, {"width": 192}),
  ("Mixed_7a", BlockD, {}),
  ("Mixed_7b", BlockE, {}),
  ("Mixed_7c", BlockE, {"maximum": True}),
)


class InceptionNetwork(Block):
  """The whole network, for images of 299 x 299.

  Attributes:
    dtype: of the computation; FID papers' is float32.
  """

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels: Float[Array, "b 299 299 3"]) -> InceptionOutput:
    """Features and logits of images in -1..1, less than 1 by one 128th: (0..255 - 128) / 128."""
    x = pixels.astype(self.dtype)
    x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), strides=2)
    x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3))
    x = max_pool(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3), padding=1), 2)
    x = self.conv(x, "Conv2d_3b_1x1", 80)
    x = max_pool(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3)), 2)
    for name, block, settings in BLOCKS:
      x = block(self.dtype, **settings, name=name)(x)
    features = x.astype(jnp.float32).mean(axis=(1, 2))
    weight = self.param("fc.weight", nn.initializers.lecun_normal(), (FEATURES, LOGITS))
    # Part of the checkpoint; see `InceptionOutput.logits`.
    self.param("fc.bias", nn.initializers.zeros, (LOGITS,))
    return InceptionOutput(features, features @ jnp.asarray(weight, jnp.float32))
