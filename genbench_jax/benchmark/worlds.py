"""Four small worlds of 32 x 32 images, on which the whole benchmark runs in minutes.

`digits` are scikit-learn's real handwritten digits (Alpaydin and Kaynak, UCI, 1,797 images of 8 x 8),
`digits_hard` the same digits in other styles with noise and an occluder. `shapes` are drawn. `signs` are shapes
with one color each under new names; the shipped models were trained without them. Every image is a function of
(world, split, index). The splits are disjoint: the shipped models were trained on `zoo`, `train` is the pool of
originals, and recognition is measured on `test`.
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter

from genbench_jax.benchmark.spec import DatasetSpec

# Increment this when an image or label of a world changes, so that older results are not reused.
VERSION = 1
SIDE = 32
SPLITS = ("zoo", "train", "test")
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPE_NAMES = ("circle", "square", "triangle", "pentagon", "star", "heart", "cross", "ring")
# Known to the zoo's CLIP but not to its diffusion model, for textual inversion.
UNSEEN_SHAPE = "pentagon"
# Name, color and shape. Each sign shares its color or shape with the next.
SIGNS = (
  ("caution", "yellow", "triangle"),
  ("yield", "red", "triangle"),
  ("prohibition", "red", "ring"),
  ("hospital", "red", "cross"),
  ("first aid", "green", "cross"),
  ("exit", "green", "square"),
  ("parking", "blue", "square"),
  ("cycle path", "blue", "circle"),
)
COLORS = {
  "red": (210, 45, 45),
  "green": (40, 160, 60),
  "blue": (50, 80, 210),
  "yellow": (230, 205, 40),
  "purple": (140, 60, 170),
  "orange": (240, 135, 30),
}
DIGIT_TEMPLATES = (
  "a photo of the number {}.",
  "the handwritten digit {}.",
  "a drawing of the digit {}.",
)
HARD_DIGIT_TEMPLATES = (
  "a noisy photo of the number {}.",
  "a colored digit {}, partly hidden.",
  "a bad photo of the digit {}.",
)
SHAPE_TEMPLATES = (
  "a photo of a {}.",
  "a drawing of a {}.",
  "a {} on a plain background.",
)
SIGN_TEMPLATES = (
  "a photo of a {} sign.",
  "a drawing of a {} sign.",
  "a {} sign on a plain background.",
)
_SHAPE_SIZES = {"zoo": 24_000, "train": 640, "test": 800}
_DIGIT_SIZES = {"zoo": 900, "train": 400, "test": 497}
_SIGN_SIZES = {"zoo": 0, "train": 640, "test": 800}


@dataclasses.dataclass(frozen=True)
class WorldExample:
  """An image and its known content, from which the zoo's captions are made."""

  image: UInt8[np.ndarray, "32 32 3"]
  label: int
  color: str
  noisy: bool
  blurry: bool
  hidden: bool


def world_specs() -> dict[str, DatasetSpec]:
  """Return the specs of the four worlds by name."""
  return {
    "digits": _spec("digits", DIGIT_NAMES, DIGIT_TEMPLATES, _DIGIT_SIZES),
    "digits_hard": _spec("digits_hard", DIGIT_NAMES, HARD_DIGIT_TEMPLATES, _DIGIT_SIZES),
    "shapes": _spec("shapes", SHAPE_NAMES, SHAPE_TEMPLATES, _SHAPE_SIZES),
    "signs": _spec("signs", [name for name, _, _ in SIGNS], SIGN_TEMPLATES, _SIGN_SIZES),
  }


def world_size(world: str, split: str) -> int:
  """Return the number of images in a split."""
  return {"shapes": _SHAPE_SIZES, "signs": _SIGN_SIZES}.get(world, _DIGIT_SIZES)[split]


