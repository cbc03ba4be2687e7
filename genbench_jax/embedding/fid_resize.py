"""The two ways in which FID papers bring images to 299 x 299; the score depends on which.

`clean`: PIL's antialiased bicubic on each channel in floating point, without rounding to 8 bits, as clean-fid does.
`legacy`: TensorFlow 1's bilinear, without antialiasing, corners aligned at zero, as the reference code does.

Reference:
  Parmar et al., "On aliased resizing and surprising subtleties in GAN evaluation", 2022 (arXiv 2104.11222).
"""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image


def clean(image: Image.Image, size: int) -> Float32[np.ndarray, "s s 3"]:
  """An RGB image at `size` x `size`, 0 to 255, by PIL's bicubic in floating point."""
  if image.size == (size, size):
    return np.asarray(image, np.float32)
  channels = [
    np.asarray(
      Image.fromarray(np.asarray(channel, np.float32)).resize(
        (size, size), Image.Resampling.BICUBIC
      )
    )
    for channel in image.split()
  ]
  # Bicubic overshoots at edges.
  return np.stack(channels, axis=-1).clip(0, 255)


def legacy(image: Image.Image, size: int) -> Float32[np.ndarray, "s s 3"]:
  """An RGB image at `size` x `size`, 0 to 255, by TensorFlow 1's bilinear."""
  pixels: UInt8[np.ndarray, "h w 3"] = np.asarray(image)
  upper, lower, down = _neighbors(pixels.shape[0], size)
  left, right, across = _neighbors(pixels.shape[1], size)
  rows = pixels.astype(np.float32)
  across = across[None, :, None]
  top, bottom = (
    rows[which][:, left] + (rows[which][:, right] - rows[which][:, left]) * across
    for which in (upper, lower)
  )
  return top + (bottom - top) * down[:, None, None]


def _neighbors(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The two pixels that each of `size` ones lies between, and its share of the second.

  Pixel i of the result is at i * length / size, not at the centers' (i + 1/2) * length / size - 1/2.
  """
  at = np.arange(size, dtype=np.float32) * np.float32(length / size)
  first = np.floor(at).astype(np.int64)
  return first, np.minimum(first + 1, length - 1), at - first.astype(np.float32)
