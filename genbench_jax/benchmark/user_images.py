"""A user's folder of images by class, from any generator: what is in it, and what is left out and why.

Nothing in the folder is trusted. Links aren't followed (`store.image_files`), only files that decode are taken, and
whatever is left out is named and counted. A file `labels.csv` (`file,label`) may stand for class folders.
"""

import csv
import dataclasses
import functools
import io
import os
import posixpath
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.benchmark.class_folders import ClassFolders, match_folders
from genbench_jax.benchmark.reader import Example, Split
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.embedding.preprocess import to_rgb
from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.printable import listed, printable, storable
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store import files
from genbench_jax.store.image_files import MOST_BYTES, ImageWalk, image_formats
from genbench_jax.store.reading import read_beneath

LABELS_FILE = "labels.csv"
_MOST_LIST_BYTES = 1 << 28
# The first column of a header. A list without one would lose its first image in silence.
_FILE_COLUMNS = frozenset(
  {
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "img",
    "name",
    "id",
  }
)


@dataclasses.dataclass(frozen=True)
class Listing:
  """The image files of a folder, class by class in the order of their names, before any is opened.

  Attributes:
    paths: inside the folder, each with its class in `labels`.
    notes: what is left out, a sentence each.
    digest: of the paths, classes, sizes and times of modification.
  """

  root: Path
  paths: tuple[str, ...]
  labels: tuple[int, ...]
  notes: tuple[str, ...]
  digest: str


class UserImages(Split):
  """The images of a user's folder that can be read; ids are paths inside the folder.

  Attributes:
    notes: what was left out, a sentence each.
    digest: identity of the images; it changes when a file does.
  """

  def __init__(
    self, listing: Listing, unreadable: Sequence[tuple[int, str]], spec: DatasetSpec
  ) -> None:
    left_out = {index for index, _ in unreadable}
    kept = [index for index in range(len(listing.paths)) if index not in left_out]
    self.spec, self.root, self.digest = spec, listing.root, listing.digest
    self._paths = [listing.paths[index] for index in kept]
    self._labels = np.array([listing.labels[index] for index in kept], np.int64)
    if not kept:
      raise UsageError(f"{listing.root} has no image that can be read.")
    self.notes = (
      *listing.notes,
      *_unreadable_notes([(listing.paths[index], why) for index, why in unreadable]),
      *_empty_notes(self._labels, spec),
    )

  def __len__(self) -> int:
    return len(self._paths)

  def example(self, index: int) -> Example:
    path = self._paths[index]
    try:
      image = read_beneath(self.root, path, MOST_BYTES)
    except OSError as error:
      raise RunError(
        f"{storable(path)!r} in {self.root} can't be read any more ({error.strerror}). Leave the"
        " folder as it is while a run reads it, then run again."
      ) from error
    return {"image": image, "label": int(self._labels[index]), "id": storable(path)}

  def labels(self) -> Int[np.ndarray, "n"]:
    return self._labels


def open_user_images(folder: Path, spec: DatasetSpec, cache: Path) -> UserImages:
  """The images of a folder, each of them decoded once to see that it can be.

  Args:
    folder: holds a folder for each class, or images and `labels.csv`.
    spec: whose classes they are.
    cache: where the outcome is kept, so that an unchanged folder isn't decoded again.

  Raises:
    UsageError: there is no such folder, its classes can't be told, or it has no image.
  """
  listing = list_images(folder, spec)
  known = cache / f"{listing.digest}.json"
  if known.exists():
    return UserImages(listing, [(index, why) for index, why in files.read_json(known)], spec)
  unreadable = _unreadable(listing)
  images = UserImages(listing, unreadable, spec)
  for note in images.notes:
    say(f"{listing.root}: {note}")
  files.write_json(known, unreadable)
  return images


def list_images(folder: Path, spec: DatasetSpec) -> Listing:
  """What a folder holds, without opening an image."""
  if not folder.is_dir():
    raise UsageError(f"there is no folder {str(folder)!r}.")
  root = folder.resolve()
  walk = ImageWalk(root)
  read = _by_file if os.path.lexists(root / LABELS_FILE) else _by_folder
  labels, notes = read(root, spec, walk)
  found = sorted((label, path) for path, label in labels.items())
  if not found:
    raise UsageError(f"{root} has no image of a class of '{spec.name}'. {' '.join(walk.notes())}")
  described = [[storable(path), label, *_identity(root / path)] for label, path in found]
  return Listing(
    root,
    tuple(path for _, path in found),
    tuple(label for label, _ in found),
    (*notes, *walk.notes()),
    files.digest([spec.name, spec.names, described]),
  )


def _by_folder(
  root: Path, spec: DatasetSpec, walk: ImageWalk
) -> tuple[dict[str, int], Sequence[str]]:
  """Image -> class, by the folder it is in."""
  names = walk.folders()
  if not names:
    raise UsageError(
      f"{root} has no class folders and no {LABELS_FILE}: it must hold CLASS/*.png, classes by name or index."
    )
  matched = match_folders(names, spec)
  labels = {path: label for name, label in matched.label_of.items() for path in walk.images(name)}
  return labels, _folder_notes(matched, spec)


