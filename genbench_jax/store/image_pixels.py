"""Pixels of any image that Pillow decodes, as upright 8-bit RGB. All readers and the page use this module."""

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageOps


def to_rgb(image: Image.Image) -> Image.Image:
  """Convert any PIL image to upright 8-bit RGB: EXIF rotation applied, first frame, no alpha.

  16-bit channels are scaled to 8 bits, not clipped; 32-bit and float images are handled by
  `_gray_of_many_bits`. An image that is upright RGB already is returned as is, because the two
  copies that PIL would make take a tenth of the whole preprocessing time.

  Raises:
    ValueError: the white level of a 32-bit grayscale image is unknown.
  """
  image.load()
  is_tiff = image.format == "TIFF"  # read it now: a transposed image loses its format
  if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
    image = ImageOps.exif_transpose(image)
  if image.mode == "F" or (image.mode == "I" and is_tiff):
    return Image.fromarray(_gray_of_many_bits(np.asarray(image))).convert("RGB")
  # Pillow scales every other format that it opens in mode I to 16 bits.
  if image.mode in ("I", "I;16", "I;16B", "I;16L"):
    return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")
  return image if image.mode == "RGB" else image.convert("RGB")


def _gray_of_many_bits(pixels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
  """Convert 32-bit grayscale to 8 bits, inferring the white level, which files do not state.

  Floats in [0, 1] are fractions of white. Other values in [0, 255] are 8-bit, integers up to 65,535
  are 16-bit. Anything else, such as elevations or negative values, has no known white level, and
  clipping would destroy it.
  """
  low, high = float(pixels.min()), float(pixels.max())
  is_float = pixels.dtype.kind == "f"
  if not low >= 0:  # also catches NaN
    raise ValueError(f"32-bit grayscale with values from {low:g} to {high:g}: unknown white level")
  if is_float and high <= 1:
    return np.rint(pixels * 255).astype(np.uint8)
  if high <= 255:
    return np.rint(pixels).astype(np.uint8)
  if not is_float and high <= 65_535:
    # 65,535 / 257 = 255.
    return (pixels // 257).astype(np.uint8)
  raise ValueError(f"32-bit grayscale with values from {low:g} to {high:g}: unknown white level")
