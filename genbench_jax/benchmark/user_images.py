"""A user's folder of images by class, from any generator: what is in it, and what is left out and why.

Nothing in the folder is trusted. Links aren't followed, only files that decode are taken, and whatever is left out is
named and counted. A file `labels.csv` (`file,label`) may stand for class folders.
"""

import csv
import dataclasses
import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.benchmark.class_folders import ClassFolders, listed, match_folders
from genbench_jax.benchmark.reader import IMAGE_SUFFIXES, Example, Split
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.clip.preprocess import to_rgb
from genbench_jax.errors import UsageError
from genbench_jax.progress import Progress, say
from genbench_jax.store import files

LABELS_FILE = "labels.csv"
# A larger file is no image of a training set.
_MOST_BYTES = 1 << 28


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
    image = (self.root / path).read_bytes()
    return {"image": image, "label": int(self._labels[index]), "id": printable(path)}

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
  walk = _Walk(root)
  read = _by_file if (root / LABELS_FILE).is_file() else _by_folder
  labels, notes = read(root, spec, walk)
  found = sorted((label, path) for path, label in labels.items())
  if not found:
    raise UsageError(f"{root} has no image of a class of '{spec.name}'. {' '.join(walk.notes())}")
  described = [[printable(path), label, *_identity(root / path)] for label, path in found]
  return Listing(
    root,
    tuple(path for _, path in found),
    tuple(label for label, _ in found),
    (*notes, *walk.notes()),
    files.digest([spec.name, spec.names, described]),
  )


def _by_folder(
  root: Path, spec: DatasetSpec, walk: "_Walk"
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


def _by_file(root: Path, spec: DatasetSpec, walk: "_Walk") -> tuple[dict[str, int], Sequence[str]]:
  """Image -> class, by `labels.csv`: its first column is the file, its second the class."""
  try:
    with (root / LABELS_FILE).open(encoding="utf-8-sig", newline="") as file:
      rows = [row for row in csv.reader(file) if row]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UsageError(f"{root / LABELS_FILE} can't be read as CSV: {error}.") from error
  if len(rows) < 2 or any(len(row) < 2 for row in rows):
    raise UsageError(f"{root / LABELS_FILE} must have the columns file,label and a line an image.")
  names = {row[0]: row[1].strip() for row in rows[1:]}
  if outside := [path for path in names if Path(path).is_absolute() or ".." in Path(path).parts]:
    raise UsageError(f"{root / LABELS_FILE} names files outside of its folder: {listed(outside)}.")
  matched = match_folders(sorted(set(names.values())), spec)
  known = {path: matched.label_of[name] for path, name in names.items() if name in matched.label_of}
  labels = {path: label for path, label in known.items() if walk.is_image(path)}
  return labels, _folder_notes(matched, spec)


def _folder_notes(matched: ClassFolders, spec: DatasetSpec) -> list[str]:
  notes = []
  if matched.unmatched:
    names = listed([printable(name) for name in matched.unmatched])
    notes.append(f"{len(matched.unmatched)} left out, no class of '{spec.name}': {names}.")
  twice = defaultdict(list)
  for name, label in matched.label_of.items():
    twice[label].append(name)
  for label, same in twice.items():
    if len(same) > 1:
      notes.append(f"{listed(same)} are all taken for {spec.names[label]!r}.")
  return notes


class _Walk:
  """A walk through a folder that follows no link and remembers what it passed by."""

  def __init__(self, root: Path) -> None:
    self.root = root
    self.passed: dict[str, list[str]] = defaultdict(list)

  def folders(self) -> list[str]:
    """The names of the folders in the root."""
    return [path for path, entry in self._entries("") if entry.is_dir(follow_symlinks=False)]

  def images(self, folder: str) -> Iterator[str]:
    """The paths of all images below a folder."""
    for path, entry in self._entries(folder):
      if entry.is_dir(follow_symlinks=False):
        yield from self.images(path)
      elif self.is_image(path):
        yield path

  def is_image(self, path: str) -> bool:
    """Whether a file is of a kind and size to be an image; notes it if not."""
    try:
      about = (self.root / path).lstat()
    except OSError as error:
      return self._pass(f"can't be found ({error.strerror})", path)
    # The root has no link in it: any that is met on the way to the file shows as another path.
    if (self.root / path).resolve() != self.root / path:
      return self._pass("symbolic links", path)
    if not stat.S_ISREG(about.st_mode) or Path(path).suffix.lower() not in IMAGE_SUFFIXES:
      return self._pass("no images", path)
    if not 0 < about.st_size <= _MOST_BYTES:
      return self._pass(f"empty or above {_MOST_BYTES >> 20} MB", path)
    return True

  def notes(self) -> list[str]:
    return [f"{len(paths)} left out, {why}: {listed(paths)}." for why, paths in self.passed.items()]

  def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in a folder, in order, links to folders and hidden entries left out."""
    try:
      with os.scandir(self.root / folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
      self._pass(f"can't be listed ({error.strerror})", folder)
      return
    for entry in found:
      path = os.path.join(folder, entry.name)  # noqa: PTH118  names of any bytes, no normalising
      if entry.is_symlink() and entry.is_dir():
        self._pass("symbolic links", path)
      elif not entry.name.startswith("."):
        yield path, entry

  def _pass(self, why: str, path: str) -> bool:
    self.passed[why].append(printable(path))
    return False


def _identity(path: Path) -> tuple[int, int]:
  about = path.lstat()
  return about.st_size, about.st_mtime_ns


def _unreadable(listing: Listing) -> list[tuple[int, str]]:
  """Which of the images can't be decoded, and why; all processors share the work."""
  paths = [listing.root / path for path in listing.paths]
  found = []
  with (
    Progress(f"check {listing.root}", len(paths), "images") as progress,
    ThreadPoolExecutor(os.cpu_count()) as pool,
    warnings.catch_warnings(),
  ):
    # An image of so many pixels that PIL warns of it is none to train on.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    for index, fault in enumerate(pool.map(_fault, paths)):
      if fault:
        found.append((index, fault))
      progress.advance(1)
  return found


def _fault(path: Path) -> str:
  """Why an image can't be decoded; empty if it can."""
  try:
    with Image.open(path) as image:
      to_rgb(image)
  except Exception as error:  # PIL's decoders raise whatever they like at damaged and hostile files
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}"
  return ""


def _unreadable_notes(unreadable: Sequence[tuple[str, str]]) -> list[str]:
  if not unreadable:
    return []
  names = listed([printable(path) for path, _ in unreadable])
  return [f"{len(unreadable)} left out, can't be decoded: {names} ({unreadable[0][1]})."]


def _empty_notes(labels: Int[np.ndarray, "n"], spec: DatasetSpec) -> list[str]:
  counts = np.bincount(labels, minlength=spec.num_classes)
  names = [name for name, count in zip(spec.names, counts, strict=True) if not count]
  return [f"{len(names)} classes have no image: {listed(names)}."] if names else []


def printable(path: str) -> str:
  """A file's name as text that can be stored: bytes that are no UTF-8 are written as escapes."""
  return os.fsencode(path).decode("utf-8", "backslashreplace")
