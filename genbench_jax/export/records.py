"""Shared by all export formats: safe names, an image's metadata, and atomic folders."""

import contextlib
import io
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.printable import listed
from genbench_jax.runtime.progress import say
from genbench_jax.store.image_bytes import UNREADABLE, without_metadata
from genbench_jax.store.image_files import image_formats
from genbench_jax.store.image_pixels import to_rgb
from genbench_jax.store.image_set import ImageRecord, ImageSet

# Files with these signatures are copied; others are re-encoded as PNG.
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg"}
MARKER = ".genbench_export"
LONGEST_NAME = 60


def open_image_set(folder: Path) -> ImageSet:
  """Open the image set in a folder.

  Raises:
    UsageError: there is none; the message lists image sets below the folder.
  """
  if ImageSet.exists(folder):
    return ImageSet(folder)
  below = [str(path.parent) for path in sorted(folder.glob("**/manifest.json"))[:5]]
  hint = f" Found: {', '.join(below)}." if below else " A run writes image sets to WORKDIR/images."
  raise UsageError(f"{str(folder)!r} is not a complete image set.{hint}")


def readable(images: ImageSet, rows: Sequence[int]) -> Iterator[ImageRecord]:
  """Yield the records whose image could be decoded when the set was made; report the others.

  Args:
    images: the image set.
    rows: the records to yield.
  """
  left_out = []
  for row in rows:
    record = images[row]
    if record.image == UNREADABLE:
      left_out.append(record.origin or str(row))
    else:
      yield record
  if left_out:
    say(f"{len(left_out)} left out, can't be decoded: {listed(left_out)}.")


def labels_of(record: ImageRecord) -> tuple[int, ...]:
  """Return the classes of an image: one, or any number for a multi-label set."""
  return (record.label,) if isinstance(record.label, int) else record.label


def class_folder(label: int, class_names: tuple[str, ...]) -> str:
  """Return a folder name such as `0003_three`: sorted by label, unique, and safe for any class name."""
  return f"{label:0{max(4, len(str(len(class_names) - 1)))}d}_{safe(class_names[label])}"


def safe(name: str) -> str:
  """Reduce a name to letters, digits, `_` and `-`, with a length that every file system supports."""
  ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
  return re.sub(r"[^A-Za-z0-9-]+", "_", ascii_only).strip("_")[:LONGEST_NAME] or "class"


def encoded(record: ImageRecord) -> tuple[bytes, str]:
  """Return the image as PNG or JPEG bytes without metadata, and the file name extension.

  Raises:
    RunError: the image can't be decoded.
  """
  if (plain := without_metadata(record.image)) is not None:
    return plain, next(end for start, end in SIGNATURES.items() if plain.startswith(start))
  from PIL import Image

  buffer = io.BytesIO()
  try:
    with Image.open(io.BytesIO(record.image), formats=image_formats()) as image:
      picture = to_rgb(image)
      picture.info = {}
      picture.save(buffer, format="PNG")
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise RunError(f"image {record.index} can't be read ({error}).") from error
  return buffer.getvalue(), "png"


def about(record: ImageRecord, class_names: tuple[str, ...]) -> dict[str, Any]:
  """Return an image's metadata, for export."""
  labels = labels_of(record)
  names = [class_names[label] for label in labels]
  single = isinstance(record.label, int)
  return {
    "label": labels[0] if single else list(labels),
    "class_name": names[0] if single else names,
    "prompt": record.prompt,
    "negative_prompt": record.negative_prompt,
    "seed": record.seed,
    "index": record.index,
    "origin": record.origin,
  }


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
  """Yield a temporary folder that is renamed to `out` on success.

  Raises:
    UsageError: `out` exists and is not an empty folder.
    RunError: the folder can't be written.
  """
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UsageError(f"{str(out)!r} exists and is not an empty folder. Give another, or delete it.")
  part = out.with_name(f".{out.name}.part")
  try:
    if (part / MARKER).exists():  # left by an interrupted export
      shutil.rmtree(part)
    part.mkdir(parents=True)
    (part / MARKER).touch()
    yield part
    (part / MARKER).unlink()
    if out.exists():
      out.rmdir()
    part.rename(out)
  except OSError as error:
    raise RunError(f"can't write {out}: {error.strerror or error}.") from error
