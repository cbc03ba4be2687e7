"""Contributions of single test images to a score: one JSON line per cell and quantity, next to the cell's rows.

Two sources that are tested on the same images fail on the same hard ones. The contributions allow a paired
comparison, image by image. Right or wrong takes one bit per image, other
scores one float32.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.errors import RunError
from genbench_jax.store import files
from genbench_jax.store.class_values import KEYS, key_of
from genbench_jax.store.rows import Row

BITS, FLOATS = "bits", "float32"


@dataclasses.dataclass(frozen=True)
class PerImage:
  """Contributions of the test images to a score, which is their weighted mean.

  Attributes:
    values: 1 if an image was recognized, else 0; for other scores see `metrics.image_values.paired_values`.
    images: digest of the test images. Only scores with equal digests can be compared image by image.
    classes: class of each image for a mean per class, which gives classes equal weight; empty for equal
      weights of the images.
  """

  values: Float[np.ndarray, "n"]
  images: str = ""
  classes: Int[np.ndarray, "_"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

  @property
  def weights(self) -> Float[np.ndarray, "n"]:
    """Weight of each image; the sum is 1."""
    if not len(self.classes):
      return np.full(len(self.values), 1 / len(self.values))
    counts = np.bincount(self.classes)
    return 1 / (counts[self.classes] * np.sum(counts > 0))

  @property
  def score(self) -> float:
    """The score, as the weighted mean of the values."""
    return float(self.weights @ self.values)


def digest_of(split: str, ids: Any, labels: Any) -> str:
  """Return a digest of a set of test images.

  Args:
    split: digest of the content of the split that they are in.
    ids: name of each image, in order; other images may have the same names.
    labels: label of each image.
  """
  names = [str(image) for image in ids]
  return files.digest([split, names, np.asarray(labels).astype(int).tolist()])


def of_row(row: Row, found: PerImage) -> dict[str, Any]:
  """Return the JSON line of a row."""
  return {**dict(zip(KEYS, key_of(row), strict=True)), **encoded(found)}


def encoded(found: PerImage) -> dict[str, Any]:
  """Return the values as a JSON object."""
  is_bits = bool(np.isin(found.values, (0, 1)).all())
  coded = np.packbits(found.values.astype(bool)) if is_bits else found.values.astype("<f4")
  return {
    "images": found.images,
    "count": len(found.values),
    "coded": BITS if is_bits else FLOATS,
    "values": _text(coded),
    "classes": _text(found.classes.astype("<u2")),
  }


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
  """Write the file atomically, with a checksum."""
  files.write_json_lines(path, lines, sealed=True)


def read(path: Path) -> dict[tuple[Any, ...], PerImage]:
  """Return the values in a file by the key of their row, see `class_values.key_of`.

  Raises:
    RunError: the file is damaged.
  """
  lines = files.read_json_lines(path, sealed=True)
  try:
    return {key_of(line): decoded(line) for line in lines}
  except (KeyError, TypeError, ValueError) as error:
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error


def decoded(line: Mapping[str, Any]) -> PerImage:
  """Return the values of a line; the inverse of `encoded`.

  Raises:
    KeyError, TypeError, ValueError: the line has another form.
  """
  count, data = int(line["count"]), base64.b64decode(line["values"], validate=True)
  if line["coded"] == BITS:
    values = np.unpackbits(np.frombuffer(data, np.uint8))[:count].astype(np.float64)
  else:
    values = np.frombuffer(data, "<f4").astype(np.float64)
  classes = np.frombuffer(base64.b64decode(line["classes"], validate=True), "<u2").astype(np.int64)
  if len(values) != count or len(classes) not in (0, count):
    raise ValueError(f"{len(values)} values and {len(classes)} classes of {count} images")
  return PerImage(values, str(line["images"]), classes)


def _text(array: np.ndarray) -> str:
  return base64.b64encode(array.tobytes()).decode("ascii")
