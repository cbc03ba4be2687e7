"""Contact sheets of image sets: one row per class, with the class name next to its images."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from genbench_jax.export.records import labels_of
from genbench_jax.store.image_files import image_formats
from genbench_jax.store.image_pixels import to_rgb
from genbench_jax.store.image_set import ImageSet

PAPER, INK, SOFT = (253, 252, 250), (28, 27, 25), (93, 90, 84)
MARGIN, GAP, NAMES_WIDTH, LETTER_SIZE = 24, 6, 190, 16
LONGEST_NAME = 22


def contact_sheet(
  images: ImageSet, per_class: int = 8, classes: int = 30, side: int = 96
) -> Image.Image:
  """Draw the first images of each class, in rows.

  Args:
    images: the image set.
    per_class: images per class.
    classes: maximum number of rows; larger sets are sampled evenly.
    side: side of an image on the sheet, in pixels.
  """
  names = images.class_names
  rows = _evenly(len(names), classes)
  chosen = _first(images, rows, per_class)
  width = 2 * MARGIN + NAMES_WIDTH + per_class * (side + GAP)
  height = 3 * MARGIN + LETTER_SIZE + len(rows) * (side + GAP)
  sheet = Image.new("RGB", (width, height), PAPER)
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTER_SIZE)
  shown = (
    f"{len(rows)} of {len(names)} classes" if len(rows) < len(names) else f"{len(names)} classes"
  )
  title = f"{images.manifest['name']}: {len(images)} images, {shown}"
  draw.text((MARGIN, MARGIN), title, fill=SOFT, font=font)
  for row, label in enumerate(rows):
    top = 2 * MARGIN + LETTER_SIZE + row * (side + GAP)
    draw.text((MARGIN, top + side // 2), _cut(names[label]), fill=INK, font=font, anchor="lm")
    for column, index in enumerate(chosen[label]):
      place = (MARGIN + NAMES_WIDTH + column * (side + GAP), top)
      sheet.paste(_thumbnail(images[index].image, side), place)
  return sheet


def _evenly(count: int, most: int) -> list[int]:
  return list(range(count)) if count <= most else [row * count // most for row in range(most)]


def _first(images: ImageSet, labels: Sequence[int], per_class: int) -> dict[int, list[int]]:
  """Return the indices of the first images of the given classes, reading no more than necessary."""
  chosen: dict[int, list[int]] = {label: [] for label in labels}
  for index, record in enumerate(images):
    for label in labels_of(record):
      if label in chosen and len(chosen[label]) < per_class:
        chosen[label].append(index)
    if all(len(found) == per_class for found in chosen.values()):
      break
  return chosen


def _thumbnail(data: bytes, side: int) -> Image.Image:
  """Scale an image to fit a square. Small images use nearest neighbors, so that they stay sharp."""
  try:
    with Image.open(io.BytesIO(data), formats=image_formats()) as opened:
      image = to_rgb(opened)
  except (OSError, ValueError, Image.DecompressionBombError):
    return Image.new("RGB", (side, side), SOFT)
  scale = side / max(image.size)
  size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
  return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _cut(name: str) -> str:
  line = " ".join(name.split())
  return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"
