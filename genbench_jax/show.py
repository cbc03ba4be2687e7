"""Draws a contact sheet of an image set: a row a class, its name beside its images.

python -m genbench_jax.show WORKDIR/images/digits/generative-defined_template-seed0-09e1538f900e
python -m genbench_jax.show DIR --out sheet.png --per-class 8 --classes 20
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genbench_jax.errors import RunError, UsageError
from genbench_jax.export.records import labels_of, open_image_set
from genbench_jax.progress import say
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageSet

PAPER, INK, SOFT = (253, 252, 250), (28, 27, 25), (93, 90, 84)
MARGIN, GAP, NAMES_WIDTH, LETTER_SIZE = 24, 6, 190, 16
LONGEST_NAME = 22


def contact_sheet(
  images: ImageSet, per_class: int = 8, classes: int = 30, side: int = 96
) -> Image.Image:
  """The first images of each class, in rows.

  Args:
    images: the set.
    per_class: images of a class.
    classes: rows at most; of a set with more classes they are taken evenly.
    side: of an image on the sheet, pixels.
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
  """The indices of the first images of the wanted classes; reads no further than it must."""
  chosen: dict[int, list[int]] = {label: [] for label in labels}
  for index, record in enumerate(images):
    for label in labels_of(record):
      if label in chosen and len(chosen[label]) < per_class:
        chosen[label].append(index)
    if all(len(found) == per_class for found in chosen.values()):
      break
  return chosen


def _thumbnail(data: bytes, side: int) -> Image.Image:
  """The image scaled to fit a square: small ones by whole pixels, so that they stay sharp."""
  try:
    with Image.open(io.BytesIO(data)) as opened:
      image = opened.convert("RGB")
  except (OSError, ValueError, Image.DecompressionBombError):
    return Image.new("RGB", (side, side), SOFT)
  scale = side / max(image.size)
  size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
  return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _cut(name: str) -> str:
  line = " ".join(name.split())
  return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  options = _parser().parse_args(arguments)
  try:
    if options.per_class < 1 or options.classes < 1:
      raise UsageError("--per-class and --classes must be at least 1.")
    sheet = contact_sheet(open_image_set(options.folder), options.per_class, options.classes)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    files.write_bytes(options.out, buffer.getvalue())
  except (UsageError, RunError) as error:
    say(f"error: {error}")
    return 2 if isinstance(error, UsageError) else 1
  say(f"{options.out}: {sheet.width} x {sheet.height} pixels")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.show", description="Draws a contact sheet of an image set."
  )
  parser.add_argument("folder", type=Path, help="an image set, in WORKDIR/images/DATASET")
  parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="the PNG file to write")
  parser.add_argument("--per-class", type=int, default=8, help="images of a class")
  parser.add_argument("--classes", type=int, default=30, help="rows at most")
  return parser


if __name__ == "__main__":
  sys.exit(main())
