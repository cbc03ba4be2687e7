"""Views of a reference image, computed by hand."""

import itertools

import numpy as np
import pytest
from PIL import Image

from genbench_jax.diffusion.inversion.references import (
  _random_crop,
  reference_views,
  views_per_reference,
)
from genbench_jax.diffusion.inversion.settings import Training


def picture(height, width):
  pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
  return Image.fromarray(pixels), pixels


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("recolor", [False, True])
@pytest.mark.parametrize("crops", [0, 2])
def test_views_are_as_many_as_expected(flip, recolor, crops):
  training = Training(flip=flip, recolor=recolor, crops=crops)
  views = reference_views(picture(8, 8)[0], 8, 8, training, (0,))
  count = (1 + crops) * (1 + flip) * (6 if recolor else 1)
  assert views.shape == (count, 8, 8, 3) and views_per_reference(training) == count


def test_mirrored_and_recolored_views_hold_the_same_pixels():
  image, pixels = picture(6, 6)
  views = reference_views(image, 6, 6, Training(flip=True, recolor=True), (0,))
  expected = [
    view[..., order]
    for order in itertools.permutations(range(3))
    for view in (pixels, pixels[:, ::-1])
  ]
  np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize(
  ("size", "wanted", "rows", "columns"),
  [((4, 9), (4, 4), slice(0, 4), slice(2, 6)), ((9, 4), (4, 4), slice(2, 6), slice(0, 4)),
   ((5, 8), (5, 6), slice(0, 5), slice(1, 7))],
)  # fmt: skip
def test_the_center_is_cut_to_the_models_shape(size, wanted, rows, columns):
  image, pixels = picture(*size)
  (view,) = reference_views(image, *wanted, Training(), (0,))
  np.testing.assert_array_equal(view, pixels[rows, columns])


def test_squashing_keeps_the_whole_image():
  image, _ = picture(6, 12)
  (view,) = reference_views(image, 4, 5, Training(reference_resize="squash"), (0,))
  np.testing.assert_array_equal(view, image.resize((5, 4), Image.Resampling.BICUBIC))


def test_crops_are_squares_of_at_least_four_fifths_at_any_place():
  """Crops of an image whose pixels are their own coordinates, not resized."""
  rows, columns = np.mgrid[:20, :30].astype(np.uint8)
  image = Image.fromarray(np.stack([rows, columns, rows], -1))
  rng = np.random.default_rng(0)
  crops = [np.asarray(_random_crop(image, rng)) for _ in range(300)]
  assert (
    {crop.shape[0] for crop in crops} == {crop.shape[1] for crop in crops} == set(range(16, 21))
  )
  # Corners lie on all sides of the image.
  assert {int(crop[0, 0, 0]) for crop in crops} == set(range(5))
  assert min(int(crop[0, 0, 1]) for crop in crops) == 0
  assert max(int(crop[-1, -1, 0]) for crop in crops) == 19
  assert max(int(crop[-1, -1, 1]) for crop in crops) == 29
  assert _random_crop(Image.new("RGB", (1, 1)), rng).size == (1, 1)
