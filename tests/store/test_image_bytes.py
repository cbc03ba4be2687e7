"""Metadata are cut out of encoded images byte by byte; the rest is untouched."""

import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.store import image_bytes
from genbench_jax.store.image_bytes import without_metadata

COMMENT = b"\xff\xfe\x00\x07where"
STANDALONE = b"\xff\x01"


def encoded(kind, **options):
  pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
  held = io.BytesIO()
  Image.fromarray(pixels).save(held, kind, **options)
  return held.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_without_metadata_is_unchanged(kind):
  assert without_metadata(encoded(kind)) == encoded(kind)


def test_a_segment_of_a_jpeg_is_cut_out_exactly():
  plain = encoded("JPEG")
  assert without_metadata(plain[:2] + COMMENT + plain[2:]) == plain


@pytest.mark.parametrize("progressive", [False, True])
def test_a_marker_without_length_is_no_segment(progressive):
  plain = encoded("JPEG", progressive=progressive)
  odd = plain[:2] + STANDALONE + plain[2:]
  assert without_metadata(odd) == odd


def test_padding_before_a_marker_is_dropped():
  plain = encoded("JPEG")
  assert without_metadata(plain[:2] + b"\xff\xff" + plain[2:]) == plain


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_follows_the_image_is_dropped(kind):
  assert without_metadata(encoded(kind) + b"preview") == encoded(kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_is_cut_short_is_left_to_the_decoder(kind):
  image = encoded(kind)
  for end in (len(image) - 1, len(image) // 2, 9, 3):
    assert without_metadata(image[:end]) is None


def segment(marker, content=b""):
  return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def jpeg(*before, scan=b"\x12", after=b""):
  return b"".join([b"\xff\xd8", *before, segment(0xDA, b"head"), scan, after, b"\xff\xd9"])


def kept(image):
  return b"".join(image_bytes._jpeg_parts(image))


@pytest.mark.parametrize("size", [0, 1, 300])
@pytest.mark.parametrize("marker", range(0xC0, 0xFF))
def test_segments_that_hold_no_pixels_are_dropped(marker, size):
  """JFIF (E0) and Adobe's color transform (EE) are needed; D0 to D9 have no length, DA begins the scan."""
  if not 0xD0 <= marker <= 0xDA:
    image = jpeg(segment(marker, bytes(size)))
    dropped = 0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)
    assert kept(image) == (jpeg() if dropped else image)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_padding_before_a_marker_may_have_any_length(padding):
  assert kept(jpeg(b"\xff" * padding, segment(0xDB))) == jpeg(segment(0xDB))


def test_stuffed_bytes_and_restarts_belong_to_the_scan():
  restarts = b"".join(bytes([7, 0xFF, marker]) for marker in range(0xD0, 0xD8))
  scan = b"\x01\xff\x00" + restarts + b"\xff\xd7\xff\xd0\x02"
  assert kept(jpeg(scan=scan, after=segment(0xFE, b"where"))) == jpeg(scan=scan)


@pytest.mark.parametrize("length", [0, 1, 40, 0xFFFF])
def test_a_segment_of_impossible_length_is_an_error(length):
  broken = b"\xff\xd8\xff\xdb" + length.to_bytes(2, "big") + b"\xff\xd9\xff\xd9"
  with pytest.raises(ValueError, match="cut short"):
    kept(broken)


def test_bytes_between_segments_are_an_error():
  with pytest.raises(ValueError, match="missing marker"):
    kept(jpeg(segment(0xDB), b"\0\0", segment(0xDB)))