def _by_file(
  root: Path, spec: DatasetSpec, walk: ImageWalk
) -> tuple[dict[str, int], Sequence[str]]:
  """Image -> class, by `labels.csv`: its first column is the file, its second the class."""
  names = _listed_classes(root / LABELS_FILE)
  matched = match_folders(
    sorted({name for names_of_one in names.values() for name in names_of_one}), spec
  )
  _refuse_two_classes(root / LABELS_FILE, names, matched)
  known = {
    path: matched.label_of[classes[0]]
    for path, classes in names.items()
    if classes[0] in matched.label_of
  }
  labels = {path: label for path, label in known.items() if walk.is_image(path)}
  return labels, _folder_notes(matched, spec)


def _listed_classes(file: Path) -> dict[str, list[str]]:
  """File -> the names of its classes, of which there should be one, as `labels.csv` says.

  Paths are normalized, so that `./a.png` and `a.png` are one file.
  """
  rows = _csv_rows(file)
  if len(rows) < 2 or any(len(row) < 2 for row in rows):
    raise UsageError(f"{file} must have the columns file,label and a line an image.")
  if rows[0][0].strip().casefold() not in _FILE_COLUMNS:
    raise UsageError(
      f"{file} has no header: its first line is {','.join(rows[0][:2])!r}, wanted 'file,label'. Put"
      " that line before the others."
    )
  if outside := [row[0] for row in rows[1:] if _is_outside(row[0])]:
    raise UsageError(f"{file} names files outside of its folder: {listed(outside)}.")
  names: dict[str, list[str]] = defaultdict(list)
  for path, name, *_ in rows[1:]:
    if name.strip() not in names[posixpath.normpath(path)]:
      names[posixpath.normpath(path)].append(name.strip())
  return dict(names)


def _csv_rows(file: Path) -> list[list[str]]:
  try:
    text = read_beneath(file.parent, file.name, _MOST_LIST_BYTES).decode("utf-8-sig")
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f"{file} can't be read as CSV: {error}.") from error


def _is_outside(path: str) -> bool:
  return Path(path).is_absolute() or ".." in Path(path).parts


def _refuse_two_classes(
  file: Path, names: Mapping[str, Sequence[str]], matched: ClassFolders
) -> None:
  """Names that stand for one class are one class; those of no class are told apart by themselves."""
  for path, classes in names.items():
    if len({matched.label_of.get(name, name) for name in classes}) > 1:
      raise UsageError(
        f"{file} gives {path!r} several classes: {listed(classes)}. An image has one class: keep"
        " one line of it."
      )


def _folder_notes(matched: ClassFolders, spec: DatasetSpec) -> list[str]:
  notes = []
  if matched.unmatched:
    names = listed([storable(name) for name in matched.unmatched])
    notes.append(f"{len(matched.unmatched)} left out, no class of '{spec.name}': {names}.")
  twice = defaultdict(list)
  for name, label in matched.label_of.items():
    twice[label].append(name)
  for label, same in twice.items():
    if len(same) > 1:
      notes.append(f"{listed(same)} are all taken for {spec.names[label]!r}.")
  return notes


def _identity(path: Path) -> tuple[int, int]:
  about = path.lstat()
  return about.st_size, about.st_mtime_ns


def _unreadable(listing: Listing) -> list[tuple[int, str]]:
  """Which of the images can't be decoded, and why; all processors share the work."""
  found = []
  with (
    Progress(f"check {listing.root}", len(listing.paths), "images") as progress,
    ThreadPoolExecutor(os.cpu_count()) as pool,
    warnings.catch_warnings(),
  ):
    # An image of so many pixels that PIL warns of it is none to train on.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    fault_of = functools.partial(_fault, listing.root)
    for index, fault in enumerate(pool.map(fault_of, listing.paths)):
      if fault:
        found.append((index, fault))
      progress.advance(1)
  return found


def _fault(root: Path, path: str) -> str:
  """Why an image can't be decoded; empty if it can."""
  try:
    content = io.BytesIO(read_beneath(root, path, MOST_BYTES))
    with Image.open(content, formats=image_formats()) as image:
      to_rgb(image)
  except Exception as error:  # PIL's decoders raise whatever they like at damaged and hostile files
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()))[:200] or 'no reason'}"
  return ""


def _unreadable_notes(unreadable: Sequence[tuple[str, str]]) -> list[str]:
  if not unreadable:
    return []
  names = listed([storable(path) for path, _ in unreadable])
  return [f"{len(unreadable)} left out, can't be decoded: {names} ({unreadable[0][1]})."]


def _empty_notes(labels: Int[np.ndarray, "n"], spec: DatasetSpec) -> list[str]:
  counts = np.bincount(labels, minlength=spec.num_classes)
  names = [name for name, count in zip(spec.names, counts, strict=True) if not count]
  return [f"{len(names)} classes have no image: {listed(names)}."] if names else []