def world_example(world: str, split: str, index: int, variant: int = 0) -> WorldExample:
  """Draw image `index` of a split.

  Args:
    world: name of the world.
    split: name of the split.
    index: index of the image.
    variant: if positive, draw the same subject under other conditions.
  """
  rng = np.random.default_rng([zlib.crc32(world.encode()), SPLITS.index(split), index, variant])
  if world == "shapes":
    label = index % len(SHAPE_NAMES)
    return _drawn_example(rng, label, SHAPE_NAMES[label], str(rng.choice(list(COLORS))))
  if world == "signs":
    label = index % len(SIGNS)
    _, color, shape = SIGNS[label]
    return _drawn_example(rng, label, shape, color)
  image, label = _digit(split, index)
  if variant:
    image = _jitter(image, rng)
  return _hard_digit(image, label, rng) if world == "digits_hard" else _plain_digit(image, label)


def _spec(
  name: str, class_names: Sequence[str], templates: tuple[str, ...], sizes: dict[str, int]
) -> DatasetSpec:
  return DatasetSpec(
    name=name,
    group="demo",
    class_names=tuple((class_name,) for class_name in class_names),
    templates=templates,
    metric="accuracy",
    splits={"train": "train", "test": "test"},
    split_sizes={split: sizes[split] for split in ("train", "test")},
    tfds_name="",
  )


@functools.cache
def _digit_splits() -> dict[str, tuple[UInt8[np.ndarray, "n 8 8"], np.ndarray]]:
  from sklearn.datasets import load_digits

  data = load_digits()
  images = np.round(data.images * (255 / 16)).astype(np.uint8)
  order = np.random.default_rng(2307).permutation(len(images))
  ends = np.cumsum([_DIGIT_SIZES[split] for split in SPLITS])
  parts = np.split(order, ends[:-1])
  return {s: (images[part], data.target[part]) for s, part in zip(SPLITS, parts, strict=True)}


