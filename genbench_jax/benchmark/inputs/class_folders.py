"""Read one folder per class, at the top, in a wrapper folder or in `train/`; or images with a list of labels."""

import os
import posixpath
from collections.abc import Callable
from pathlib import Path

from genbench_jax.benchmark.inputs import label_list
from genbench_jax.benchmark.inputs.image_list import ImageList, reader_of
from genbench_jax.benchmark.inputs.tree import class_place
from genbench_jax.errors import UsageError
from genbench_jax.store.image_files import ImageWalk


def class_folders(root: Path, is_class: Callable[[str], bool]) -> ImageList:
  """List the images of a folder.

  Args:
    root: folder that contains the class folders, possibly in a subfolder.
    is_class: whether a folder name may be that of a class.

  Raises:
    UsageError: there are neither class folders nor a list of labels.
  """
  walk = ImageWalk(root)
  place = class_place(
    lambda folder: [posixpath.basename(path) for path in _folders(root, folder)],
    is_class,
    lambda folder: label_list.list_in(root / folder) is not None,
  )
  if file := label_list.list_in(root / place.folder):
    return label_list.listed_images(file, walk, place)
  names = walk.folders(place.folder)
  if not names:
    # A list without classes: the error names its columns.
    for file in (root / place.folder / name for name in label_list.NAMES):
      if os.path.lexists(file):
        return label_list.listed_images(file, walk, place)
    lists = " or ".join(label_list.NAMES)
    raise UsageError(
      f"{root} has no class folders and no {lists}: expected CLASS/*.png, with class names or indices."
    )
  found = [(path, posixpath.basename(name)) for name in names for path in walk.images(name)]
  return ImageList(
    root,
    [path for path, _ in found],
    [(name,) for _, name in found],
    [(root, path) for path, _ in found],
    [None] * len(found),
    reader_of(root, [path for path, _ in found]),
    (*place.notes, *walk.notes()),
    tuple(posixpath.basename(name) for name in names),
  )


def _folders(root: Path, folder: str) -> list[str]:
  return ImageWalk(root).folders(folder)
