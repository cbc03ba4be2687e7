"""Read a user's labeled images from any generator, and report what is skipped and why.

The input is untrusted. Links are not followed, only images that can be decoded are used, and everything skipped
is named and counted. `inputs/` contains the supported formats.
"""

import dataclasses
import functools
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.benchmark.class_folders import ClassFolders, ClassMatcher, match_folders
from genbench_jax.benchmark.inputs.find import find_images
from genbench_jax.benchmark.inputs.image_list import ImageList
from genbench_jax.benchmark.reader import Example, Split
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.printable import listed, storable
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store import files
from genbench_jax.store.digests import FileDigests
from genbench_jax.store.image_files import MOST_BYTES, decoding_fault, image_formats
from genbench_jax.store.image_pixels import to_rgb


@dataclasses.dataclass(frozen=True)
class ClassMatching:
  """How the user's class names are matched.

  Attributes:
    class_map: name -> name or index of the class; takes precedence.
    strict: whether an unmatched name is an error instead of being skipped.
  """

  class_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
  strict: bool = False


@dataclasses.dataclass(frozen=True)
class Listing:
  """The images of an input, by class and name, before any image is opened.

  Attributes:
    root: the folder or file that was opened.
    paths: name of each image, inside the root.
    labels: class of each image.
    read: index -> encoded image.
    notes: what is skipped, one sentence each.
    digest: digest of the names, classes and contents.
  """

  root: Path
  paths: tuple[str, ...]
  labels: tuple[int, ...]
  read: Callable[[int], bytes]
  notes: tuple[str, ...]
  digest: str


class UserImages(Split):
  """The readable images of a user; ids are paths inside the input.

  Attributes:
    notes: what was skipped, one sentence each.
    digest: digest of the images; changes if any of them changes.
  """

  def __init__(
    self, listing: Listing, unreadable: Sequence[tuple[int, str]], spec: DatasetSpec
  ) -> None:
    left_out = {index for index, _ in unreadable}
    self._kept = [index for index in range(len(listing.paths)) if index not in left_out]
    self.spec, self.root, self.digest, self._listing = spec, listing.root, listing.digest, listing
    self._labels = np.array([listing.labels[index] for index in self._kept], np.int64)
    if not self._kept:
      raise UsageError(f"{listing.root} has no image that can be read.")
    self.notes = (
      *listing.notes,
      *_unreadable_notes([(listing.paths[index], why) for index, why in unreadable]),
      *_empty_notes(self._labels, spec),
    )

  def __len__(self) -> int:
    return len(self._kept)

  def example(self, index: int) -> Example:
    place = self._kept[index]
    image = self._listing.read(place)
    return {
      "image": image,
      "label": int(self._labels[index]),
      "id": storable(self._listing.paths[place]),
    }

  def labels(self) -> Int[np.ndarray, "n"]:
    return self._labels


def open_user_images(
  given: str | Path, spec: DatasetSpec, cache: Path | None, matching: ClassMatching | None = None
) -> UserImages:
  """Open the images of an input; each is decoded once to verify that it is readable.

  Args:
    given: a folder, archive, list or shards; see `inputs.find.FORMS`.
    spec: the dataset that the classes belong to.
    cache: folder for digests and results, so that unchanged images are not decoded again, and for copies of
      what can't be read in place; None stores nothing.
    matching: how class names are matched.

  Raises:
    UsageError: there is nothing, its classes are unknown, or it has no image.
  """
  listing = list_images(given, spec, cache, matching)
  known = cache and cache / f"{listing.digest}.json"
  remembered = _remembered(known) if known else None
  if remembered is not None:
    return UserImages(listing, remembered, spec)
  unreadable = _unreadable(listing)
  images = UserImages(listing, unreadable, spec)
  for note in images.notes:
    say(f"{listing.root}: {note}")
  if known:
    files.write_json(known, {"unreadable": unreadable})
  return images


def _remembered(known: Path) -> list[tuple[int, str]] | None:
  """Return the unreadable images that an earlier call found; None if it left no valid file."""
  try:
    return [(int(index), str(why)) for index, why in files.read_json(known)["unreadable"]]
  except (FileNotFoundError, RunError, LookupError, TypeError, ValueError):
    return None


