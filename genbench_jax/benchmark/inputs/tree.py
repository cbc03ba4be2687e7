"""Locate the class folders in a tree of folders: at the top, in a wrapper folder, or in `train/`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# Names of split folders. If there are several, the first in this order is used.
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
DEEPEST = 6


class Place(NamedTuple):
  """The folder that contains the class folders, and notes on how it was chosen."""

  folder: str
  notes: tuple[str, ...]


def class_place(
  children: Callable[[str], Sequence[str]],
  is_class: Callable[[str], bool],
  is_end: Callable[[str], bool] = lambda folder: False,
) -> Place:
  """Find the class folders.

  The search goes from a folder with splits to the first split, and from a folder with a single subfolder into
  that one, until a folder contains a class. A name may stand for both: CIFAR-100 has a class `train`, and any
  number may be an index. Such a folder is entered if it contains classes itself.

  Args:
    children: returns the names of the folders in a folder; "" is the top.
    is_class: whether a name may be that of a class.
    is_end: whether to stop at a folder regardless of its content, for example at a list of labels.
  """

  def holds_classes(folder: str, is_split: bool) -> bool:
    # Numbered folders below a single folder may count anything, such as seeds.
    inner = [name for name in children(folder) if is_split or not name.isdigit()]
    return is_end(folder) or any(map(is_class, inner))

  folder, notes = "", []
  for _ in range(DEEPEST):
    names = [] if is_end(folder) else [*children(folder)]
    splits = splits_among(names)
    others = [name for name in names if name not in splits]
    if any(map(is_class, others)) if splits else len(names) != 1:
      break
    chosen = (splits or names)[0]
    inside = f"{folder}/{chosen}" if folder else chosen
    if any(map(is_class, names)) and not holds_classes(inside, bool(splits)):
      break
    if others := [name for name in names if name != chosen]:
      notes.append(
        f"the images of {chosen!r} are used; {', '.join(map(repr, others))} are left out."
      )
    folder = inside
  return Place(folder, tuple(notes))


def splits_among(names: Sequence[str]) -> list[str]:
  """Return the names of splits, best first."""
  splits = [name for name in names if name.lower() in SPLITS]
  return sorted(splits, key=lambda name: SPLITS.index(name.lower()))
