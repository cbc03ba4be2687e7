"""Where in a tree of folders the class folders are: at the top, in a wrapper folder, or in `train/`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# Names of folders of splits. Of several the first one is scored.
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_DEEPEST = 6


class Place(NamedTuple):
  """The folder that holds the class folders, and why it is that one, a sentence each."""

  folder: str
  notes: tuple[str, ...]


def class_place(
  children: Callable[[str], Sequence[str]],
  is_class: Callable[[str], bool],
  is_end: Callable[[str], bool] = lambda folder: False,
) -> Place:
  """Find the class folders.

  A folder that holds a class is the place. One that holds splits alone leads into the first split, one that holds a
  single folder into it.

  Args:
    children: the names of the folders in a folder; "" is the top.
    is_class: whether a name may be that of a class.
    is_end: whether a folder is the place whatever it holds, such as one with a list of labels.
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
          f"the images of {chosen!r} are taken; {', '.join(map(repr, others))} are left out."
        )
    elif len(names) == 1:
      chosen = names[0]
    else:
      break
    folder = f"{folder}/{chosen}" if folder else chosen
  return Place(folder, tuple(notes))
