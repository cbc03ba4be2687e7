"""CLIP's own image preprocessing, with PIL, to the bit.

PIL's antialiased bicubic is part of what CLIP was trained with: TensorFlow's and JAX's differ from it by up to 5/255.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import ExifTags, Image, ImageOps

from genbench_jax.embedding import fid_resize
from genbench_jax.models.image_input import FILTERS, ImageInput

Resize = Literal["crop", "squash", "clean", "legacy"]
PIL_FILTERS = {name: Image.Resampling[name.upper()] for name in FILTERS}
# Pixels of a scaled image over those of the square that is cut from it, from which on only what is needed is scaled.
MOST_SCALED = 16
# Source pixels that the widest filter, Lanczos, reaches to each side at full size.
FILTER_REACH = 3


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


def to_square(image: Image.Image, how: ImageInput, resize: Resize = "crop") -> Image.Image:
  """An image as the square that an encoder takes.

  Args:
    image: RGB.
    how: what the encoder asks for.
    resize: `crop` is the encoder's own way; `squash` scales both sides to the square, whatever the aspect.
  """
  chosen = PIL_FILTERS[how.filter]
  if resize == "squash":
    return _resized(image, (how.size, how.size), chosen)
  side, size = how.before_crop, how.size
  width, height = image.size
  if how.keep_aspect:
    short = min(width, height)
    # The longer side is rounded down and the margin half to even, as the published preprocessing does.
    wanted = (side * width // short, side * height // short)
  else:
    wanted = (side, side)
  left, top = round((wanted[0] - size) / 2), round((wanted[1] - size) / 2)
  box = (left, top, left + size, top + size)
  if wanted[0] * wanted[1] > MOST_SCALED * size * size:
    return _cut_first(image, wanted, box, chosen)
  return _resized(image, wanted, chosen).crop(box)


def _resized(image: Image.Image, size: tuple[int, int], chosen: Image.Resampling) -> Image.Image:
  """The image at another size. PIL begins with the width, and keeps the result at the full height.

  Where that would be far larger than the result, the height comes first: an image of 2 x 60,000 pixels
  costs what its square costs. The order changes few pixels, by one step.
  """
  if size[0] * image.height > MOST_SCALED * size[0] * size[1] and image.height > size[1]:
    image = image.resize((image.width, size[1]), chosen)
  return image.resize(size, chosen)


def _cut_first(
  image: Image.Image,
  wanted: tuple[int, int],
  box: tuple[int, int, int, int],
  chosen: Image.Resampling,
) -> Image.Image:
  """`image.resize(wanted).crop(box)` without the pixels outside of the box, which a very oblong image has millions of."""
  across, down = image.width / wanted[0], image.height / wanted[1]
  source = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
  # What the box leaves of the longer side, and a margin for the filter: PIL takes boxes in single precision.
  margin = FILTER_REACH * (1 + max(across, down))
  left, top = max(0, int(source[0] - margin)), max(0, int(source[1] - margin))
  right = min(image.width, int(source[2] + margin) + 1)
  bottom = min(image.height, int(source[3] + margin) + 1)
  part = image.crop((left, top, right, bottom))
  inside = (source[0] - left, source[1] - top, source[2] - left, source[3] - top)
  return part.resize((box[2] - box[0], box[3] - box[1]), chosen, box=inside)


def square_pixels(
  image: Image.Image, how: ImageInput, resize: Resize = "crop"
) -> Float32[np.ndarray, "h w 3"]:
  """Pixels, 0 to 255, of an RGB image as the square that an encoder takes.

  Args:
    image: RGB.
    how: what the encoder asks for.
    resize: how the square is made; an encoder that knows no such way takes its own.
  """
  way = resize if resize in how.ways else how.ways[0]
  if way == "clean":
    return fid_resize.clean(image, how.size)
  if way == "legacy":
    return fid_resize.legacy(image, how.size)
  return np.asarray(to_square(image, how, "squash" if way == "squash" else "crop"), np.float32)


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
  channels = [(float(v[0]), float(v[1]), float(v[2])) for v in (mean, std)]
  return pixels_of(image, ImageInput(size, shorter, mean=channels[0], std=channels[1]), resize)


def pixels_of(
  image: Image.Image, how: ImageInput, resize: Resize = "crop"
) -> Float32[np.ndarray, "h w 3"]:
  """Pixels of any PIL image as an encoder takes them; see `square_pixels` for the arguments."""
  pixels = square_pixels(to_rgb(image), how, resize) / np.float32(255)
  return (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
