"""The two resize methods of FID papers, to 299 x 299; the score depends on the method.

`clean`: PIL's antialiased bicubic filter per channel in floating point, without rounding to 8 bits,
as in clean-fid.
`legacy`: TensorFlow 1's bilinear filter without antialiasing, corners aligned at zero, as in the
reference code.

Reference:
  Parmar et al., "On aliased resizing and surprising subtleties in GAN evaluation", 2022 (arXiv
  2104.11222).
"""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image


def clean(image: Image.Image, size: int) -> Float32[np.ndarray, "s s 3"]:
  """Resize an RGB image to `size` x `size`, 0 to 255, with PIL's bicubic filter on floats."""
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
  # The bicubic filter overshoots at edges.
  return np.stack(channels, axis=-1).clip(0, 255)


def legacy(image: Image.Image, size: int) -> Float32[np.ndarray, "s s 3"]:
  """Resize an RGB image to `size` x `size`, 0 to 255, with TensorFlow 1's bilinear filter."""
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
  """Return the two source pixels around each of `size` output pixels, and the weight of the second.

  Output pixel i samples i * length / size, not the pixel center (i + 1/2) * length / size - 1/2.
  """
  at = np.arange(size, dtype=np.float32) * np.float32(length / size)
  first = np.floor(at).astype(np.int64)
  return first, np.minimum(first + 1, length - 1), at - first.astype(np.float32)
