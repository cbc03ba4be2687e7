"""Device preprocessing against PIL, for enlarging and shrinking."""

import jax
import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding.device_preprocess import preprocess_on_device, resize_weights
from genbench_jax.embedding.preprocess import to_square
from genbench_jax.models.image_input import FILTERS, ImageInput

ZERO, ONE = (0.0,) * 3, (1.0,) * 3


def smooth_and_rough(height, width):
  """Return a noise image, the worst case, and a smooth one."""
  draw = np.random.default_rng(height + width)
  noise = draw.integers(0, 256, (height, width, 3), np.uint8)
  coarse = draw.integers(0, 256, (5, 5, 3), np.uint8)
  return np.stack([noise, np.asarray(Image.fromarray(coarse).resize((width, height)))])


def difference_from_pil(height, width, size, resize, **input_settings):
  """Return the error of both images in steps of 1/255."""
  images = smooth_and_rough(height, width)
  how = ImageInput(size, **input_settings)
  weights = resize_weights(height, width, how, resize)
  made = jax.jit(preprocess_on_device, static_argnums=(2, 3))(images, weights, ZERO, ONE)
  wanted = [np.asarray(to_square(Image.fromarray(image), how, resize)) for image in images]
  return np.abs(np.rint(255 * np.asarray(made)) - np.asarray(wanted, int))


@pytest.mark.parametrize(
  ("side", "size", "resize"),
  [(512, 224, "crop"), (512, 336, "squash"), (32, 56, "crop"), (32, 32, "crop")],
)
def test_square_images_are_pils(side, size, resize):
  difference = difference_from_pil(side, side, size, resize)
  assert difference.max() <= 1
  assert (difference > 0).mean() < 1e-4


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96), (48, 32)])
def test_oblong_images_are_nearly_pils(height, width, resize):
  noise, smooth = difference_from_pil(height, width, 32, resize)
  assert noise.max() <= 8
  assert smooth.max() <= 1


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("settings", [{}, {"resized": 48}, {"resized": 40, "keep_aspect": False}])
def test_every_filter_and_crop_is_pils(name, settings):
  for side in (20, 100):  # up and down
    noise, smooth = difference_from_pil(side, side, 32, "crop", filter=name, **settings)
    assert noise.max() <= 1
    assert smooth.max() <= 1
    assert (noise > 0).mean() < 3e-2  # bilinear weights are short fractions, and ties are common


def test_mean_and_std_are_applied():
  images = np.full((1, 8, 8, 3), 255, np.uint8)
  weights = resize_weights(8, 8, ImageInput(4), "crop")
  made = preprocess_on_device(images, weights, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
  np.testing.assert_allclose(made, np.broadcast_to([1.0, 3.0, 0.5], (1, 4, 4, 3)), rtol=1e-6)
