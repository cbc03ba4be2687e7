"""Locate the class folders in a tree of folders: at the top, in a wrapper folder, or in `train/`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# Names of split folders. If there are several, the first in this order is used.
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_DEEPEST = 6


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

  The search stops at a folder that contains a class. From a folder with only splits it goes to the first
  split, from a folder with a single subfolder into that one.

  Args:
    children: returns the names of the folders in a folder; "" is the top.
    is_class: whether a name may be that of a class.
    is_end: whether to stop at a folder regardless of its content, for example at a list of labels.
  """
  folder, notes = "", []
  for _ in range(_DEEPEST):
    names = [] if is_end(folder) else [*children(folder)]
    if not names or any(map(is_class, names)):
      break
    splits = [name for name in names if name.lower() in SPLITS]
    if splits and len(splits) == len(names):
      chosen = min(splits, key=lambda name: SPLITS.index(name.lower()))
      if others := [name for name in splits if name != chosen]:
        notes.append(
          f"the images of {chosen!r} are used; {', '.join(map(repr, others))} are left out."
        )
    elif len(names) == 1:
      chosen = names[0]
    else:
      break
    folder = f"{folder}/{chosen}" if folder else chosen
  return Place(folder, tuple(notes))
