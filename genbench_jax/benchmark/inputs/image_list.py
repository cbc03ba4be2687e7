"""The common result of all input formats: ordered images, each with its class as the owner named it."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.runtime.printable import storable
from genbench_jax.store.image_files import MOST_BYTES
from genbench_jax.store.reading import read_beneath

# Columns or keys that may contain the class of an image, best first: names before indices, fine before coarse.
CLASS_COLUMNS = (
  "class_name", "label_name", "category_name", "label_text", "class", "category", "class_label", "fine_label",
  "label", "labels", "target", "cls", "y", "class_id", "class_index", "class_idx", "category_id", "label_id",
)  # fmt: skip


def column_among(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
  """Return the first wanted column, regardless of case, spaces, hyphens and underscores; None without one."""
  plain_of = {column: re.sub(r"[\s_-]", "", column).casefold() for column in columns}
  names = (name.replace("_", "") for name in wanted)
  return next((c for name in names for c, plain in plain_of.items() if plain == name), None)


@dataclasses.dataclass(frozen=True)
class ImageList:
  """The images of an input, before images are decoded and classes matched.

  Attributes:
    root: the folder or file that was opened.
    ids: name of each image: its path inside the root, or its position.
    classes: class names given for each image; more than one is a contradiction.
    places: file that contains each image, as a folder and a path below it.
    marks: what distinguishes each image from others in the same file.
    read: index -> encoded image.
    notes: sentences about what was skipped, or where the images were found.
    named: class names that occur without images, such as empty folders.
  """

  root: Path
  ids: Sequence[str]
  classes: Sequence[tuple[str, ...]]
  places: Sequence[tuple[Path, str]]
  marks: Sequence[Any]
  read: Callable[[int], bytes]
  notes: tuple[str, ...] = ()
  named: tuple[str, ...] = ()


def reader_of(root: Path, paths: list[str]) -> Callable[[int], bytes]:
  """Return a function that reads files below a folder by index.

  Raises:
    RunError: from the returned function, if a file has disappeared or changed to something else.
  """

  def read(index: int) -> bytes:
    try:
      return read_beneath(root, paths[index], MOST_BYTES)
    except OSError as error:
      raise RunError(
        f"{storable(paths[index])!r} in {root} can't be read any more ({error.strerror}). Leave the"
        " folder unchanged during a run, then run again."
      ) from error

  return read