def _digit(split: str, index: int) -> tuple[Float[np.ndarray, "32 32"], int]:
  """Return the ink of a digit, 0 to 1, and its class."""
  images, labels = _digit_splits()[split]
  large = Image.fromarray(images[index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
  return np.asarray(large, np.float32) / 255, int(labels[index])


def _jitter(
  ink: Float[np.ndarray, "32 32"], rng: np.random.Generator
) -> Float[np.ndarray, "32 32"]:
  """Rotate, scale and shift a digit slightly, like other handwriting."""
  angle, scale = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(0.9, 1.12)
  shift = rng.uniform(-1.5, 1.5, 2)
  cos, sin, center = np.cos(angle) / scale, np.sin(angle) / scale, (SIDE - 1) / 2
  x0, y0 = center + shift
  matrix = (cos, sin, center - cos * x0 - sin * y0, -sin, cos, center + sin * x0 - cos * y0)
  image = Image.fromarray((ink * 255).astype(np.uint8))
  turned = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
  return np.asarray(turned, np.float32) / 255


def _plain_digit(ink: Float[np.ndarray, "32 32"], label: int) -> WorldExample:
  image = np.repeat((ink * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
  return WorldExample(image, label, color="white", noisy=False, blurry=False, hidden=False)


def _hard_digit(
  ink: Float[np.ndarray, "32 32"], label: int, rng: np.random.Generator
) -> WorldExample:
  """Draw a colored digit on a colored ground, often with noise, often partly hidden by a bar."""
  color = str(rng.choice(list(COLORS)))
  ground = rng.uniform(0, 255, 3) * rng.choice([0.25, 1.0])
  image = _paint(ink, np.asarray(COLORS[color]), ground)
  hidden = bool(rng.random() < 0.6)
  if hidden:
    image = _hide(image, rng)
  noisy = bool(rng.random() < 0.7)
  return WorldExample(
    _finish(image, rng, noise=28.0 if noisy else 4.0, blur=0.0), label, color, noisy, False, hidden
  )


def _drawn_example(rng: np.random.Generator, label: int, shape: str, color: str) -> WorldExample:
  """Draw a colored shape on a shaded ground; about a third noisy, a fifth blurry, a fifth hidden."""
  ground = np.full(3, rng.uniform(10, 245)) + rng.uniform(-20, 20, 3)
  shade = 1 + rng.uniform(-0.25, 0.25) * np.linspace(-1, 1, SIDE)[:, None, None]
  mask = _shape_mask(shape, rng)
  image = _paint(mask, np.asarray(COLORS[color]) * rng.uniform(0.8, 1.1), ground * shade)
  noisy, blurry, hidden = (
    bool(u < p) for u, p in zip(rng.random(3), (0.35, 0.2, 0.2), strict=True)
  )
  if hidden:
    image = _hide(image, rng)
  image = _finish(image, rng, noise=30.0 if noisy else 4.0, blur=1.5 if blurry else 0.0)
  return WorldExample(image, label, color, noisy, blurry, hidden)


def _paint(
  mask: Float[np.ndarray, "32 32"], ink: np.ndarray, ground: np.ndarray
) -> Float[np.ndarray, "32 32 3"]:
  return ground + mask[..., None] * (ink - ground)


def _hide(image: Float[np.ndarray, "32 32 3"], rng: np.random.Generator) -> np.ndarray:
  """Draw a gray bar across the image."""
  start, width = int(rng.integers(4, SIDE - 9)), int(rng.integers(3, 7))
  rows = slice(start, start + width)
  hidden = image.copy()
  hidden[rows if rng.random() < 0.5 else (slice(None), rows)] = rng.uniform(90, 165)
  return hidden


def _finish(
  image: Float[np.ndarray, "32 32 3"], rng: np.random.Generator, noise: float, blur: float
) -> UInt8[np.ndarray, "32 32 3"]:
  noisy = image + rng.normal(0, noise, image.shape)
  pixels = np.clip(noisy, 0, 255).round().astype(np.uint8)
  if not blur:
    return pixels
  return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(blur)))


def _shape_mask(shape: str, rng: np.random.Generator) -> Float[np.ndarray, "32 32"]:
  """Return the coverage, 0 to 1, of a shape with random position, size and angle, drawn at 4 times the size."""
  radius = rng.uniform(9.0, 13.0)
  center = SIDE / 2 + rng.uniform(-4.0, 4.0, 2)
  angle = np.deg2rad(rng.uniform(-20, 20))
  canvas = Image.new("L", (4 * SIDE, 4 * SIDE))
  draw = ImageDraw.Draw(canvas)
  for outline, ink in _outlines(shape):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = 4 * (center + radius * outline @ turn.T)
    draw.polygon([tuple(point) for point in points.tolist()], fill=ink)
  return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255


def _outlines(shape: str) -> list[tuple[Float[np.ndarray, "m 2"], int]]:
  """Return the polygons of a shape with radius 1 in drawing order, each with its ink (0 cuts a hole)."""
  if shape == "circle":
    return [(_polygon(64), 255)]
  if shape == "ring":
    return [(_polygon(64), 255), (0.55 * _polygon(64), 0)]
  if shape == "star":
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    return [(radii * _polygon(10), 255)]
  if shape == "cross":
    a, b = 1.0, 0.33
    corners = [(b, a), (b, b), (a, b), (a, -b), (b, -b), (b, -a)]
    return [(np.array(corners + [(-x, -y) for x, y in corners]), 255)]
  if shape == "heart":
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [(np.stack([x, -y], axis=1) / 16, 255)]
  sides = {"triangle": 3, "square": 4, "pentagon": 5}[shape]
  start = np.pi / 4 if shape == "square" else 0.0
  return [(_polygon(sides, start), 255)]


def _polygon(sides: int, start: float = 0.0) -> Float[np.ndarray, "m 2"]:
  """Return a regular polygon with radius 1 and its first corner on top, rotated by `start` radians."""
  angles = start + np.arange(sides) * (2 * np.pi / sides)
  return np.stack([np.sin(angles), -np.cos(angles)], axis=1)
