"""Random views of images, as the papers of CoOp and VPT train on: cropped and mirrored on the host, anew at each step."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.embedding.input_pipeline import Images, opened
from genbench_jax.embedding.preprocess import to_rgb

ASPECT = 4 / 3  # of a crop, at most; at least its inverse
TRIES = 10
# A side of 256 pixels for crops of 224.
MARGIN = 256 / 224

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class RandomViews:
  """Images of which every draw is another view; a view is a function of (seed, draw, image).

  View number draw * len(images) + i is of image i, so that a view is read like any stored image.

  Attributes:
    images: what is looked at.
    size: side of a view in pixels.
    seed: of the views.
    least_area: smallest share of the area that a crop keeps (torchvision's `RandomResizedCrop`, as in CoOp). 1: the
      shorter side is scaled to 8/7 of the size and a square is cut out anywhere (as in VPT).
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
  """Return a crop whose area and aspect ratio are drawn until it fits, ten times at most; then the middle."""
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
  """Return a square that is 7/8 as large as the shorter side, anywhere in the image."""
  side = min(width, height) / MARGIN
  left, top = random.uniform(0, width - side), random.uniform(0, height - side)
  return left, top, left + side, top + side


def view_rows(rows: Int[np.ndarray, "b"], step: int, num_images: int) -> Int[np.ndarray, "b"]:
  """Return the numbers of the views of a step: each step draws its images anew."""
  return rows + num_images * step
