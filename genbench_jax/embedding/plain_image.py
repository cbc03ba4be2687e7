"""User images in the form in which image sets store them: same pixels, no metadata."""

import io

from PIL import Image

from genbench_jax.store.image_bytes import UNREADABLE, without_metadata
from genbench_jax.store.image_files import image_formats
from genbench_jax.store.image_pixels import to_rgb


def plain_image(image: bytes | Image.Image) -> bytes:
  """Return an image as PNG or JPEG without metadata, with the pixels that `to_rgb` gives.

  A PNG or JPEG keeps its compressed pixels. An image that must be rotated, or has another format,
  becomes a PNG.
  """
  if isinstance(image, bytes) and (stripped := without_metadata(image)) is not None:
    return stripped
  buffer = io.BytesIO()
  try:
    if isinstance(image, bytes):
      with Image.open(io.BytesIO(image), formats=image_formats()) as opened:
        picture = to_rgb(opened)
    else:
      picture = image.copy()
    # Otherwise PNG inherits EXIF data, comment and color profile of the source.
    picture.info = {}
    picture.getexif().clear()
    picture.save(buffer, format="PNG")
  except Exception:  # PIL decoders raise many exception types on damaged files
    return UNREADABLE
  return buffer.getvalue()
