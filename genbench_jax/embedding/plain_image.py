"""Images from outside as image sets keep them: the same pixels, and nothing that tells of people or places."""

import io

from PIL import Image

from genbench_jax.embedding.preprocess import to_rgb
from genbench_jax.store.image_bytes import without_metadata
from genbench_jax.store.image_files import image_formats

# Stands for an image that can't be decoded: it keeps its place in the set, and is found unreadable there.
UNREADABLE = b"not an image"


def plain_image(image: bytes | Image.Image) -> bytes:
  """Return an image as PNG or JPEG without metadata, with the pixels that `to_rgb` finds in it.

  A PNG or JPEG keeps its compressed pixels; what is to be turned, or is of another format, becomes a PNG.
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
    picture.info = {}  # PNG would be given the EXIF, comment and profile of what was read
    picture.getexif().clear()
    picture.save(buffer, format="PNG")
  except Exception:  # PIL's decoders raise whatever they like at damaged and hostile files
    return UNREADABLE
  return buffer.getvalue()
