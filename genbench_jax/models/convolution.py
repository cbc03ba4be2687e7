"""Faster 3 x 3 convolutions for CPUs, where arithmetic dominates the cost.

Winograd's F(2 x 2, 3 x 3) computes each block of 2 x 2 outputs from a 4 x 4 block of inputs (neighbors
overlap) with 16 channel products, where the definition takes 36.

Reference:
  Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016 (arXiv 1509.09308).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models.layers import Padding, convolve

# With fewer channels, transforming inputs and outputs costs more than is saved. Measured on 2 cores in
# float32: from 128 channels on, 1.1 to 2.2 times faster than XLA's convolutions.
MIN_CHANNELS = 128
# Pixels of the whole batch. Transforming the kernel, at every call, costs what 100 to 200 pixels save.
MIN_PIXELS = 512


def suits_winograd(hidden: Float[Array, "b h w c"], kernel: Float[Array, "r s c d"]) -> bool:
  """Return whether `winograd` applies to a stride-1 convolution with one pixel of padding and is faster on CPU."""
  sides = hidden.shape[1:3]
  return (
    kernel.shape[:2] == (3, 3)
    and min(kernel.shape[2:]) >= MIN_CHANNELS
    and hidden.shape[0] * sides[0] * sides[1] >= MIN_PIXELS
    and not any(side % 2 for side in sides)
    and hidden.dtype == kernel.dtype == jnp.float32
  )


def _at_each_call(
  kernel: Float[Array, "3 3 c d"], hidden: Float[Array, "b h w c"]
) -> Float[Array, "3 3 c d"]:
  """Return the kernel as a value that depends on the image, by adding a zero that XLA cannot fold.

  Otherwise XLA transforms all kernels once, before the sampler's loop, and keeps them in memory at 16/9
  of the weights' size. On CPU an optimization barrier does not prevent that. The zero is a float's sign
  bit, shifted away: zero even for NaN, so that one broken image cannot spoil the others.
  """
  bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(hidden[0, 0, 0, 0]), jnp.uint32)
  return kernel + jnp.asarray((bits >> 31) >> 1, jnp.float32)


def winograd(
  hidden: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], padding: int = 1
) -> Float[Array, "b u v d"]:
  """Convolve with a 3 x 3 kernel and stride 1.

  With B, G and A of the paper: output = A^T [(G kernel G^T) * (B^T input B)] A for each block.

  Args:
    hidden: images.
    kernel: 3 x 3 kernel.
    padding: pixels of zeros on each side.
  """
  batch, channels = len(hidden), hidden.shape[-1]
  height, width = (side + 2 * padding - 2 for side in hidden.shape[1:3])
  # Blocks have 2 x 2 outputs, so an odd side is padded by one row or column, and cropped at the end.
  around = [(padding, padding + side % 2) for side in (height, width)]
  padded = jnp.pad(hidden, ((0, 0), *around, (0, 0)))
  blocks = [_of_inputs(rows, 2) for rows in _of_inputs(padded, 1)]
  kernels = [_of_kernel(rows, 0) for rows in _of_kernel(kernel, 0)]
  # 16 separate matrix products: as one batched product, XLA's CPU backend takes up to 3 times as long.
  products = [
    [
      (block.reshape(-1, channels) @ matrix).reshape(*block.shape[:3], -1)
      for block, matrix in pairs
    ]
    for pairs in (zip(*both, strict=True) for both in zip(blocks, kernels, strict=True))
  ]
  columns = [jnp.stack(_of_products(row), axis=3) for row in products]
  outputs = jnp.stack(_of_products(columns), axis=2)
  return outputs.reshape(batch, height + height % 2, width + width % 2, -1)[:, :height, :width]


def patch_product(
  hidden: Float[Array, "b h w c"],
  kernel: Float[Array, "r s c d"],
  strides: int = 1,
  padding: tuple[int, int] = (0, 0),
) -> Float[Array, "b u v d"]:
  """Convolve by one matrix product of all patches.

  On CPU, faster than XLA's convolution if there are few patches (small images, strides) or the kernel has one row.

  Args:
    hidden: images.
    kernel: kernel of any height and width.
    strides: stride along both axes.
    padding: pixels of zeros on each side, along height and width.
  """
  rows, columns = kernel.shape[:2]
  padded = jnp.pad(hidden, ((0, 0), *((side, side) for side in padding), (0, 0)))
  height, width = padded.shape[1] - rows, padded.shape[2] - columns
  taps = [
    padded[:, r : r + height + 1 : strides, s : s + width + 1 : strides]
    for r in range(rows)
    for s in range(columns)
  ]
  patches = jnp.concatenate(taps, axis=-1) if len(taps) > 1 else taps[0]
  return patches @ kernel.reshape(-1, kernel.shape[-1])


def _of_inputs(padded: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
  """Apply B^T along an axis: four combinations of the rows of each block. Blocks start at every other row."""
  last = padded.shape[axis] - 3
  a, b, c, d = (jax.lax.slice_in_dim(padded, at, last + at, 2, axis) for at in range(4))
  return [a - c, b + c, c - b, b - d]


def _of_kernel(kernel: Float[Array, "3 ..."], axis: int) -> list[Float[Array, "..."]]:
  """Apply G along an axis."""
  a, b, c = (jax.lax.index_in_dim(kernel, at, axis, keepdims=False) for at in range(3))
  return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _of_products(products: list[Float[Array, "..."]]) -> list[Float[Array, "..."]]:
  """Apply A^T: combine four products to the two output rows of each block."""
  a, b, c, d = products
  return [a + b + c, b - c - d]


class Conv(nn.Module):
  """A 2-D convolution with bias that chooses the fastest form for the platform. `Conv2d` of PyTorch.

  Attributes:
    features: output channels.
    kernel_size: side of the kernel.
    strides: stride along both axes.
    padding: zero padding: one number, or (before, after) per axis.
    platform: `cpu`, `gpu` or `tpu`; JAX's default backend if None.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  padding: Padding = 1
  platform: str | None = None

  @nn.compact
  def __call__(self, hidden: Float[Array, "b h w c"]) -> Float[Array, "b u v d"]:
    shape = (self.kernel_size, self.kernel_size, hidden.shape[-1], self.features)
    weight = self.param("weight", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return self._convolve(hidden, weight) + bias

  def _convolve(
    self, hidden: Float[Array, "b h w c"], weight: Float[Array, "r s c d"]
  ) -> Float[Array, "b u v d"]:
    on_cpu = (self.platform or jax.default_backend()) == "cpu"
    if on_cpu and self.kernel_size == self.strides == 1:
      return hidden @ weight[0, 0]
    if on_cpu and self.strides == self.padding == 1 and suits_winograd(hidden, weight):
      return winograd(hidden, _at_each_call(weight, hidden))
    return convolve(hidden, weight, self.strides, self.padding)
