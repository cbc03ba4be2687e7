"""Random views: other ones at each draw, the same for the same seed, with the areas and aspect ratios of the papers."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genbench_jax.recognizers.prompt_tuning import CoopSettings, learn_context
from genbench_jax.recognizers.random_views import (
  ASPECT,
  MARGIN,
  RandomViews,
  resized_crop,
  scaled_crop,
  view_rows,
)

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def test_a_view_is_a_function_of_seed_draw_and_image():
  views = RandomViews([PICTURE, PICTURE.rotate(180)], 16, seed=1, least_area=0.08)
  first, again = np.asarray(views[5]), np.asarray(views[5])
  np.testing.assert_array_equal(first, again)
  assert first.shape == (16, 16, 3)
  others = [views[7], views[4], RandomViews([PICTURE] * 2, 16, seed=2, least_area=0.08)[5]]
  assert all(np.any(first != np.asarray(other)) for other in others)
  assert view_rows(np.array([0, 1]), 3, 2).tolist() == [6, 7]


def test_crops_have_the_areas_and_ratios_of_the_papers():
  random = np.random.default_rng(0)
  views = RandomViews([], 16, 0, least_area=0.08)
  boxes = np.array([resized_crop(300, 200, views, random) for _ in range(500)])
  width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  assert boxes.min() >= 0 and boxes[:, 2].max() <= 300 and boxes[:, 3].max() <= 200
  share = width * height / 60_000
  assert 0.07 < share.min() < 0.12 and share.max() > 0.85
  assert (width / height).max() < 1.05 * ASPECT and (height / width).max() < 1.05 * ASPECT
  # A strip into which no crop fits: its middle.
  assert resized_crop(1000, 10, views, random) == (495, 0, 505, 10)
  left, top, right, bottom = scaled_crop(300, 200, views, random)
  assert right - left == pytest.approx(200 / MARGIN) == pytest.approx(bottom - top)


def test_half_of_the_views_are_mirrored():
  """A square image without margin to spare: the light half shows which way round it is."""
  half = Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 2, 0)).resize((64, 64), 0)
  views = RandomViews([half.convert("RGB")], 16, 0)
  mirrored = [np.asarray(views[draw])[:, 0].mean() < 128 for draw in range(200)]
  assert 0.4 < np.mean(mirrored) < 0.6


def test_a_context_trains_on_the_given_views(tiny_clip):
  """Every step reads its images again, and trains on exactly these."""
  features = np.eye(8, 16, dtype=np.float32)
  targets = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
  asked = []

  def read(rows, size):
    asked.append(rows)
    for start in range(0, len(rows), size):
      yield features[rows[start : start + size] % 8]

  settings = CoopSettings(context_length=2, steps=3, batch_size=4, warmup=1)
  names = ("cat", "dog")
  features = np.resize(features, (8, tiny_clip.width)).astype(np.float32)
  plain = learn_context(tiny_clip, names, features, targets, settings)
  seen = learn_context(tiny_clip, names, features, targets, settings, read_views=read)
  np.testing.assert_allclose(plain.vectors, seen.vectors, atol=1e-6)
  assert (asked[0] // 8).tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.unchecked
@pytest.mark.parametrize(("width", "height"), [(100, 3), (3, 100), (50, 2)])
def test_an_image_that_no_crop_fits_gives_its_central_square(width, height):
  views = SimpleNamespace(least_area=1.0)
  left, top, right, bottom = resized_crop(width, height, views, np.random.default_rng(0))
  side = min(width, height)
  assert (right - left, bottom - top) == (side, side)
  assert (left + right, top + bottom) == (width, height)


def draws(*numbers):
  """A generator of given uniform numbers between 0 and 1; integers are the highest allowed."""
  left = list(numbers)
  return SimpleNamespace(
    uniform=lambda low, high: low + (high - low) * left.pop(0), integers=lambda low, high: high - 1
  )


@pytest.mark.unchecked
@pytest.mark.parametrize(
  ("numbers", "box"),
  [
    ((1.0, 0.5), (0, 0, 40, 40)),  # the whole area, at ratio 1
    ((0.0, 0.5), (20, 20, 40, 40)),  # a quarter of it
    ((1.0, 1.0, 0.0, 0.5), (20, 20, 40, 40)),  # 46 x 35 does not fit: drawn again
    ((1.0, 0.0, 0.0, 0.5), (20, 20, 40, 40)),
    ((1.0, 1.0) * 9 + (0.0, 0.5), (20, 20, 40, 40)),  # the tenth try
    ((1.0, 1.0) * 10 + (0.0, 0.5), (0, 0, 40, 40)),  # no eleventh
  ],
)
def test_crops_are_drawn_until_one_fits_ten_times_at_most(numbers, box):
  views = SimpleNamespace(least_area=0.25)
  assert resized_crop(40, 40, views, draws(*numbers)) == box


@pytest.mark.unchecked
def test_a_scaled_crop_is_seven_eighths_of_the_shorter_side():
  for width, height in ((80, 64), (64, 80)):
    near = scaled_crop(width, height, None, draws(0.0, 0.0))
    far = scaled_crop(width, height, None, draws(1.0, 1.0))
    assert near == pytest.approx((0, 0, 56, 56))
    assert far == pytest.approx((width - 56, height - 56, width, height))
  assert pytest.approx(8 / 7) == MARGIN and pytest.approx(4 / 3) == ASPECT


def test_the_kind_of_crop_is_decided_by_the_least_area():
  """At 1 a part at its own scale, 7/8 of the side; below, areas vary."""
  ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3)))
  spans = {}
  for least in (1.0, 0.1):
    views = RandomViews([ramp], 8, 0, least)
    assert len(views) == 1
    spans[least] = [np.ptp(np.asarray(views[draw], float)[4, 1:-1, 0]) for draw in range(12)]
  assert np.ptp(spans[1.0]) < 4 < np.ptp(spans[0.1])
