"""Images as small as the page shows them."""

import io

from PIL import Image

from genbench_jax.errors import RunError

# Twice the side at which the page shows an image: sharp on a fine screen.
SIDE = 128
QUALITY = 85


def thumbnail(image: bytes | Image.Image) -> bytes:
  """A PNG or JPEG of at most 128 pixels a side; a small PNG or JPEG stays as it is.

  Raises:
    RunError: the bytes are no image.
  """
  try:
    with Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image as opened:
      small = max(opened.size) <= SIDE
      if small and isinstance(image, bytes) and opened.format in ("PNG", "JPEG"):
        return image
      picture = opened.convert("RGB")
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise RunError(f"an image for the page can't be read ({error}).") from error
  picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
  buffer = io.BytesIO()
  if small:
    picture.save(buffer, format="PNG")
  else:
    picture.save(buffer, format="JPEG", quality=QUALITY)
  return buffer.getvalue()