def list_images(
  given: str | Path,
  spec: DatasetSpec,
  cache: Path | None = None,
  matching: ClassMatching | None = None,
) -> Listing:
  """List an input without decoding images.

  Args:
    given: see `open_user_images`.
    spec: see `open_user_images`.
    cache: see `open_user_images`.
    matching: see `open_user_images`.

  Raises:
    UsageError: there is nothing, its classes are unknown, or it has no image.
  """
  matching = matching or ClassMatching()
  matcher, class_map = ClassMatcher(spec), matching.class_map

  def is_class(name: str) -> bool:
    return name in class_map or matcher.may_be_class(name)

  found = find_images(given, is_class, cache)
  names = dict.fromkeys([*found.named, *(name for classes in found.classes for name in classes)])
  if not names:
    raise UsageError(f"{found.root} has no image with a class. {' '.join(found.notes)}")
  matched = match_folders(list(names), spec, class_map)
  if matching.strict and matched.unmatched:
    raise UsageError(
      f"{found.root}: {matched.unmatched_note(spec)} Give them a class with --class-map, or omit"
      " --strict."
    )
  _refuse_two_classes(found, matched)
  labels = [matched.label_of.get(classes[0]) for classes in found.classes]
  order = sorted((label, found.ids[i], i) for i, label in enumerate(labels) if label is not None)
  if not order:
    raise UsageError(
      f"{found.root} has no image of a class of '{spec.name}'. {' '.join(found.notes)}"
    )
  memory = cache and cache / f"digests-{files.digest(storable(str(found.root)))}.json"
  places = list(
    dict.fromkeys(found.places[i] for *_, i in order)
  )  # an archive contains many images
  content_of = dict(zip(places, FileDigests(memory).of(places), strict=True))
  described = [
    [storable(name), label, found.marks[i], content_of[found.places[i]]] for label, name, i in order
  ]
  return Listing(
    found.root,
    tuple(name for _, name, _ in order),
    tuple(label for label, _, _ in order),
    lambda index: found.read(order[index][2]),
    (*_folder_notes(matched, spec), *found.notes),
    files.digest([spec.name, spec.names, described]),
  )


def _refuse_two_classes(found: ImageList, matched: ClassFolders) -> None:
  """Reject images with several classes. Different names of the same class are no contradiction."""
  for path, classes in zip(found.ids, found.classes, strict=True):
    if len(classes) > 1 and len({matched.label_of.get(name, name) for name in classes}) > 1:
      raise UsageError(
        f"{found.root} gives {path!r} several classes: {listed(classes)}. An image must have a single class:"
        " keep one of its lines."
      )


def _folder_notes(matched: ClassFolders, spec: DatasetSpec) -> list[str]:
  notes = [note] if (note := matched.unmatched_note(spec)) else []
  twice = defaultdict(list)
  for name, label in matched.label_of.items():
    twice[label].append(name)
  for label, same in twice.items():
    if len(same) > 1:
      notes.append(f"{listed(same)} are all matched to {spec.names[label]!r}.")
  return notes


def _unreadable(listing: Listing) -> list[tuple[int, str]]:
  """Return the images that can't be decoded, and why, using all processors."""
  found = []
  with (
    Progress(f"check {listing.root}", len(listing.paths), "images") as progress,
    ThreadPoolExecutor(os.cpu_count()) as pool,
    warnings.catch_warnings(),
  ):
    # Images so large that PIL warns of a decompression bomb are not training images.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    fault_of = functools.partial(_fault, listing)
    for index, fault in enumerate(pool.map(fault_of, range(len(listing.paths)))):
      if fault:
        found.append((index, fault))
      progress.advance(1)
  return found


def _fault(listing: Listing, index: int) -> str:
  """Return why an image can't be decoded; empty if it can."""
  try:
    content = listing.read(index)
    if len(content) > MOST_BYTES:
      return f"larger than {MOST_BYTES} bytes"
    with Image.open(io.BytesIO(content), formats=image_formats()) as image:
      to_rgb(image)
  except Exception as error:  # PIL's decoders raise many types for damaged and hostile files
    return f"{type(error).__name__}: {decoding_fault(error)}"
  return ""


def _unreadable_notes(unreadable: Sequence[tuple[str, str]]) -> list[str]:
  if not unreadable:
    return []
  names = listed([storable(path) for path, _ in unreadable])
  return [f"{len(unreadable)} left out, can't be decoded: {names} ({unreadable[0][1]})."]


def _empty_notes(labels: Int[np.ndarray, "n"], spec: DatasetSpec) -> list[str]:
  counts = np.bincount(labels, minlength=spec.num_classes)
  names = [name for name, count in zip(spec.names, counts, strict=True) if not count]
  have = "class has" if len(names) == 1 else "classes have"
  return [f"{len(names)} {have} no image: {listed(names)}."] if names else []
