"""Random crops, mirroring, MixUp and CutMix on the device, each a function of a key.

Antialiased cropping with resize, and mirroring, are two small matrix products per image: less than
1 % of a ResNet-50's arithmetic. Two host cores resize a few hundred photographs per second, while
an H100 consumes thousands. dm-pix has no antialiased crop and resize. Images are decoded once, to
squares slightly larger than the network's input, and stay uint8 until they are on the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from genbench_jax.recognizers.randaugment import randaugment
from genbench_jax.recognizers.random_views import ASPECT, TRIES
from genbench_jax.recognizers.settings import Recipe


class Crop(NamedTuple):
  """Top left corner and size of a crop, in pixels of the image."""

  top: Float[Array, ""]
  left: Float[Array, ""]
  height: Float[Array, ""]
  width: Float[Array, ""]


def random_crop(key: Array, side: int, min_area: float) -> Crop:
  """Draw area and aspect ratio of a crop until it fits, ten times at most; else take all.

  Args:
    key: random key.
    side: side of the image in pixels.
    min_area: smallest area, relative to the image.

  Reference:
    Szegedy et al., "Going deeper with convolutions", 2015; ranges as in torchvision's
    `RandomResizedCrop`.
  """
  area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
  area = side * side * jax.random.uniform(area_key, (TRIES,), minval=min_area, maxval=1.0)
  # Uniform in the logarithm: portrait and landscape crops are equally likely.
  bound = jnp.log(ASPECT)
  ratio = jnp.exp(jax.random.uniform(ratio_key, (TRIES,), minval=-bound, maxval=bound))
  widths, heights = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
  # All tries are drawn at once, because shapes are static; the first that fits is used.
  fits = (widths <= side) & (heights <= side)
  first = jnp.argmax(fits)
  height = jnp.where(fits.any(), heights[first], side)
  width = jnp.where(fits.any(), widths[first], side)
  top = jnp.floor(jax.random.uniform(top_key) * (side - height + 1))
  left = jnp.floor(jax.random.uniform(left_key) * (side - width + 1))
  return Crop(top, left, height, width)


def resize_matrix(
  start: Float[Array, ""], length: Float[Array, ""], side: int, size: int
) -> Float[Array, "o i"]:
  """Return the matrix that resizes `length` pixels from `start` to `size`: bilinear, antialiased.

  Row o is a triangle around the center of output pixel o. It is as wide as an output pixel when
  shrinking, else as wide as an input pixel, and cut at the ends of the crop. This equals PIL's
  bilinear filter on the cropped image.

  Args:
    start: first pixel of the crop.
    length: length of the crop in pixels.
    side: side of the image.
    size: side of the result.
  """
  scale = length / size
  middles = start + (jnp.arange(size) + 0.5) * scale
  pixels = jnp.arange(side) + 0.5
  weights = jnp.maximum(0.0, 1 - jnp.abs(pixels - middles[:, None]) / jnp.maximum(scale, 1.0))
  inside = (pixels > start) & (pixels < start + length)
  weights = jnp.where(inside, weights, 0.0)
  return weights / weights.sum(axis=1, keepdims=True)


def cropped(
  image: UInt8[Array, "s s 3"], crop: Crop, mirrored: Array, size: int
) -> Float[Array, "z z 3"]:
  """Crop an image and resize it, with values 0 to 255.

  Args:
    image: decoded square.
    crop: part of the image to keep.
    mirrored: whether to mirror the result.
    size: side of the result.
  """
  side = image.shape[0]
  rows = resize_matrix(crop.top, crop.height, side, size)
  columns = resize_matrix(crop.left, crop.width, side, size)
  columns = jnp.where(mirrored, columns[::-1], columns)
  # Separable resize: first the rows [z, s, 3], then the columns [z, z, 3].
  halfway = jnp.einsum("oi,ijc->ojc", rows, image.astype(jnp.float32))
  return jnp.einsum("pj,ojc->opc", columns, halfway)


def augmented_image(
  key: Array, image: UInt8[Array, "s s 3"], recipe: Recipe, size: int
) -> Float[Array, "z z 3"]:
  """Return an image as a training step sees it, with values 0 to 255.

  Args:
    key: random key of the image and step.
    image: decoded square.
    recipe: settings of the augmentation.
    size: side of the network's input.
  """
  crop_key, flip_key, randaugment_key = jax.random.split(key, 3)
  if recipe.min_crop < 1:
    crop = random_crop(crop_key, image.shape[0], recipe.min_crop)
  else:
    crop = central_crop(image.shape[0], size)
  mirrored = jax.random.bernoulli(flip_key) if recipe.flip else jnp.asarray(False)
  found = central(image, size) if _is_plain(recipe, image.shape[0], size) else cropped(
    image, crop, mirrored, size
  )  # fmt: skip
  if not recipe.randaugment:
    return found
  return randaugment(randaugment_key, found, recipe.randaugment, recipe.randaugment_magnitude)


def _is_plain(recipe: Recipe, side: int, size: int) -> bool:
  """Return whether nothing is random and nothing is resized."""
  return recipe.min_crop >= 1 and not recipe.flip and side >= size


def central_crop(side: int, size: int) -> Crop:
  """Return the center of an image at its own scale; the whole image if it is smaller."""
  length = min(side, size)
  start = (side - length) // 2
  return Crop(*(jnp.asarray(value, jnp.float32) for value in (start, start, length, length)))


def central(image: UInt8[Array, "*b s s 3"], size: int) -> Float[Array, "*b z z 3"]:
  """Return the centers of images, 0 to 255, as used for testing."""
  start = (image.shape[-2] - size) // 2
  return image[..., start : start + size, start : start + size, :].astype(jnp.float32)


class Examples(NamedTuple):
  """Images of a batch as a step sees them, with their targets and loss weights."""

  pixels: Float[Array, "*b z z 3"]
  targets: Float[Array, "*b k"]
  weights: Float[Array, "*b"]


def mixed(key: Array, examples: Examples, mixup: float, cutmix: float) -> Examples:
  """Apply MixUp or CutMix to each image and the one at the mirrored position of the batch.

  Both draw one fraction per batch from Beta(a, a). MixUp blends the images with it. CutMix pastes a
  rectangle of the other image and uses as fraction what remains of the first one.

  Args:
    key: random key.
    examples: the batch.
    mixup, cutmix: parameter of the Beta distribution; 0 disables the method. With both, each batch
      draws one.

  Reference:
    Zhang et al., "mixup", 2018 (arXiv 1710.09412); Yun et al., "CutMix", 2019 (arXiv 1905.04899).
  """
  if not (mixup or cutmix):
    return examples
  choice_key, share_key, box_key = jax.random.split(key, 3)
  takes_box = jax.random.bernoulli(choice_key, 0.5 if mixup and cutmix else float(cutmix > 0))
  strength = jnp.where(takes_box, cutmix or 1.0, mixup or 1.0)
  share = jax.random.beta(share_key, strength, strength)
  size = examples.pixels.shape[-2]
  box = _random_box(box_key, size, share)
  # How much of the first image each pixel keeps.
  keep = jnp.where(takes_box, 1 - box, share)[..., None]
  # The rectangle may be cut at the edges: use its actual area.
  share = jnp.where(takes_box, 1 - box.mean(), share)
  axes = tuple(range(examples.weights.ndim))  # a batch may be in parts
  partners = Examples(*(jnp.flip(array, axes) for array in examples))
  return Examples(
    keep * examples.pixels + (1 - keep) * partners.pixels,
    share * examples.targets + (1 - share) * partners.targets,
    share * examples.weights + (1 - share) * partners.weights,
  )


def _random_box(key: Array, size: int, share: Array) -> Float[Array, "z z"]:
  """Return the mask of a rectangle of area 1 - share around a random point, cut at the edges."""
  # A square of side sqrt(1 - share), relative to the image.
  half = 0.5 * size * jnp.sqrt(1 - share)
  middle = jax.random.uniform(key, (2,), maxval=size)
  inside = [jnp.abs(jnp.arange(size) + 0.5 - middle[axis]) <= half for axis in range(2)]
  return (inside[0][:, None] & inside[1][None]).astype(jnp.float32)
