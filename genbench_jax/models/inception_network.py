"""Inception-v3 as FID uses it: the network of 2015-12-05 from TensorFlow's reference code.

It differs from the ImageNet classifier of the same name: average pooling excludes padding, the last
block uses max pooling, and there are 1,008 logits. Parameters have the names of the published PyTorch
conversion, `pt_inception-2015-12-05`. Module names are those of torchvision's `inception_v3`.

Reference:
  Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016 (arXiv 1512.00567).
  Heusel et al., "GANs trained by a two time-scale update rule", 2017 (arXiv 1706.08500), defines FID.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models.convolution import patch_product, winograd
from genbench_jax.models.layers import Dtype, convolve, pair

SIDE, FEATURES, LOGITS = 299, 2048, 1008
# Epsilon of the batch norms (TensorFlow's default, not PyTorch's 1e-5).
EPS = 1e-3


class InceptionOutput(NamedTuple):
  """Outputs of the network. Under jit, an unused one costs nothing.

  Attributes:
    features: after the last pool, for FID and KID.
    logits: of 1,008 classes, without the last layer's bias, which the Inception score's code leaves out.
  """

  features: Float[Array, "b 2048"]
  logits: Float[Array, "b 1008"]


class Unit(NamedTuple):
  """A convolution with its batch norm folded in: relu(x * kernel + shift), `*` being the convolution."""

  kernel: Float[Array, "h w i o"]
  shift: Float[Array, "o"]


class Block(nn.Module):
  """A block of parallel branches over the same input."""

  dtype: Dtype

  def unit(self, name: str, channels: int, features: int, kernel: tuple[int, int] = (1, 1)) -> Unit:
    """Declare a named convolution's parameters and fold its batch norm into them.

    With fixed statistics, gamma (conv - mean) / sqrt(variance + eps) + beta is a convolution with scaled
    kernels and a shift. Folded in float32, then cast to the dtype of the computation.
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
    padding: int | tuple[int, int] = 0,
  ) -> Float[Array, "b u v o"]:
    """Apply one convolution with batch norm and ReLU."""
    unit = self.unit(name, x.shape[-1], features, kernel)
    return jax.nn.relu(_convolved(x, unit.kernel, strides, padding) + unit.shift)

  def pointwise(
    self, x: Float[Array, "b h w i"], widths: dict[str, int]
  ) -> list[Float[Array, "b h w o"]]:
    """Apply several 1 x 1 convolutions to one input as one matrix product, without ReLU: x is read once."""
    units = [self.unit(name, x.shape[-1], width) for name, width in widths.items()]
    kernel = jnp.concatenate([unit.kernel[0, 0] for unit in units], axis=-1)
    # `branch_pool` is pooled after this: pooling keeps constants, so the shift may come before it.
    product = x @ kernel + jnp.concatenate([unit.shift for unit in units])
    ends = [sum(list(widths.values())[: index + 1]) for index in range(len(widths) - 1)]
    return jnp.split(product, ends, axis=-1)


def _convolved(
  x: Float[Array, "b h w i"],
  kernel: Float[Array, "r s i o"],
  strides: int,
  padding: int | tuple[int, int],
) -> Float[Array, "b u v o"]:
  """Convolve with the fastest method on the platform.

  Measured on one CPU core with one image: Winograd takes half of XLA's time for 3 x 3 kernels. A product of patches
  takes 0.65 to 0.97 of it for strides and for kernels of one row or column. XLA is fastest for 5 x 5 kernels.
  """
  sides = pair(padding)
  if jax.default_backend() != "cpu":
    return convolve(x, kernel, strides, sides)
  if kernel.shape[:2] == (3, 3) and strides == 1:
    return winograd(x, kernel, sides[0])
  if strides == 2 or min(kernel.shape[:2]) == 1:
    return patch_product(x, kernel, strides, sides)
  return convolve(x, kernel, strides, sides)


