"""Metadata are cut out of encoded images byte by byte; the rest is untouched."""

import io

import numpy as np
import pytest
from PIL import Image

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
