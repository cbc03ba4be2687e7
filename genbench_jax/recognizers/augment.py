"""Random crops, mirroring, MixUp and CutMix on the device, each a function of a key.

On the device rather than on the host: a crop with its antialiased resize and mirroring is two small matrix products an
image, below 1 % of a ResNet-50's arithmetic, while two host cores resize a few hundred photographs a second where an H100 takes
thousands. dm-pix has no antialiased crop and resize, and the rest is a few lines. Images are decoded once, to squares a little larger
than the network's, and stay uint8 until they are on the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from genbench_jax.recognizers.randaugment import randaugment
from genbench_jax.recognizers.settings import Recipe

ASPECT = 4 / 3  # of a crop, at most; at least its inverse
TRIES = 10


class Crop(NamedTuple):
  """Where a crop begins and how large it is, in pixels of the image."""

  top: Float[Array, ""]
  left: Float[Array, ""]
  height: Float[Array, ""]
  width: Float[Array, ""]


def random_crop(key: Array, side: int, min_area: float) -> Crop:
  """A crop whose area and aspect ratio are drawn until it fits, ten times at most; then the whole image.

  Reference:
    Szegedy et al., "Going deeper with convolutions", 2015; areas and ratios as in torchvision's `RandomResizedCrop`.
  """
  area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
  area = side * side * jax.random.uniform(area_key, (TRIES,), minval=min_area, maxval=1.0)
  bound = jnp.log(ASPECT)
  ratio = jnp.exp(jax.random.uniform(ratio_key, (TRIES,), minval=-bound, maxval=bound))
  widths, heights = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
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
  """The matrix that resizes `length` of `side` pixels from `start` on to `size`: bilinear, antialiased.

  Row o holds the triangle around the middle of output pixel o, as wide as an output pixel where that is larger than an
  input pixel, cut at the ends of the crop: what PIL's bilinear filter does with what `crop` cut out.
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
  """A crop, resized to `size` and mirrored where asked for; 0 to 255."""
  side = image.shape[0]
  rows = resize_matrix(crop.top, crop.height, side, size)
  columns = resize_matrix(crop.left, crop.width, side, size)
  columns = jnp.where(mirrored, columns[::-1], columns)
  halfway = jnp.einsum("oi,ijc->ojc", rows, image.astype(jnp.float32))
  return jnp.einsum("pj,ojc->opc", columns, halfway)


def augmented_image(
  key: Array, image: UInt8[Array, "s s 3"], recipe: Recipe, size: int
) -> Float[Array, "z z 3"]:
  """An image as a step sees it, 0 to 255."""
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
  """Whether nothing is random and nothing is resized."""
  return recipe.min_crop >= 1 and not recipe.flip and side >= size


def central_crop(side: int, size: int) -> Crop:
  """The middle of an image at its own scale; all of an image that is smaller."""
  length = min(side, size)
  start = (side - length) // 2
  return Crop(*(jnp.asarray(value, jnp.float32) for value in (start, start, length, length)))


def central(image: UInt8[Array, "*b s s 3"], size: int) -> Float[Array, "*b z z 3"]:
  """The middle of images, 0 to 255: how they are tested."""
  start = (image.shape[-2] - size) // 2
  return image[..., start : start + size, start : start + size, :].astype(jnp.float32)


class Examples(NamedTuple):
  """Images of a batch as a step sees them, their targets, and the weights of their losses."""

  pixels: Float[Array, "b z z 3"]
  targets: Float[Array, "b k"]
  weights: Float[Array, "b"]


def mixed(key: Array, examples: Examples, mixup: float, cutmix: float) -> Examples:
  """MixUp or CutMix of each image with the one at the mirrored place of the batch.

  Both draw one share for the batch from Beta(a, a). MixUp adds the images by that share; CutMix pastes a rectangle of the
  other image, and takes as share what is left of the first.

  Reference:
    Zhang et al., "mixup", 2018 (arXiv 1710.09412); Yun et al., "CutMix", 2019 (arXiv 1905.04899).
  """
  if not (mixup or cutmix):
    return examples
  choice_key, share_key, box_key = jax.random.split(key, 3)
  takes_box = jax.random.bernoulli(choice_key, 0.5 if mixup and cutmix else float(cutmix > 0))
  strength = jnp.where(takes_box, cutmix or 1.0, mixup or 1.0)
  share = jax.random.beta(share_key, strength, strength)
  size = examples.pixels.shape[1]
  box = _random_box(box_key, size, share)
  # Of each pixel: how much of the first image it keeps.
  keep = jnp.where(takes_box, 1 - box, share)[..., None]
  share = jnp.where(takes_box, 1 - box.mean(), share)
  pixels, targets, weights = examples
  return Examples(
    keep * pixels + (1 - keep) * pixels[::-1],
    share * targets + (1 - share) * targets[::-1],
    share * weights + (1 - share) * weights[::-1],
  )


def _random_box(key: Array, size: int, share: Array) -> Float[Array, "z z"]:
  """A rectangle of area 1 - share around a random place, cut at the edges: 1 inside, 0 outside."""
  half = 0.5 * size * jnp.sqrt(1 - share)
  middle = jax.random.uniform(key, (2,), maxval=size)
  inside = [jnp.abs(jnp.arange(size) + 0.5 - middle[axis]) <= half for axis in range(2)]
  return (inside[0][:, None] & inside[1][None]).astype(jnp.float32)