def max_pool(x: Float[Array, "b h w c"], strides: int, padding: int = 0) -> Float[Array, "b u v c"]:
  """Return the maximum of each 3 x 3 window.

  Computed from shifted slices, one axis after the other: XLA's `reduce_window` is 7 times slower on CPU.

  Args:
    x: images.
    strides: stride along both axes.
    padding: pixels of -inf around the image.
  """
  if padding:
    sides = (padding, padding)
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=-jnp.inf)
  for axis in (2, 1):
    first, second, third = _thirds(x, axis, strides)
    x = jnp.maximum(jnp.maximum(first, second), third)
  return x


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Return the mean of each 3 x 3 window, over pixels inside the image only.

  It commutes with 1 x 1 convolutions, so callers apply it after them, where there are fewer channels.
  """
  counts = []
  for axis in (2, 1):
    around = [(1, 1) if other == axis else (0, 0) for other in range(4)]
    x = sum(_thirds(jnp.pad(x, around), axis, 1), start=jnp.zeros((), x.dtype))
    # The border windows cover 2 pixels along this axis instead of 3.
    places = np.arange(x.shape[axis])
    counts.append(3 - (places == 0) - (places == x.shape[axis] - 1))
  return x / jnp.asarray(np.outer(counts[1], counts[0])[None, :, :, None], x.dtype)


def _thirds(x: Float[Array, "b h w c"], axis: int, strides: int) -> list[Float[Array, "b u v c"]]:
  """Return the first, second and third elements of each window of three along an axis."""
  last = (x.shape[axis] - 3) // strides * strides
  return [jax.lax.slice_in_dim(x, first, first + last + 1, strides, axis) for first in range(3)]


class BlockA(Block):
  """35 x 35: branches with a 1 x 1, a 5 x 5 and two 3 x 3 convolutions, and a pool. InceptionA."""

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
  """Reduction from 35 x 35 to 17 x 17. InceptionB."""

  @nn.compact
  def __call__(self, x: Float[Array, "b 35 35 c"]) -> Float[Array, "b 17 17 d"]:
    three = self.conv(x, "branch3x3", 384, (3, 3), strides=2)
    double = self.conv(x, "branch3x3dbl_1", 64)
    double = self.conv(double, "branch3x3dbl_2", 96, (3, 3), padding=1)
    double = self.conv(double, "branch3x3dbl_3", 96, (3, 3), strides=2)
    return _joined(three, double, max_pool(x, 2))


class BlockC(Block):
  """17 x 17: branches with 7 x 7 convolutions factorized into rows and columns. InceptionC."""

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
  """Reduction from 17 x 17 to 8 x 8. InceptionD."""

  @nn.compact
  def __call__(self, x: Float[Array, "b 17 17 768"]) -> Float[Array, "b 8 8 1280"]:
    three, seven = self.pointwise(x, {"branch3x3_1": 192, "branch7x7x3_1": 192})
    three = self.conv(jax.nn.relu(three), "branch3x3_2", 320, (3, 3), strides=2)
    seven = self.conv(jax.nn.relu(seven), "branch7x7x3_2", 192, (1, 7), padding=(0, 3))
    seven = self.conv(seven, "branch7x7x3_3", 192, (7, 1), padding=(3, 0))
    seven = self.conv(seven, "branch7x7x3_4", 192, (3, 3), strides=2)
    return _joined(three, seven, max_pool(x, 2))


class BlockE(Block):
  """8 x 8: branches with 3 x 3 convolutions split into a row and a column in parallel. InceptionE.

  Attributes:
    maximum: whether the pool takes the maximum instead of the mean. Only the last block does: an error of
      the original code that every published score contains.
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
  """The whole network, for images of 299 x 299 pixels.

  Attributes:
    dtype: dtype of the computation; float32 for published FID values.
  """

  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels: Float[Array, "b 299 299 3"]) -> InceptionOutput:
    """Return features and logits of images scaled by (x - 128) / 128, with x in 0..255."""
    x = pixels.astype(self.dtype)
    # 299 -> 149 -> 147 -> 147, pooled to 73, -> 73 -> 71, pooled to 35 pixels.
    x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), strides=2)
    x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3))
    x = max_pool(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3), padding=1), 2)
    x = self.conv(x, "Conv2d_3b_1x1", 80)
    x = max_pool(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3)), 2)
    for name, block, settings in BLOCKS:
      x = block(self.dtype, **settings, name=name)(x)
    features = x.astype(jnp.float32).mean(axis=(1, 2))
    weight = self.param("fc.weight", nn.initializers.lecun_normal(), (FEATURES, LOGITS))
    # In the checkpoint but unused; see `InceptionOutput.logits`.
    self.param("fc.bias", nn.initializers.zeros, (LOGITS,))
    return InceptionOutput(features, features @ jnp.asarray(weight, jnp.float32))
