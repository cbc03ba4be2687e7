"""Random views of images, as in CoOp and VPT: cropped and mirrored on the host at each step."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.embedding.input_pipeline import Images, opened
from genbench_jax.store.image_pixels import to_rgb

ASPECT = 4 / 3  # largest aspect ratio of a crop; the smallest is its inverse
TRIES = 10
# Images are scaled to 256 pixels for crops of 224.
MARGIN = 256 / 224

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class RandomViews:
  """Images of which each draw is another view; a view is a function of (seed, draw, image).

  View number draw * len(images) + i shows image i, so that views are read like stored images.

  Attributes:
    images: the images.
    size: side of a view in pixels.
    seed: of the views.
    least_area: smallest fraction of the area that a crop keeps (torchvision's `RandomResizedCrop`,
      as in CoOp). At 1 the shorter side is scaled to 8/7 of the size and a square is cut at a
      random position (as in VPT).
  """

  images: Images
  size: int
  seed: int
  least_area: float = 1.0

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> Image.Image:
    draw, row = divmod(index, len(self.images))
    random = np.random.default_rng([self.seed, draw, row])
    with opened(self.images[row]) as stored:
      image = to_rgb(stored)
    cut = resized_crop if self.least_area < 1 else scaled_crop
    box = cut(*image.size, self, random)
    view = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box)
    mirrored = random.random() < 0.5
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


def resized_crop(width: int, height: int, views: RandomViews, random: np.random.Generator) -> Box:
  """Draw area and aspect ratio of a crop until it fits, ten times at most; else return the center.

  Args:
    width, height: size of the image.
    views: smallest area of a crop.
    random: draws the crop.
  """
  for _ in range(TRIES):
    area = width * height * random.uniform(views.least_area, 1)
    ratio = math.exp(random.uniform(-math.log(ASPECT), math.log(ASPECT)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left = float(random.integers(0, width - w + 1))
      top = float(random.integers(0, height - h + 1))
      return left, top, left + w, top + h
  side = min(width, height)
  return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def scaled_crop(width: int, height: int, views: RandomViews, random: np.random.Generator) -> Box:
  """Return a square of 7/8 of the shorter side at a random position.

  Args:
    width, height: size of the image.
    views: unused.
    random: draws the position.
  """
  side = min(width, height) / MARGIN
  left, top = random.uniform(0, width - side), random.uniform(0, height - side)
  return left, top, left + side, top + side


def view_rows(rows: Int[np.ndarray, "b"], step: int, num_images: int) -> Int[np.ndarray, "b"]:
  """Return the view numbers of a step; each step draws its images anew.

  Args:
    rows: images of the step.
    step: number of the step.
    num_images: number of images.
  """
  return rows + num_images * step
