"""Which test images a score recognized: one JSON line a cell and quantity, beside the rows of the cell.

Two sources that are tried on the same images err on the same hard ones. With what each image adds to the score they can be
compared image by image. Right or wrong takes a bit an image; the area under the ROC curve takes a float32 each.
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
  """What each test image adds to a score, which is the weighted mean of the values.

  Attributes:
    values: 1 where an image was recognized, 0 where not; for the ROC area its pseudo-value.
    images: a digest of the test images: only scores with equal ones can be compared image by image.
    classes: the class of each image where every class counts alike (mean per class); empty where every image does.
  """

  values: Float[np.ndarray, "n"]
  images: str = ""
  classes: Int[np.ndarray, "_"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

  @property
  def weights(self) -> Float[np.ndarray, "n"]:
    """What each image counts; they sum to 1."""
    if not len(self.classes):
      return np.full(len(self.values), 1 / len(self.values))
    counts = np.bincount(self.classes)
    return 1 / (counts[self.classes] * np.sum(counts > 0))

  @property
  def score(self) -> float:
    """The score that the values add up to."""
    return float(self.weights @ self.values)


def digest_of(ids: Any, labels: Any) -> str:
  """What tells one set of test images from another: their ids and labels, in order."""
  return files.digest([[str(one) for one in ids], np.asarray(labels).astype(int).tolist()])


def of_row(row: Row, found: PerImage) -> dict[str, Any]:
  """The line that stands behind a row."""
  return {**dict(zip(KEYS, key_of(row), strict=True)), **encoded(found)}


def encoded(found: PerImage) -> dict[str, Any]:
  """The values as JSON."""
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
  """Write the file whole or not at all, with its checksum."""
  files.write_json_lines(path, lines, sealed=True)


def read(path: Path) -> dict[tuple[Any, ...], PerImage]:
  """What a file holds, by `class_values.key_of` its row.

  Raises:
    RunError: it is damaged.
  """
  lines = files.read_json_lines(path, sealed=True)
  try:
    return {key_of(line): decoded(line) for line in lines}
  except (KeyError, TypeError, ValueError) as error:
    raise RunError(f"{path} is damaged: {error}. Delete it, then run again.") from error


def decoded(line: Mapping[str, Any]) -> PerImage:
  """What `encoded` has written.

  Raises:
    KeyError, TypeError, ValueError: it has written something else.
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
