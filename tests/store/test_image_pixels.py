"""Images of every mode as upright 8-bit RGB."""

import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.store.image_pixels import to_rgb

GREY = np.tile((np.arange(64) * 4).astype(np.uint8), (64, 1))


def photo(height, width, seed=0):
  """Return a smooth color image with some noise."""
  draw = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = np.stack([np.sin(y / 3), np.cos(x / 5), np.sin((x + y) / 7)], -1) * 90 + 128
  return Image.fromarray((waves + draw.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8))


def stored(image, kind, **options):
  """Return the image after a round trip through a file."""
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return Image.open(io.BytesIO(buffer.getvalue()))


def test_exif_orientation_is_applied():
  image = photo(24, 40)
  exif = Image.Exif()
  exif[0x0112] = 6  # rotated by a quarter
  turned = to_rgb(stored(image, "PNG", exif=exif))
  np.testing.assert_array_equal(turned, np.asarray(image).transpose(1, 0, 2)[:, ::-1])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode):
  image = photo(32, 32).convert(mode)
  rgb = to_rgb(image)
  assert rgb.mode == "RGB" and rgb.size == (32, 32)
  np.testing.assert_array_equal(rgb, image.convert("RGB"))


def test_sixteen_bits_are_scaled_not_clipped():
  ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
  image = to_rgb(stored(Image.fromarray(ramp), "PNG"))
  np.testing.assert_array_equal(np.asarray(image)[..., 0], ramp // 257)


def test_transparent_palette_gives_no_warning():
  image = photo(32, 32).quantize(16)
  opened = stored(image, "PNG", transparency=bytes([0] * 16))
  assert "transparency" in opened.info
  np.testing.assert_array_equal(to_rgb(opened), image.convert("RGB"))


def test_first_frame_of_an_animation():
  frames = [photo(32, 32, seed).quantize(64) for seed in range(3)]
  opened = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(to_rgb(opened), frames[0].convert("RGB"))


@pytest.mark.parametrize(
  "pixels",
  [
    GREY.astype(np.float32) / 255,
    GREY.astype(np.float32),
    GREY.astype(np.int32),
    GREY.astype(np.int32) * 257,
  ],
)
def test_white_level_of_32_bit_gray_is_inferred_from_its_range(tmp_path, pixels):
  Image.fromarray(pixels).save(tmp_path / "gray.tif")
  with Image.open(tmp_path / "gray.tif") as image:
    shown = np.asarray(to_rgb(image))[..., 0].astype(int)
  assert np.abs(shown - GREY).max() <= 1


@pytest.mark.parametrize(
  "pixels",
  [GREY.astype(np.float32) * 100, GREY - 10.0, GREY * np.nan, GREY.astype(np.int32) * 2**22],
)
def test_gray_with_unknown_white_level_is_unreadable(tmp_path, pixels):
  Image.fromarray(pixels.astype(pixels.dtype if pixels.dtype == np.int32 else np.float32)).save(
    tmp_path / "gray.tif"
  )
  with (
    Image.open(tmp_path / "gray.tif") as image,
    pytest.raises(ValueError, match="unknown white level"),
  ):
    to_rgb(image)


@pytest.mark.parametrize(
  ("pixels", "wanted"),
  [
    (np.float32([0, 0.5, 1]), [0, 128, 255]),  # fractions of white
    (np.float32([0, 1.5, 254.6]), [0, 2, 255]),
    (np.float32([0, 1, 255]), [0, 1, 255]),
    (np.int32([0, 0, 1]), [0, 0, 1]),  # an almost black image of 8 bits
    (np.int32([0, 7, 255]), [0, 7, 255]),
    (np.int32([0, 257, 256]), [0, 1, 0]),
    (np.int32([0, 256, 65_535]), [0, 0, 255]),
  ],
)
def test_gray_of_32_bits_is_scaled_by_its_white_level(pixels, wanted):
  image = to_rgb(stored(Image.fromarray(pixels[None]), "TIFF"))
  assert np.asarray(image)[0].tolist() == [[value] * 3 for value in wanted]


@pytest.mark.parametrize(
  "pixels",
  [
    np.float32([-0.1, 0.5, 1]),
    np.float32([0, np.nan, 1]),
    np.float32([0, 1, 255.5]),
    np.int32([-1, 0, 255]),
    np.int32([0, 1, 65_536]),
  ],
)
def test_gray_of_32_bits_without_a_white_level_is_rejected(pixels):
  with pytest.raises(ValueError, match="unknown white level"):
    to_rgb(stored(Image.fromarray(pixels[None]), "TIFF"))
