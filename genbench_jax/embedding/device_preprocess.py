"""CLIP's image preprocessing on the device, for images that never leave it.

PIL resizes one axis, rounds to 8 bits, resizes the other, and rounds again. Each pass is a product
with a fixed matrix of antialiased weights, which a device can compute. Differences from PIL
(tests/embedding/test_device_preprocess.py): square images, even noise, differ by 1/255 in fewer
than one value in ten thousand, where a tie rounds the other way. Oblong ones differ by up to 8/255
on noise and by 1/255 on smooth images, because PIL chooses the first axis by the shape, and the
device always resizes columns first.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, UInt8

from genbench_jax.embedding.preprocess import Resize
from genbench_jax.models.image_input import ImageInput

# PIL stores its filter weights in fixed point with 22 fractional bits.
PRECISION = 1 << 22


class ResizeWeights(NamedTuple):
  """Matrices that resize the rows and columns of an image to the square that CLIP takes."""

  rows: Float32[np.ndarray, "s h"] | Float32[Array, "s h"]
  columns: Float32[np.ndarray, "s w"] | Float32[Array, "s w"]


def resize_weights(height: int, width: int, how: ImageInput, resize: Resize) -> ResizeWeights:
  """Return the matrices equivalent to `preprocess.to_square`.

  Args:
    height, width: size of the image in pixels.
    how: image input of the encoder.
    resize: `crop`, the encoder's own method, or `squash`.
  """
  if resize == "squash":
    return ResizeWeights(*(_weights(length, how.size, how.filter) for length in (height, width)))
  side, short = how.before_crop, min(height, width)
  wanted = [side * length // short if how.keep_aspect else side for length in (height, width)]
  matrices = []
  for length, scaled in zip((height, width), wanted, strict=True):
    first = round((scaled - how.size) / 2)
    # Cropping the scaled image is cutting rows from its matrix.
    matrices.append(_weights(length, scaled, how.filter)[first : first + how.size])
  return ResizeWeights(*matrices)


def _weights(length: int, size: int, name: str) -> Float32[np.ndarray, "size length"]:
  """Return the weights [size, length] of the source pixels: antialiased, rounded like PIL's."""
  if length == size:  # PIL skips an axis that keeps its length
    return np.eye(size, dtype=np.float32)
  scale = length / size
  centers = (np.arange(size)[:, None] + 0.5) * scale
  pixels = np.arange(length)[None]
  if name == "nearest":
    return (np.floor(centers) == pixels).astype(np.float32)
  reach, kernel = _KERNELS[name]
  # Antialiasing: when shrinking, the filter is stretched to cover the source pixels of one output
  # pixel.
  stretch = max(scale, 1.0)
  first = np.floor(np.maximum(centers - reach * stretch + 0.5, 0))
  last = np.floor(np.minimum(centers + reach * stretch + 0.5, length))
  weights = np.where(
    (first <= pixels) & (pixels < last), kernel((pixels - centers + 0.5) / stretch), 0.0
  )
  weights /= weights.sum(axis=1, keepdims=True)
  return (np.round(weights * PRECISION) / PRECISION).astype(np.float32)


def _bicubic(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate Keys' cubic convolution kernel with a = -1/2 (1981)."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _box(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  return np.maximum(1 - np.abs(x), 0)


def _hamming(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate a sinc with a Hamming window."""
  return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)


def _lanczos(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate a sinc windowed by the main lobe of a sinc three times as wide."""
  return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


# Filter -> radius in pixels of the coarser grid, and kernel.
_KERNELS: dict[str, tuple[float, Callable[..., Float64[np.ndarray, "..."]]]] = {
  "box": (0.5, _box),
  "bilinear": (1.0, _bilinear),
  "hamming": (1.0, _hamming),
  "bicubic": (2.0, _bicubic),
  "lanczos": (3.0, _lanczos),
}


def preprocess_on_device(
  images: UInt8[Array | np.ndarray, "b h w 3"],
  weights: ResizeWeights,
  mean: Sequence[float],
  std: Sequence[float],
) -> Float[Array, "b s s 3"]:
  """Preprocess a batch of images for CLIP like `preprocess.preprocess`; for use under jit.

  Args:
    images: values 0 to 255, [b, h, w, 3].
    weights: matrices for the size of the images.
    mean, std: of the three channels, in [0, 1].
  """
  # A TPU's default precision (bfloat16) would change the rounding to 8 bits.
  exactly = jax.lax.Precision.HIGHEST
  pixels = images.astype(jnp.float32)
  pixels = _to_8_bits(jnp.einsum("vw,bhwc->bhvc", weights.columns, pixels, precision=exactly))
  pixels = _to_8_bits(jnp.einsum("uh,bhvc->buvc", weights.rows, pixels, precision=exactly))
  return (pixels / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def _to_8_bits(pixels: Float[Array, "..."]) -> Float[Array, "..."]:
  return jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
