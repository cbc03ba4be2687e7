"""Remove personal data from encoded images: EXIF, GPS, XMP, comments, text chunks, embedded previews.

Pixels are not re-encoded. Only the PNG chunks and JPEG segments that make up the picture are copied. For PNG
this is an allowlist, so that unknown kinds of metadata are dropped, too.
"""

import io
from collections.abc import Iterator

# Stored in place of an image that cannot be decoded, so that later images keep their index.
UNREADABLE = b"not an image"

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_JPEG = b"\xff\xd8"
_START_OF_SCAN, _END = 0xDA, 0xD9
# Kept are APP0, which marks a JFIF, APP14, which defines Adobe's color transform, and all tables and frames.
_JPEG_DROPPED = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def without_metadata(image: bytes) -> bytes | None:
  """Return a PNG or JPEG without metadata and with the same pixels.

  None if the image has another format, is damaged, or has an EXIF orientation: such an image must be decoded
  and re-encoded.
  """
  try:
    parts = _png_parts(image) if image.startswith(_PNG) else _jpeg_parts(image)
    kept = b"".join(parts)
  except (ValueError, IndexError):
    return None
  return kept if kept == image or _is_upright(image) else None


def _png_parts(image: bytes) -> Iterator[bytes]:
  """Yield the signature and the kept chunks. A chunk is length, type, content and a checksum of 4 bytes."""
  yield _PNG
  at, kind = len(_PNG), b""
  while kind != b"IEND":
    length, kind = int.from_bytes(image[at : at + 4], "big"), image[at + 4 : at + 8]
    end = at + 12 + length
    if end > len(image):
      raise ValueError("cut short")
    if kind in _PNG_KEPT:
      yield image[at:end]
    at = end


def _jpeg_parts(image: bytes) -> Iterator[bytes]:
  """Yield the kept segments up to the end of the picture; anything after it, such as a preview, is dropped."""
  if not image.startswith(_JPEG):
    raise ValueError("neither PNG nor JPEG")
  yield _JPEG
  at = 2
  while True:
    if image[at] != 0xFF:
      raise ValueError("missing marker")
    while image[at + 1] == 0xFF:  # padding before a marker
      at += 1
    marker = image[at + 1]
    if marker == _END:
      yield image[at : at + 2]
      return
    end = (
      at + 2 if marker in _STANDALONE else at + 2 + int.from_bytes(image[at + 2 : at + 4], "big")
    )
    if end > len(image) or (marker not in _STANDALONE and end < at + 4):
      raise ValueError("cut short")
    if marker == _START_OF_SCAN:
      end = _end_of_scan(image, end)
    if marker not in _JPEG_DROPPED:
      yield image[at:end]
    at = end


def _end_of_scan(image: bytes, at: int) -> int:
  """Return the end of the compressed data: the next marker that is not a stuffed byte or a restart."""
  while True:
    at = image.index(b"\xff", at)
    if image[at + 1] and not 0xD0 <= image[at + 1] <= 0xD7:
      return at
    at += 2


def _is_upright(image: bytes) -> bool:
  from PIL import ExifTags, Image

  try:
    with Image.open(io.BytesIO(image), formats=("PNG", "JPEG", "MPO")) as opened:
      opened.load()
      return opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
  except Exception:  # PIL's decoders raise many types for damaged and hostile files
    return False
