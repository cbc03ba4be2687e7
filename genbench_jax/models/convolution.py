"""3 x 3 convolutions by fewer products, for CPUs, where arithmetic is what they cost.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), F(2 x 2, 3 x 3): blocks of 2 x 2 outputs from
overlapping blocks of 4 x 4 inputs by 16 products of channels where the definition takes 36.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models.layers import Padding, convolve

# Below, what is saved goes into transforming inputs and outputs. Measured on 2 cores, float32: from here on 1.1 to 2.2 times
# faster than XLA's convolutions.
MIN_CHANNELS = 128
# Pixels of all images together. The kernel is transformed at every call, which costs as much as 100 to 200 pixels save.
MIN_PIXELS = 512


def suits_winograd(hidden: Float[Array, "b h w c"], kernel: Float[Array, "r s c d"]) -> bool:
  """Whether `winograd` applies to a convolution with stride 1 and zeros around, and pays on CPU."""
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
  """The kernel, as a value that depends on the image.

  XLA would otherwise transform all kernels once, before the sampler's loop, and keep them beside the weights at 16/9 of their
  size. An optimization barrier is not enough on CPU. The sign bit, shifted away, is zero for every float, NaN too, so that one
  broken image spoils no other; XLA does not see it.
  """
  bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(hidden[0, 0, 0, 0]), jnp.uint32)
  return kernel + jnp.asarray((bits >> 31) >> 1, jnp.float32)


def winograd(
  hidden: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h w d"]:
  """The convolution with stride 1 and one row of zeros around; height and width are even."""
  batch, height, width, channels = hidden.shape
  padded = jnp.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
  blocks = [_of_inputs(rows, 2) for rows in _of_inputs(padded, 1)]
  kernels = [_of_kernel(rows, 0) for rows in _of_kernel(kernel, 0)]
  # One matrix product each: batched, XLA's CPU backend takes up to three times as long.
  products = [
    [(block.reshape(-1, channels) @ one).reshape(*block.shape[:3], -1) for block, one in pairs]
    for pairs in (zip(*both, strict=True) for both in zip(blocks, kernels, strict=True))
  ]
  columns = [jnp.stack(_of_products(row), axis=3) for row in products]
  return jnp.stack(_of_products(columns), axis=2).reshape(batch, height, width, -1)


def _of_inputs(padded: Float[Array, "..."], axis: int) -> list[Float[Array, "..."]]:
  """Four combinations of the rows of each block, which begin at every other row."""
  last = padded.shape[axis] - 3
  a, b, c, d = (jax.lax.slice_in_dim(padded, at, last + at, 2, axis) for at in range(4))
  return [a - c, b + c, c - b, b - d]


def _of_kernel(kernel: Float[Array, "3 ..."], axis: int) -> list[Float[Array, "..."]]:
  a, b, c = (jax.lax.index_in_dim(kernel, at, axis, keepdims=False) for at in range(3))
  return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _of_products(products: list[Float[Array, "..."]]) -> list[Float[Array, "..."]]:
  """The two rows of outputs of each block."""
  a, b, c, d = products
  return [a + b + c, b - c - d]


class Conv(nn.Module):
  """A convolution of images, by what is fastest on the platform.

  Attributes:
    features: channels of the output.
    kernel_size: side of the kernel.
    strides: of both axes.
    padding: zeros around the image: one number, or (before, after) an axis.
    platform: `cpu`, `gpu` or `tpu`; None takes JAX's default backend.
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
