"""Digests of splits, which are part of the name of everything made from their images and labels."""

from typing import Any

from genbench_jax.benchmark.reader import FolderSplit, Split, TfdsSplit, WorldSplit
from genbench_jax.benchmark.worlds import VERSION
from genbench_jax.runtime.printable import storable
from genbench_jax.store import files
from genbench_jax.store.digests import FileDigests

# Metadata next to the shards of a TFDS dataset: its features, and its label names.
_TFDS_FILES = ("features.json", "*.labels.txt")


def split_digest(split: Split, known: FileDigests) -> str:
  """Return twelve digits that change if an image or a label of a split changes.

  Args:
    split: split of a dataset.
    known: remembered digests of files.
  """
  return files.digest(_content(split, known))


def _content(split: Split, known: FileDigests) -> list[Any]:
  if isinstance(split, FolderSplit):
    places = [(split.root / folder, path) for folder, path, _ in split.files]
    described = [[storable(f"{folder}/{path}"), label] for folder, path, label in split.files]
    return ["folder", described, known.of(places)]
  if isinstance(split, TfdsSplit):
    return ["tfds", *_tfds_content(split, known)]
  if isinstance(split, WorldSplit):
    return ["world", VERSION, split.spec.data_name, split.split, len(split)]
  raise TypeError(f"{type(split).__name__} has no digest")


def _tfds_content(split: TfdsSplit, known: FileDigests) -> list[Any]:
  """Return the digests of the shards, regardless of their names, and how labels are read from them."""
  spec, folder = split.spec, split.folder
  names = [path.name for pattern in _TFDS_FILES for path in sorted(folder.glob(pattern))]
  how = [spec.splits[split.split], spec.image_key, spec.label_key, spec.multi_label]
  classes = list(spec.label_names)
  # Files that the user has arranged may be links to other places.
  paths = [(folder / name).resolve() for name in (*names, *split.shard_names())]
  return [how, classes, known.of([(path.parent, path.name) for path in paths])]
