"""Images in the size in which the page shows them."""

import io

from PIL import Image

from genbench_jax.errors import RunError
from genbench_jax.store.image_bytes import without_metadata
from genbench_jax.store.image_files import image_formats
from genbench_jax.store.image_pixels import to_rgb

# Twice the displayed side, so that images are sharp on high-resolution screens.
SIDE = 128
QUALITY = 85


def thumbnail(image: bytes | Image.Image) -> bytes:
  """Return a PNG or JPEG of at most 128 pixels a side, without metadata.

  The pixels of a small PNG or JPEG are unchanged.

  Raises:
    RunError: the bytes are not an image.
  """
  try:
    with (
      Image.open(io.BytesIO(image), formats=image_formats())
      if isinstance(image, bytes)
      else image as opened
    ):
      small = max(opened.size) <= SIDE
      if small and isinstance(image, bytes) and (stripped := without_metadata(image)) is not None:
        return stripped
      picture = to_rgb(opened).copy()
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    raise RunError(f"an image for the page cannot be read ({error}).") from error
  picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
  picture.info = {}
  picture.getexif().clear()
  buffer = io.BytesIO()
  if small:
    picture.save(buffer, format="PNG")
  else:
    picture.save(buffer, format="JPEG", quality=QUALITY)
  return buffer.getvalue()
