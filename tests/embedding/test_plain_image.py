"""Stored and exported images keep their pixels and lose metadata about people and places."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genbench_jax.embedding.plain_image import UNREADABLE, plain_image
from genbench_jax.report.thumbnails import thumbnail
from genbench_jax.store.image_bytes import without_metadata
from genbench_jax.store.image_pixels import to_rgb

SECRET = b"Alice Smith, 12 Some Street"
GREY = np.tile(np.arange(0, 240, 5, np.uint8), (32, 1))
PICTURE = Image.fromarray(np.stack([GREY, GREY[:, ::-1], GREY // 2], -1))


def _encoded(form, orientation=1, mode="RGB", side=None, **options):
  exif = Image.Exif()
  exif[0x010E], exif[0x0112] = SECRET.decode(), orientation
  if form != "TIFF":
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 1.0)}
  picture = PICTURE.resize(side) if side else PICTURE
  if form == "PNG":
    text = PngInfo()
    text.add_text("parameters", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    options["pnginfo"] = text
  if form == "JPEG":
    options |= {"comment": SECRET, "icc_profile": SECRET * 9, "xmp": SECRET}
  buffer = io.BytesIO()
  picture.convert(mode).save(buffer, form, exif=exif, **options)
  return buffer.getvalue()


def _pixels(image):
  with Image.open(io.BytesIO(image)) as opened:
    return np.asarray(to_rgb(opened))


CASES = {
  "png": _encoded("PNG"),
  "png, turned": _encoded("PNG", 6),
  "palette": _encoded("PNG", mode="P"),
  "jpeg": _encoded("JPEG"),
  "progressive": _encoded("JPEG", progressive=True),
  "cmyk": _encoded("JPEG", mode="CMYK"),
  "gray": _encoded("JPEG", mode="L"),
  "jpeg, turned": _encoded("JPEG", 8),
  "with restarts": _encoded("JPEG", restart_marker_blocks=1),
  "two pictures": _encoded("JPEG") + _encoded("JPEG"),
  "webp": _encoded("WEBP", 3, lossless=True),
  "tiff": _encoded("TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_the_pixels_stay_and_all_else_goes(kind):
  assert SECRET in CASES[kind]
  plain = plain_image(CASES[kind])
  assert SECRET not in plain and b"Exif" not in plain and b"eXIf" not in plain
  np.testing.assert_array_equal(_pixels(plain), _pixels(CASES[kind]))
  assert plain_image(plain) == plain == without_metadata(plain)
  with Image.open(io.BytesIO(plain)) as opened:
    assert not dict(opened.getexif()) and not {
      "exif",
      "comment",
      "parameters",
      "icc_profile",
    } & set(opened.info)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("side", [(96, 96), (400, 300)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_thumbnails_carry_nothing_and_stand_upright(form, side, orientation):
  shown = thumbnail(_encoded(form, orientation, side=side))
  assert SECRET not in shown and b"Exif" not in shown
  with Image.open(io.BytesIO(shown)) as opened:
    assert (opened.width > opened.height) == (side[0] > side[1] and orientation == 1)
    assert (opened.width < opened.height) == (side[0] > side[1] and orientation == 6)


@pytest.mark.parametrize("cut", range(2, 400, 23))
@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive"])
def test_what_is_cut_short_is_unreadable_or_plain(kind, cut):
  plain = plain_image(CASES[kind][:-cut])
  assert SECRET not in plain
  assert plain == UNREADABLE or _pixels(plain).shape == _pixels(CASES[kind]).shape


def test_what_is_no_image_is_unreadable():
  assert plain_image(b"") == plain_image(b"\xff\xd8\xff") == plain_image(SECRET) == UNREADABLE
  assert _pixels(plain_image(PICTURE)).tolist() == np.asarray(PICTURE).tolist()


def test_thumbnails_of_16_bit_images_are_scaled_not_clipped():
  ramp = np.tile(np.arange(200, dtype=np.uint16) * 300, (150, 1))
  buffer = io.BytesIO()
  Image.fromarray(ramp).save(buffer, "PNG")
  shown = _pixels(thumbnail(buffer.getvalue())).astype(int)
  assert shown.min() < 10 and 220 < shown.max() < 240
