"""Preprocessing against transformers' image processor."""

import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding.preprocess import preprocess, to_square
from genbench_jax.models.image_input import ImageInput

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def photo(height, width, seed=0):
  """Return a smooth color image with some noise."""
  draw = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = np.stack([np.sin(y / 3), np.cos(x / 5), np.sin((x + y) / 7)], -1) * 90 + 128
  return Image.fromarray((waves + draw.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8))


# Margins of the crop are even: the processor rounds odd ones down, OpenAI's preprocessing to even.
@pytest.mark.parametrize("size", [(32, 32), (40, 65), (65, 40), (200, 123), (20, 45), (33, 33)])
def test_crop_is_the_processors(size):
  from transformers import CLIPImageProcessor

  processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
  image = photo(*size)
  wanted = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
  pixels = preprocess(image, 32, MEAN, STD)
  assert pixels.dtype == np.float32 and pixels.shape == (32, 32, 3)
  np.testing.assert_allclose(pixels, wanted, atol=1e-6)


def test_squash_keeps_everything():
  image = photo(40, 64)
  wanted = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) / 255
  np.testing.assert_allclose(
    preprocess(image, 32, MEAN, STD, "squash"), (wanted - MEAN) / STD, atol=1e-6
  )


def test_odd_margins_are_rounded_to_even():
  # 32 x 35: the margin is 1.5, rounded to 2 as OpenAI's CenterCrop does.
  image = photo(32, 35)
  cut = np.asarray(image)[:, 2:34] / 255
  np.testing.assert_allclose(preprocess(image, 32, MEAN, STD), (cut - MEAN) / STD, atol=1e-6)


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("size", [(3, 3000), (3000, 3), (40, 700), (700, 40), (2, 2000)])
def test_oblong_images_come_out_as_from_the_whole_image(size, resize):
  image = photo(*size)
  found = preprocess(image, 32, (0,) * 3, (1,) * 3, resize)
  width, height = image.size
  if resize == "squash":
    wanted = image.resize((32, 32), Image.Resampling.BICUBIC)
  else:
    short = min(image.size)
    scaled = image.resize((32 * width // short, 32 * height // short), Image.Resampling.BICUBIC)
    left, top = ((side - 32) // 2 for side in scaled.size)
    wanted = scaled.crop((left, top, left + 32, top + 32))
  steps = np.abs(np.rint(255 * found) - np.asarray(wanted, int))
  # Other order of the axes, and boxes in single precision: by one step, or two where both round.
  assert steps.max() <= 2


def test_oblong_images_cost_what_their_square_costs():
  """A line of 60,000 pixels would be an image of 4.5 GB if all of it were scaled."""
  tracked = []
  original = Image.Image.resize

  def resize(image, size, *args, **kwargs):
    tracked.append(size[0] * size[1])
    tracked.append(size[0] * (image.height if not kwargs.get("box") else size[1]))
    return original(image, size, *args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Image.Image, "resize", resize)
    for size in ((2, 60_000), (60_000, 2)):
      for way in ("crop", "squash"):
        preprocess(Image.new("RGB", size), 224, (0,) * 3, (1,) * 3, way)
  assert max(tracked) <= 4 * 224 * 224


@pytest.mark.parametrize("size", [(40, 4000), (4000, 40)])
def test_an_encoder_that_ignores_the_aspect_ratio_crops_oblong_images(size):
  """40 x 40 pixels are more than 16 times the crop: only the needed part is scaled."""
  how = ImageInput(8, resized=40, keep_aspect=False)
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  image = Image.fromarray(pixels)
  wanted = image.resize((40, 40), Image.Resampling.BICUBIC).crop((16, 16, 24, 24))
  assert np.abs(np.asarray(to_square(image, how), int) - np.asarray(wanted, int)).max() <= 1
