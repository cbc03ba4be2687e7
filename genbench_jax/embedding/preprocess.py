"""CLIP's image preprocessing in PIL, bit-identical to the published one.

CLIP was trained with PIL's antialiased bicubic filter. Those of TensorFlow and JAX differ from it
by up to 5/255.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32
from PIL import Image

from genbench_jax.embedding import fid_resize
from genbench_jax.models.image_input import FILTERS, ImageInput
from genbench_jax.store.image_pixels import to_rgb

Resize = Literal["crop", "squash", "clean", "legacy"]
PIL_FILTERS = {name: Image.Resampling[name.upper()] for name in FILTERS}
# If the scaled image has more than this many times the pixels of the crop, only the needed part is
# scaled.
MOST_SCALED = 16
# Radius of the widest filter (Lanczos), in source pixels at scale 1.
FILTER_REACH = 3


def to_square(image: Image.Image, how: ImageInput, resize: Resize = "crop") -> Image.Image:
  """Resize an image to the square that an encoder takes.

  Args:
    image: an RGB image.
    how: image input of the encoder.
    resize: `crop` is the encoder's own method; `squash` scales both sides to the square and ignores
      the aspect ratio.
  """
  chosen = PIL_FILTERS[how.filter]
  if resize == "squash":
    return _resized(image, (how.size, how.size), chosen)
  side, size = how.before_crop, how.size
  width, height = image.size
  if how.keep_aspect:
    short = min(width, height)
    # The published preprocessing rounds the longer side down and the crop margin half to even.
    wanted = (side * width // short, side * height // short)
  else:
    wanted = (side, side)
  left, top = round((wanted[0] - size) / 2), round((wanted[1] - size) / 2)
  box = (left, top, left + size, top + size)
  if wanted[0] * wanted[1] > MOST_SCALED * size * size:
    return _cut_first(image, wanted, box, chosen)
  return _resized(image, wanted, chosen).crop(box)


def _resized(image: Image.Image, size: tuple[int, int], chosen: Image.Resampling) -> Image.Image:
  """Resize an image, vertically first if that is much cheaper.

  PIL resizes horizontally first and keeps the intermediate at full height. For an image of 2 x
  60,000 pixels that is wasteful; resizing vertically first costs as much as the square itself. The
  order changes few pixels, by one level.
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
  """Return `image.resize(wanted).crop(box)` without computing the pixels outside the box.

  A very oblong image has millions of them.

  Args:
    image: an RGB image.
    wanted: size of the scaled image.
    box: part of the scaled image to compute.
    chosen: filter.
  """
  across, down = image.width / wanted[0], image.height / wanted[1]
  source = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
  # Cut the source region plus the filter radius first: PIL stores boxes in single precision, which
  # is too coarse for coordinates in a long image.
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
  """Return the pixels of an RGB image, 0 to 255, as the square that an encoder takes.

  Args:
    image: an RGB image.
    how: image input of the encoder.
    resize: resize method; an encoder that does not support it uses its own.
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
  """Preprocess an image: RGB, square, scaled to [0, 1], minus `mean`, divided by `std`.

  Args:
    image: any PIL image.
    size: side of the result in pixels.
    mean, std: of the three channels, in [0, 1].
    resize: `crop` (shorter side to `shorter`, then center crop) or `squash` (directly to the
      square).
    shorter: length of the shorter side in pixels; 0 means `size`.
  """
  channels = [(float(v[0]), float(v[1]), float(v[2])) for v in (mean, std)]
  return pixels_of(image, ImageInput(size, shorter, mean=channels[0], std=channels[1]), resize)


def pixels_of(
  image: Image.Image, how: ImageInput, resize: Resize = "crop"
) -> Float32[np.ndarray, "h w 3"]:
  """Preprocess any PIL image for an encoder; arguments as in `square_pixels`.

  Args:
    image: any PIL image.
    how: image input of the encoder.
    resize: `crop`, the encoder's own method, or `squash`.
  """
  pixels = square_pixels(to_rgb(image), how, resize) / np.float32(255)
  return (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
