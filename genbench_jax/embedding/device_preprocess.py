"""CLIP's image preprocessing on the device, for images that never leave it.

PIL resizes along one axis, rounds to 8 bits, then along the other, and rounds again. Each pass is a product with a fixed
matrix of antialiased bicubic weights, so that the device can do the same. Against PIL (tests/clip/test_device_preprocess.py):
square images, even of noise, are off by 1/255 at fewer than one value in ten thousand, where a tie is rounded otherwise.
Oblong ones may be off by up to 8/255 on noise and by 1/255 on smooth images: PIL chooses by their shape which axis comes
first, and the device always begins with the columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, UInt8

from genbench_jax.embedding.preprocess import Resize

# PIL's filter reaches two pixels, of the coarser grid, to each side; its weights are whole numbers over 2^22.
REACH, PRECISION = 2.0, 1 << 22


class ResizeWeights(NamedTuple):
  """Matrices from an image's rows and columns to those of the square that CLIP takes."""

  rows: Float32[np.ndarray, "s h"] | Float32[Array, "s h"]
  columns: Float32[np.ndarray, "s w"] | Float32[Array, "s w"]


def resize_weights(height: int, width: int, size: int, resize: Resize) -> ResizeWeights:
  """The matrices that do what `clip.preprocess.to_square` does to an image of height x width."""
  if resize == "squash":
    return ResizeWeights(_weights(height, size), _weights(width, size))
  short = min(height, width)
  tall, wide = size * height // short, size * width // short
  top, left = round((tall - size) / 2), round((wide - size) / 2)
  rows, columns = _weights(height, tall), _weights(width, wide)
  return ResizeWeights(rows[top : top + size], columns[left : left + size])


def _weights(length: int, size: int) -> Float32[np.ndarray, "size length"]:
  """Weights of `length` pixels in each of `size`: antialiased bicubic, normalized, rounded as PIL rounds them."""
  if length == size:  # PIL leaves such an axis alone
    return np.eye(size, dtype=np.float32)
  scale = length / size
  stretch = max(scale, 1.0)
  centers = (np.arange(size)[:, None] + 0.5) * scale
  first = np.floor(np.maximum(centers - REACH * stretch + 0.5, 0))
  last = np.floor(np.minimum(centers + REACH * stretch + 0.5, length))
  pixels = np.arange(length)[None]
  weights = np.where(
    (first <= pixels) & (pixels < last), _bicubic((pixels - centers + 0.5) / stretch), 0.0
  )
  weights /= weights.sum(axis=1, keepdims=True)
  return (np.round(weights * PRECISION) / PRECISION).astype(np.float32)


def _bicubic(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Keys' cubic convolution with a = -1/2 (1981)."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def preprocess_on_device(
  images: UInt8[Array, "b h w 3"],
  weights: ResizeWeights,
  mean: Sequence[float],
  std: Sequence[float],
) -> Float[Array, "b s s 3"]:
  """Pixels as CLIP takes them, as `clip.preprocess.preprocess` makes them of single images. Pure: made for `jax.jit`."""
  exactly = jax.lax.Precision.HIGHEST
  pixels = images.astype(jnp.float32)
  pixels = _to_8_bits(jnp.einsum("vw,bhwc->bhvc", weights.columns, pixels, precision=exactly))
  pixels = _to_8_bits(jnp.einsum("uh,bhvc->buvc", weights.rows, pixels, precision=exactly))
  return (pixels / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def _to_8_bits(pixels: Float[Array, "..."]) -> Float[Array, "..."]:
  return jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
