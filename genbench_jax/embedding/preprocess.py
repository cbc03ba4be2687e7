"""CLIP's own image preprocessing, with PIL, to the bit.

PIL's antialiased bicubic is part of what CLIP was trained with: TensorFlow's and JAX's differ from it by up to 5/255.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import ExifTags, Image, ImageOps

Resize = Literal["crop", "squash"]


def to_rgb(image: Image.Image) -> Image.Image:
  """Any PIL image as 8-bit RGB, upright: EXIF orientation applied, first frame, transparency dropped.

  Images of 16 bits a channel are scaled to 8, not clipped; gray of 32 bits and floats go by `_grey_of_many_bits`. One
  that is upright RGB already is returned as it is: the two copies that PIL would make cost a tenth of the whole
  preprocessing.

  Raises:
    ValueError: the range of a gray image of 32 bits can't be told.
  """
  image.load()
  is_tiff = image.format == "TIFF"  # a transposed image has no format any more
  if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
    image = ImageOps.exif_transpose(image)
  if image.mode == "F" or (image.mode == "I" and is_tiff):
    return Image.fromarray(_grey_of_many_bits(np.asarray(image))).convert("RGB")
  if image.mode in (
    "I",
    "I;16",
    "I;16B",
    "I;16L",
  ):  # Pillow scales what else it opens as I to 16 bits
    return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")
  return image if image.mode == "RGB" else image.convert("RGB")


def _grey_of_many_bits(pixels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
  """Gray of 32 bits, integer or float, as 8 bits. Such files don't say what white is; their values have to.

  Floats from 0 to 1 are shares of white. Other values from 0 to 255 are 8 bits, integers up to 65,535 are 16 bits.
  Everything else, such as elevations or negative values, has no white: clipping it would make it black or white.
  """
  low, high = float(pixels.min()), float(pixels.max())
  is_float = pixels.dtype.kind == "f"
  if not low >= 0:  # NaN compares false
    raise ValueError(f"gray of 32 bits from {low:g} to {high:g}: no image with a known white")
  if is_float and high <= 1:
    return np.rint(pixels * 255).astype(np.uint8)
  if high <= 255:
    return np.rint(pixels).astype(np.uint8)
  if not is_float and high <= 65_535:
    return (pixels // 257).astype(np.uint8)
  raise ValueError(f"gray of 32 bits from {low:g} to {high:g}: no image with a known white")


def to_square(image: Image.Image, size: int, resize: Resize, shorter: int = 0) -> Image.Image:
  """A square image: `crop` scales the shorter side, to `shorter` if given, and cuts the center; `squash` scales both sides."""
  if resize == "squash":
    return image.resize((size, size), Image.Resampling.BICUBIC)
  width, height = image.size
  short, shorter = min(width, height), shorter or size
  # The longer side is rounded down and the margin half to even, as the published preprocessing does.
  width, height = shorter * width // short, shorter * height // short
  left, top = round((width - size) / 2), round((height - size) / 2)
  scaled = image.resize((width, height), Image.Resampling.BICUBIC)
  return scaled.crop((left, top, left + size, top + size))


def preprocess(
  image: Image.Image,
  size: int,
  mean: Sequence[float],
  std: Sequence[float],
  resize: Resize = "crop",
  shorter: int = 0,
) -> Float32[np.ndarray, "h w 3"]:
  """Pixels as CLIP takes them: RGB, square, in [0, 1], then less `mean` and over `std`.

  Args:
    image: any PIL image.
    size: side of the result in pixels.
    mean, std: of the three channels, in [0, 1].
    resize: `crop` (shorter side to `shorter`, center crop) or `squash` (straight to the square).
    shorter: pixels; 0 is `size`.
  """
  pixels = np.asarray(to_square(to_rgb(image), size, resize, shorter), np.float32) / np.float32(255)
  return (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
