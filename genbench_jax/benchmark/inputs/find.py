"""Detect the format of an input from the files at its path."""

import dataclasses
import glob
import itertools
import math
import re
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from genbench_jax.benchmark.inputs import label_list
from genbench_jax.benchmark.inputs.archives import is_tar, tar_images, zip_images
from genbench_jax.benchmark.inputs.arrays import array_images
from genbench_jax.benchmark.inputs.class_folders import class_folders
from genbench_jax.benchmark.inputs.image_list import ImageList
from genbench_jax.benchmark.inputs.parquet import is_parquet, parquet_images
from genbench_jax.benchmark.inputs.tree import DEEPEST, SPLITS, splits_among
from genbench_jax.errors import UsageError
from genbench_jax.runtime.printable import listed, printable
from genbench_jax.store.image_files import image_suffixes, visible

FORMS = (
  "a folder of class folders (also inside one folder, or in train/), a folder with labels.csv or metadata.csv or .jsonl,"
  " a zip or tar of either, webdataset shards, Parquet with image bytes, a CSV or JSON list of paths and labels, an .npz"
)
_MOST_SHARDS = 100_000
# Last suffixes of files that contain images.
_ARCHIVES = {".zip", ".npz", ".parquet", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz"}


def find_images(
  given: str | Path, is_class: Callable[[str], bool], cache: Path | None
) -> ImageList:
  """Return the images at a path, in any supported format.

  Args:
    given: a folder or file; shards may be given as `name-{000..031}.tar` or with `*`.
    is_class: whether a name may be that of a class.
    cache: folder for copies of what can't be read in place; None for a temporary folder, which is deleted
      with the list.

  Raises:
    UsageError: there is nothing, or nothing in a supported format.
  """
  if cache is not None:
    return _found(given, is_class, cache)
  passing = Path(tempfile.gettempdir()) / f"genbench_jax_{uuid.uuid4().hex}"
  found = _found(given, is_class, passing)

  def read(index: int) -> bytes:
    return found.read(index)

  weakref.finalize(read, shutil.rmtree, passing, ignore_errors=True)
  return dataclasses.replace(found, read=read)


def _found(given: str | Path, is_class: Callable[[str], bool], cache: Path) -> ImageList:
  paths = _expanded(str(given))
  if len(paths) > 1:
    return _shards(paths, is_class, cache)
  path = paths[0]
  if path.is_dir():
    return _in_folder(path.resolve(), is_class, cache)
  if path.is_file():
    return _in_file(path.resolve(), is_class, cache)
  raise UsageError(f"there is no folder or file {printable(str(path))!r}.")


def _in_folder(folder: Path, is_class: Callable[[str], bool], cache: Path) -> ImageList:
  for place in _wrapped(folder):
    there = visible(place, "*")
    files = [path for path in there if path.suffix.lower() in _ARCHIVES and path.is_file()]
    for is_shard in (is_tar, is_parquet):
      if shards := [path for path in files if is_shard(path)]:
        chosen, notes = _first_split(shards)
        images = _shards(chosen, is_class, cache)
        return dataclasses.replace(images, notes=(*notes, *images.notes))
    if files and not any(map(_may_hold_images, there)):
      chosen, notes = _first_split(files)
      if len(chosen) > 1:
        raise UsageError(
          f"{place} has several archives: {listed([p.name for p in chosen])}. Give one."
        )
      images = _in_file(chosen[0], is_class, cache)
      return dataclasses.replace(images, notes=(*notes, *images.notes))
  return class_folders(folder, is_class)


def _may_hold_images(path: Path) -> bool:
  """Return whether a path beside an archive may be what is meant: a folder, an image or a list of labels."""
  return path.is_dir() or path.suffix.lower() in image_suffixes() or path.name in label_list.NAMES


def _wrapped(folder: Path) -> Iterator[Path]:
  """Yield a folder and those that it wraps: `data/`, as at Hugging Face, the first split, or the only subfolder."""
  for _ in range(DEEPEST):
    yield folder
    names = [path.name for path in visible(folder, "*/") if not path.is_symlink()]
    wrappers = [name for name in names if name == "data"] or splits_among(names)
    if not wrappers and len(names) != 1:
      return
    folder = folder / (wrappers or names)[0]


def _first_split(shards: list[Path]) -> tuple[list[Path], tuple[str, ...]]:
  """Return the shards of the first split that their names begin with, and a note on others."""
  for split in SPLITS:
    is_of_split = re.compile(rf"{split}[-_.]", re.IGNORECASE).match
    if chosen := [path for path in shards if is_of_split(path.name)]:
      others = [path.name for path in shards if path not in chosen]
      note = f"the files of {split!r} are used; {len(others)} left out: {listed(others)}."
      return chosen, (note,) if others else ()
  return shards, ()


def _in_file(path: Path, is_class: Callable[[str], bool], cache: Path) -> ImageList:
  if path.suffix.lower() == ".zip":
    return zip_images(path, is_class)
  if is_tar(path) or is_parquet(path):
    return _shards([path], is_class, cache)
  if path.suffix.lower() == ".npz":
    return array_images(path, cache)
  if path.suffix.lower() in label_list.SUFFIXES:
    return label_list.open_list(path)
  raise UsageError(f"{path} has no supported format. Supported: {FORMS}.")


def _shards(paths: list[Path], is_class: Callable[[str], bool], cache: Path) -> ImageList:
  if all(is_tar(path) for path in paths):
    return tar_images(paths, is_class, cache)
  if all(map(is_parquet, paths)):
    return parquet_images(paths, cache)
  raise UsageError(
    f"{paths[0]} and {len(paths) - 1} more are not shards of the same format, tar or Parquet."
  )


def _expanded(given: str) -> list[Path]:
  """Expand a pattern such as `a-{000..003}.tar` or `a-*.tar`; an existing path is taken literally."""
  if Path(given).expanduser().exists():
    return [Path(given).expanduser()]
  texts = _ranges(str(Path(given).expanduser()))
  paths = [Path(p) for text in texts for p in (sorted(glob.glob(text)) if "*" in text else [text])]  # noqa: PTH207
  if len(paths) > 1 and (gone := [path for path in paths if not path.is_file()]):
    raise UsageError(f"there is no file {str(gone[0])!r}.")
  return paths or [Path(given)]


def _ranges(text: str) -> list[str]:
  """Expand all ranges `{000..031}` in a text, in order."""
  parts = re.split(r"\{(\d{1,9})\.\.(\d{1,9})\}", text)
  ranges = [
    [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    for first, last in zip(parts[1::3], parts[2::3], strict=True)
    if int(last) - int(first) < _MOST_SHARDS
  ]
  if len(ranges) != len(parts[1::3]) or math.prod(map(len, ranges)) > _MOST_SHARDS:
    raise UsageError(f"{text!r} names more than {_MOST_SHARDS} shards.")
  return [
    "".join(itertools.chain.from_iterable(itertools.zip_longest(parts[0::3], chosen, fillvalue="")))
    for chosen in itertools.product(*ranges)
  ]
