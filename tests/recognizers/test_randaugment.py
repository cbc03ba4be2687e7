"""RandAugment's operations on images whose result is known, and how they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.recognizers import randaugment as ops

SIDE = 9
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
CENTER = (SIDE - 1) / 2


def ramp(across, down):
  """An image that rises by these amounts per pixel; bilinear sampling of it is exact."""
  return jnp.repeat(jnp.asarray(100 + across * (X - CENTER) + down * (Y - CENTER))[..., None], 3, 2)


def inner(image):
  return np.asarray(image)[2:-2, 2:-2, 0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_images_are_moved_by_their_share_of_the_side(sign):
  """Two pixels of nine, which is strength 2 / 9 x 331 / 150."""
  strength = 2 / SIDE * 331 / 150
  image, sign = ramp(3, 5), jnp.asarray(sign)
  moved = ops.translate_x(image, sign, strength)
  np.testing.assert_allclose(inner(moved), inner(image) + 3 * 2 * sign, atol=1e-3)
  moved = ops.translate_y(image, sign, strength)
  np.testing.assert_allclose(inner(moved), inner(image) + 5 * 2 * sign, atol=1e-3)
  lost = np.asarray(ops.translate_x(jnp.ones((4, 331, 3)), jnp.asarray(1.0), 1.0))
  assert lost[0, :181].all() and not lost[0, 181:].any()
  lost = np.asarray(ops.translate_y(jnp.ones((331, 4, 3)), jnp.asarray(-1.0), 1.0))
  assert not lost[:150].any() and lost[150:].all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_images_are_sheared_and_turned_around_their_center(sign):
  image, tilt = ramp(3, 5), 0.3 * 0.5 * sign
  x, y = X - CENTER, Y - CENTER
  sheared = ops.shear_x(image, jnp.asarray(sign), 0.5)
  np.testing.assert_allclose(
    inner(sheared), (100 + 3 * (x + tilt * y) + 5 * y)[2:-2, 2:-2], atol=1e-3
  )
  sheared = ops.shear_y(image, jnp.asarray(sign), 0.5)
  np.testing.assert_allclose(
    inner(sheared), (100 + 3 * x + 5 * (y + tilt * x))[2:-2, 2:-2], atol=1e-3
  )
  angle = np.radians(30) * 0.5 * sign
  turned = ops.rotate(image, jnp.asarray(sign), 0.5)
  rows, columns = np.sin(angle) * x + np.cos(angle) * y, np.cos(angle) * x - np.sin(angle) * y
  np.testing.assert_allclose(inner(turned), (100 + 3 * columns + 5 * rows)[2:-2, 2:-2], atol=1e-2)


def test_blends_move_away_from_or_towards_the_other_image():
  image = jnp.asarray(np.random.default_rng(0).uniform(60, 120, (5, 5, 3)))
  gray = np.asarray(image) @ [0.299, 0.587, 0.114]
  for sign in (1.0, -1.0):
    amount = 0.9 * 0.4 * sign
    for operation, other in (
      (ops.brightness, 0), (ops.color, gray[..., None]), (ops.contrast, gray.mean()),
    ):  # fmt: skip
      found = operation(image, jnp.asarray(sign), 0.4)
      expected = np.clip(image + amount * (image - other), 0, 255)
      np.testing.assert_allclose(found, expected, rtol=1e-5)
  bright = ops.brightness(jnp.full((2, 2, 3), 250.0), jnp.asarray(1.0), 1.0)
  assert (np.asarray(bright) == 255).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sharpness_is_relative_to_a_mean_with_a_heavy_center(sign):
  image = np.zeros((5, 5, 3), np.float32) + 100
  image[2, 2] = 113
  found = np.asarray(ops.sharpness(jnp.asarray(image), jnp.asarray(sign), 0.5))[..., 0]
  smooth = np.full((5, 5), 100.0)
  smooth[1:4, 1:4] = 101
  smooth[2, 2] = 105
  np.testing.assert_allclose(
    found, image[..., 0] + 0.45 * sign * (image[..., 0] - smooth), rtol=1e-5
  )


@pytest.mark.parametrize(("strength", "step"), [(0.0, 1), (0.25, 2), (0.5, 4), (1.0, 16)])
def test_posterize_keeps_the_highest_bits(strength, step):
  image = jnp.arange(48.0).reshape(4, 4, 3)
  found = ops.posterize(image, jnp.asarray(1.0), strength)
  np.testing.assert_array_equal(found, np.arange(48).reshape(4, 4, 3) // step * step)


def test_solarize_inverts_the_bright_pixels():
  image = jnp.asarray([[[0.0, 127.5, 128.0]], [[200.0, 255.0, 127.0]]])
  found = ops.solarize(image, jnp.asarray(1.0), 0.5)
  np.testing.assert_allclose(found, [[[0, 127.5, 127]], [[55, 0, 127]]])


def test_autocontrast_stretches_each_channel_but_a_flat_one():
  image = jnp.asarray([[[10.0, 7.0, 0.0]], [[20.0, 7.0, 255.0]], [[15.0, 7.0, 51.0]]])
  found = ops.autocontrast(image, jnp.asarray(1.0), 1.0)
  np.testing.assert_allclose(found[:, 0], [[0, 7, 0], [255, 7, 255], [127.5, 7, 51]], rtol=1e-6)


def test_equalize_leaves_flat_channels_alone():
  flat = jnp.full((4, 4, 3), 9.0)
  np.testing.assert_array_equal(ops.equalize(flat, jnp.asarray(1.0), 1.0), flat)


def test_operations_are_drawn_with_a_sign_and_a_strength_of_tenths(monkeypatch):
  monkeypatch.setattr(
    ops, "OPERATIONS",
    (lambda image, sign, strength: image + sign * strength, lambda image, sign, strength: image + 100),
  )  # fmt: skip
  blank = jnp.zeros((1, 1, 3))
  once = {
    round(float(ops.randaugment(jax.random.key(seed), blank, 1, 4.0)[0, 0, 0]), 4)
    for seed in range(16)
  }
  assert once == {0.4, -0.4, 100}
  thrice = float(ops.randaugment(jax.random.key(0), blank + 7, 3, 4.0)[0, 0, 0])
  hundreds = round((thrice - 7) / 100)
  assert 0 <= hundreds <= 3 and abs(thrice - 7 - 100 * hundreds) <= 1.2 + 1e-4
  assert float(ops.randaugment(jax.random.key(0), blank + 7, 0, 4.0)[0, 0, 0]) == 7
