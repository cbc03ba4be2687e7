"""Reference images as the autoencoder takes them, in all views that a token is learned from."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.store.image_pixels import to_rgb

# Side of a random crop relative to the image's shorter side.
CROP_SIDES = (0.8, 1.0)


def views_per_reference(training: Training) -> int:
  """Return the number of views per reference: whole and crops, mirrored and recolored."""
  return (1 + training.crops) * (2 if training.flip else 1) * (6 if training.recolor else 1)


def reference_views(
  image: Image.Image, height: int, width: int, training: Training, seed: Sequence[int]
) -> UInt8[np.ndarray, "v height width 3"]:
  """Return the views of one reference: whole and random crops, mirrored, channels permuted.

  Args:
    image: image of any mode and size.
    height, width: size of the model's images in pixels.
    training: settings of the views.
    seed: of the crops.
  """
  image = to_rgb(image)
  if training.reference_resolution:
    side = training.reference_resolution
    image = _to_size(image, side, side, training)
  rng = np.random.default_rng(seed)
  images = [image, *(_random_crop(image, rng) for _ in range(training.crops))]
  views = [np.asarray(_to_size(view, height, width, training), np.uint8) for view in images]
  if training.flip:
    views += [view[:, ::-1] for view in views]
  orders = itertools.permutations(range(3)) if training.recolor else [(0, 1, 2)]
  return np.concatenate([np.stack(views)[..., order] for order in orders])


def _random_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
  side = max(1, round(min(image.size) * rng.uniform(*CROP_SIDES)))
  left, top = (int(rng.integers(length - side + 1)) for length in image.size)
  return image.crop((left, top, left + side, top + side))


def _to_size(image: Image.Image, height: int, width: int, training: Training) -> Image.Image:
  """Resize bicubically to the given size; unless squashing, cut the center to its aspect ratio."""
  if training.reference_resize == "squash":
    return image.resize((width, height), Image.Resampling.BICUBIC)
  scale = max(width / image.width, height / image.height)
  wide, high = max(width, round(image.width * scale)), max(height, round(image.height * scale))
  left, top = (wide - width) // 2, (high - height) // 2
  scaled = image.resize((wide, high), Image.Resampling.BICUBIC)
  return scaled.crop((left, top, left + width, top + height))
