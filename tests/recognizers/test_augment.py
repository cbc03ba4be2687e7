"""Device augmentation matches PIL and the papers, and is a function of its key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from genbench_jax.recognizers import randaugment as ops
from genbench_jax.recognizers.augment import (
  Crop,
  Examples,
  _is_plain,
  _random_box,
  augmented_image,
  central,
  central_crop,
  cropped,
  mixed,
  random_crop,
)
from genbench_jax.recognizers.settings import Recipe


def picture(side=40):
  """Return a smooth image with an edge."""
  y, x = np.mgrid[:side, :side] / side
  image = np.stack([255 * x, 255 * y, 128 + 100 * np.sin(6 * x)], axis=-1)
  image[side // 4 : side // 2, side // 3 :] = (240, 20, 60)
  return image.astype(np.uint8)


@pytest.mark.parametrize("box", [(3, 5, 33, 37), (0, 0, 40, 40), (10, 12, 20, 19)])
def test_a_crop_equals_the_bilinear_resize_of_pil(box):
  left, top, right, bottom = box
  image = picture()
  crop = Crop(*(jnp.asarray(v, jnp.float32) for v in (top, left, bottom - top, right - left)))
  ours = cropped(jnp.asarray(image), crop, jnp.asarray(False), 16)
  pils = Image.fromarray(image).crop(box).resize((16, 16), Image.Resampling.BILINEAR)
  # PIL rounds between its two passes and at the end.
  np.testing.assert_allclose(ours, np.asarray(pils), atol=1.01)
  mirrored = cropped(jnp.asarray(image), crop, jnp.asarray(True), 16)
  np.testing.assert_allclose(mirrored, ours[:, ::-1], atol=1e-3)


def test_random_crops_are_inside_and_have_the_requested_areas():
  keys = jax.random.split(jax.random.key(0), 500)
  crops = jax.vmap(lambda key: random_crop(key, 64, 0.25))(keys)
  assert (crops.top >= 0).all() and (crops.top + crops.height <= 64).all()
  assert (crops.left >= 0).all() and (crops.left + crops.width <= 64).all()
  area, ratio = crops.height * crops.width / 64**2, crops.width / crops.height
  assert area.min() > 0.2 and area.max() <= 1 and 0.55 < area.mean() < 0.68
  # 4 / 3 up to the rounding of small sides.
  assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.4


def test_augmentation_is_a_function_of_its_key():
  image, recipe = jnp.asarray(picture()), Recipe(randaugment=2)
  run = jax.jit(lambda key: augmented_image(key, image, recipe, 24))
  first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 10 and first.shape == (24, 24, 3)
  plain = augmented_image(jax.random.key(0), image, Recipe(min_crop=1.0, flip=False), 24)
  np.testing.assert_array_equal(plain, central(image, 24))


def examples(count=4, size=8):
  pixels = jnp.arange(count, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, size, size, 3))
  return Examples(pixels, jnp.eye(count), jnp.arange(1.0, count + 1))


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_pixels_targets_and_weights_are_mixed_by_the_same_share(mixup, cutmix):
  for seed in range(6):
    found = mixed(jax.random.key(seed), examples(), mixup, cutmix)
    np.testing.assert_allclose(found.targets.sum(axis=1), 1, rtol=1e-5)
    share = found.targets[0, 0]
    # Of image 0 (all zeros) and image 3 (all threes) the mean is what image 3 has of it.
    assert float(found.pixels[0].mean()) == pytest.approx(3 * (1 - float(share)), abs=1e-4)
    assert float(found.weights[0]) == pytest.approx(float(share + 4 * (1 - share)), rel=1e-4)
  same = mixed(jax.random.key(0), examples(), 0.0, 0.0)
  np.testing.assert_array_equal(same.pixels, examples().pixels)


PIL_OPERATIONS = {
  ops.brightness: lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
  ops.color: lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
  ops.contrast: lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
  ops.sharpness: lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
  ops.autocontrast: lambda image, s: ImageOps.autocontrast(image),
  ops.equalize: lambda image, s: ImageOps.equalize(image),
  ops.posterize: lambda image, s: ImageOps.posterize(image, 8 - round(4 * s)),
  ops.solarize: lambda image, s: ImageOps.solarize(image, round(255 * (1 - s))),
}


@pytest.mark.parametrize("operation", PIL_OPERATIONS, ids=lambda one: one.__name__)
def test_operations_equal_those_of_pil(operation):
  image, strength = picture(), 0.5
  ours = jax.jit(lambda pixels: operation(pixels, jnp.asarray(1.0), strength))(jnp.asarray(image, jnp.float32))  # fmt: skip
  wanted = np.asarray(PIL_OPERATIONS[operation](Image.fromarray(image), strength), np.float32)
  # PIL rounds each pixel and its gray values.
  assert np.abs(np.asarray(ours) - wanted).mean() < 0.7


def test_shifts_and_turns_move_pixels_and_fill_with_black():
  image = jnp.full((33, 33, 3), 200.0)
  assert float(ops.rotate(image, jnp.asarray(1.0), 1.0)[0, 0, 0]) < 150
  shifted = ops.translate_x(image, jnp.asarray(1.0), 1.0)
  assert float(shifted[16, -1, 0]) == 0 and float(shifted[16, 0, 0]) == 200
  assert len(ops.OPERATIONS) == 14


def test_mixup_blends_whole_images_and_cutmix_pastes_rectangles():
  shares, boxes = [], 0
  for seed in range(12):
    blended = mixed(jax.random.key(seed), examples(), 0.5, 0.0).pixels[0]
    assert np.ptp(blended) < 1e-6
    pasted = np.asarray(mixed(jax.random.key(seed), examples(), 0.0, 0.5).pixels[0, ..., 0])
    assert set(np.unique(pasted)) <= {0, 3}
    rows, columns = (pasted == 3).any(axis=1), (pasted == 3).any(axis=0)
    assert (pasted == 3).sum() == rows.sum() * columns.sum()
    either = np.asarray(mixed(jax.random.key(seed), examples(), 0.5, 0.5).pixels[0])
    boxes += set(np.unique(either)) <= {0, 3}
    shares.append(float(blended.mean()) / 3)
  assert 1 < boxes < 11
  assert 0.2 < np.mean(shares) < 0.8 and np.std(shares) > 0.1


@pytest.mark.parametrize(("share", "pixels"), [(0.75, 16), (1.0, 0)])
def test_a_rectangle_has_the_area_that_the_other_image_takes(share, pixels):
  """Of 8 x 8 pixels, unless it is cut at an edge."""
  keys = jax.random.split(jax.random.key(0), 60)
  masks = np.asarray(jax.vmap(lambda key: _random_box(key, 8, jnp.asarray(share)))(keys))
  sizes = masks.sum(axis=(1, 2))
  assert sizes.max() == pixels and set(np.unique(masks)) <= {0, 1}
  if pixels:
    assert sizes.min() < pixels and sizes.min() >= 4


def test_a_smaller_image_is_taken_whole_and_a_larger_one_from_its_middle():
  assert [float(value) for value in central_crop(10, 4)] == [3, 3, 4, 4]
  assert [float(value) for value in central_crop(9, 4)] == [2, 2, 4, 4]
  assert [float(value) for value in central_crop(3, 4)] == [0, 0, 3, 3]
  found = central(np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3), 2)
  np.testing.assert_array_equal(found, np.arange(75).reshape(5, 5, 3)[1:3, 1:3])


@pytest.mark.parametrize(
  ("recipe", "side", "plain"),
  [
    ({"min_crop": 1.0, "flip": False}, 8, True),
    ({"min_crop": 1.0, "flip": False}, 9, True),
    ({"min_crop": 1.0, "flip": False}, 7, False),
    ({"min_crop": 1.0, "flip": True}, 8, False),
    ({"min_crop": 0.9, "flip": False}, 8, False),
  ],
)
def test_nothing_is_done_to_images_without_augmentation(recipe, side, plain):
  assert _is_plain(Recipe(**recipe), side, 8) == plain


def test_half_of_the_images_are_mirrored():
  image, recipe = jnp.asarray(picture(16)), Recipe(min_crop=1.0)
  keys = jax.random.split(jax.random.key(0), 40)
  found = np.asarray(jax.vmap(lambda key: augmented_image(key, image, recipe, 16))(keys))
  straight = [np.allclose(each, image, atol=0.01) for each in found]
  assert all(
    s or np.allclose(each, image[:, ::-1], atol=0.01)
    for s, each in zip(straight, found, strict=True)
  )
  assert 0.25 < np.mean(straight) < 0.75
