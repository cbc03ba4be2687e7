"""CLIP's image preprocessing on the device, for images that never leave it.

PIL resizes one axis, rounds to 8 bits, resizes the other, and rounds again. Each pass is a product
with a fixed matrix of antialiased weights, which a device can compute. Differences from PIL
(tests/embedding/test_device_preprocess.py): square images, even noise, differ by 1/255 in fewer
than one value in ten thousand, where a tie rounds the other way. Oblong ones differ by up to 8/255
on noise and by 1/255 on smooth images, because PIL chooses the first axis by the shape, and the
device always resizes columns first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from genbench_jax.embedding.filter_weights import filter_weights
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.models.image_input import ImageInput


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
    return ResizeWeights(
      *(filter_weights(length, how.size, how.filter) for length in (height, width))
    )
  side, short = how.before_crop, min(height, width)
  wanted = [side * length // short if how.keep_aspect else side for length in (height, width)]
  matrices = []
  for length, scaled in zip((height, width), wanted, strict=True):
    first = round((scaled - how.size) / 2)
    # Cropping the scaled image is cutting rows from its matrix.
    matrices.append(filter_weights(length, scaled, how.filter)[first : first + how.size])
  return ResizeWeights(*matrices)


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
