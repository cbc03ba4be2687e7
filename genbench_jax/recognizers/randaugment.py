"""RandAugment on the device: a few random operations per image, all of one magnitude.

Reference:
  Cubuk et al., "RandAugment", 2020 (arXiv 1909.13719), with the fourteen operations and ranges of
  torchvision.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LUMA = (0.299, 0.587, 0.114)
Pixels = Float[Array, "h w 3"]


def randaugment(key: Array, image: Pixels, count: int, magnitude: float) -> Pixels:
  """Apply `count` operations, drawn with replacement, to an image of 0 to 255.

  Args:
    key: random key.
    image: values 0 to 255.
    count: number of operations.
    magnitude: 0 to 10; signs are random.
  """
  for step_key in jax.random.split(key, count):
    which_key, sign_key = jax.random.split(step_key)
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    which = jax.random.randint(which_key, (), 0, len(OPERATIONS))
    image = jax.lax.switch(which, [functools.partial(f, strength=magnitude / 10) for f in OPERATIONS], image, sign)  # fmt: skip
  return image


# Each operation takes the image, a sign, and a strength from 0 to 1.


def identity(image: Pixels, sign: Array, strength: float) -> Pixels:
  return image


def _blend(image: Pixels, other: Array, amount: Array) -> Pixels:
  """Return (1 + amount) image - amount other, clipped to the range."""
  return jnp.clip(image + amount * (image - other), 0, 255)


def brightness(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _blend(image, jnp.zeros(()), 0.9 * strength * sign)


def color(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _blend(image, (image @ jnp.asarray(LUMA))[..., None], 0.9 * strength * sign)


def contrast(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _blend(image, (image @ jnp.asarray(LUMA)).mean(), 0.9 * strength * sign)


def sharpness(image: Pixels, sign: Array, strength: float) -> Pixels:
  """Move away from or towards a 3 x 3 mean whose center has weight five; edges stay."""
  # PIL's SMOOTH filter: [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13.
  padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
  height, width = image.shape[:2]
  around = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
  smooth = (around + 4 * image) / 13
  inner = jnp.zeros((height, width, 1)).at[1:-1, 1:-1].set(1)
  return _blend(image, inner * smooth + (1 - inner) * image, 0.9 * strength * sign)


def posterize(image: Pixels, sign: Array, strength: float) -> Pixels:
  """Keep the 8 to 4 highest bits."""
  step = 2.0 ** round(4 * strength)
  return jnp.floor(image / step) * step


def solarize(image: Pixels, sign: Array, strength: float) -> Pixels:
  return jnp.where(image >= 255 * (1 - strength), 255 - image, image)


def autocontrast(image: Pixels, sign: Array, strength: float) -> Pixels:
  low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
  return jnp.where(high > low, (image - low) * 255 / jnp.maximum(high - low, 1e-6), image)


def equalize(image: Pixels, sign: Array, strength: float) -> Pixels:
  """Equalize the histogram of each channel as PIL does."""
  return jnp.stack([_equalized(image[..., channel]) for channel in range(3)], axis=-1)


def _equalized(channel: Float[Array, "h w"]) -> Float[Array, "h w"]:
  # PIL works on integer levels.
  levels: Int[Array, "h w"] = jnp.round(channel).astype(jnp.int32)
  histogram = jnp.zeros(256).at[levels.ravel()].add(1.0)
  last = jnp.max(jnp.where(histogram > 0, jnp.arange(256), 0))
  step = jnp.floor((histogram.sum() - histogram[last]) / 255)
  before = jnp.cumsum(histogram) - histogram
  table = jnp.clip(jnp.floor((before + jnp.floor(step / 2)) / jnp.maximum(step, 1)), 0, 255)
  return jnp.where(step > 0, table[levels], channel)


def _warped(image: Pixels, matrix: list[list[Array | float]]) -> Pixels:
  """Sample the image at `matrix` (x, y, 1), relative to the center; bilinear, black outside."""
  height, width = image.shape[:2]
  y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
  # Coordinates relative to the center of the image.
  x, y = x - (width - 1) / 2, y - (height - 1) / 2
  (a, b, c), (d, e, f) = matrix
  rows, columns = d * x + e * y + f + (height - 1) / 2, a * x + b * y + c + (width - 1) / 2
  sample = lambda channel: jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1)  # noqa: E731
  return jnp.stack([sample(image[..., channel]) for channel in range(3)], axis=-1)


def rotate(image: Pixels, sign: Array, strength: float) -> Pixels:
  """Rotate by up to 30 degrees."""
  angle = math.radians(30) * strength * sign
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return _warped(image, [[cos, -sin, 0.0], [sin, cos, 0.0]])


def shear_x(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _warped(image, [[1.0, 0.3 * strength * sign, 0.0], [0.0, 1.0, 0.0]])


def shear_y(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _warped(image, [[1.0, 0.0, 0.0], [0.3 * strength * sign, 1.0, 0.0]])


def translate_x(image: Pixels, sign: Array, strength: float) -> Pixels:
  """Translate by up to 150 of 331 pixels, as in the paper."""
  return _warped(image, [[1.0, 0.0, 150 / 331 * image.shape[1] * strength * sign], [0.0, 1.0, 0.0]])


def translate_y(image: Pixels, sign: Array, strength: float) -> Pixels:
  return _warped(image, [[1.0, 0.0, 0.0], [0.0, 1.0, 150 / 331 * image.shape[0] * strength * sign]])


OPERATIONS: tuple[Callable[..., Pixels], ...] = (
  identity, brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize, rotate, shear_x, shear_y,
  translate_x, translate_y,
)  # fmt: skip
