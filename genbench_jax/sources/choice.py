"""Store which pool images were chosen for a dataset, and check whether the choice is still valid.

A choice is stored with the digests of all files that it was based on, and with the images that were not
found. If a file has changed or a missing image has appeared, the choice is made again.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from genbench_jax.benchmark.few_shot import rows_of_shots
from genbench_jax.errors import RunError
from genbench_jax.retrieval.choose import Chooser, ChosenImage, Counts
from genbench_jax.retrieval.images import ImageFinder
from genbench_jax.retrieval.place import Place
from genbench_jax.store import files
from genbench_jax.store.digests import FileDigests


class Choice(NamedTuple):
  """The images chosen for a dataset.

  Attributes:
    images: (class, query, image) in the order of shots.
    counts: what happened to the candidates.
  """

  images: list[tuple[int, str, ChosenImage]]
  counts: Counts

  def per_class(self, num_classes: int) -> Int[np.ndarray, "c"]:
    """Return the number of images per class."""
    return np.bincount([label for label, _, _ in self.images], minlength=num_classes)

  def first(self, per_class: int) -> "Choice":
    """Return the choice for fewer images per class."""
    rows = rows_of_shots(np.array([label for label, _, _ in self.images]), per_class)
    return self._replace(images=[self.images[row] for row in rows])

  @property
  def digest(self) -> str:
    """Digest of the images, their classes and their order."""
    return files.digest([[label, query, image.sha256] for label, query, image in self.images])


class Evidence(NamedTuple):
  """What a choice is based on.

  Attributes:
    has_root: whether there is a folder of images.
    read: path below the root -> SHA-256.
    absent: metadata of images that were not found.
    tars: names of all tar files, which are searched by name.
  """

  has_root: bool
  read: dict[str, str]
  absent: list[dict[str, Any]]
  tars: list[str]


def evidence(chooser: Chooser, digests: FileDigests) -> Evidence:
  """Return what a choice is based on, once it has been made."""
  root = chooser.finder.root
  if root is None:
    return Evidence(False, {}, chooser.absent, [])
  names = sorted(path.relative_to(root).as_posix() for path in chooser.read)
  found = digests.of([(root, name) for name in names])
  read = dict(zip(names, found, strict=True))
  return Evidence(True, read, chooser.absent, chooser.finder.tars)


def still_holds(then: Evidence, finder: ImageFinder, digests: FileDigests) -> bool:
  """Return whether everything that a choice is based on is unchanged. The folder of images may have moved.

  Args:
    then: evidence that was stored with the choice.
    finder: finder of the pool's images today.
    digests: digests of files.
  """
  root = finder.root
  if root is None:
    return not then.has_root
  if not then.has_root or then.tars != finder.tars:
    return False
  now = digests.of([(root, name) for name in then.read])
  return now == list(then.read.values()) and not any(map(finder.place, then.absent))


def save_choice(path: Path, choice: Choice, found: Evidence, root: Path | None) -> None:
  """Write a choice and its evidence; paths are stored relative to `root`.

  Args:
    path: file to write.
    choice: the choice.
    found: its evidence.
    root: folder of the images, if there is one.
  """
  images = [_as_json(label, query, image, root) for label, query, image in choice.images]
  about = {"counts": dataclasses.asdict(choice.counts), "images": images}
  files.write_json(path, about | {"evidence": found._asdict()})


def load_choice(path: Path, root: Path | None) -> tuple[Choice, Evidence]:
  """Read a choice and its evidence; relative paths are resolved against `root`.

  Raises:
    RunError: the file is damaged.
  """
  stored = files.read_json(path)
  try:
    images = [_from_json(line, root) for line in stored["images"]]
    choice = Choice(images, Counts(**stored["counts"]))
    return choice, Evidence(**stored["evidence"])
  except (KeyError, TypeError, ValueError) as error:
    raise RunError(f"{path} is damaged ({error!r}). Delete it, then run again.") from error


def larger_choices(folder: Path, per_class: int) -> Sequence[Path]:
  """Return a folder's choices for at least `per_class` images per class, the smallest first."""
  found = sorted(path for path in folder.glob("*.json") if path.stem.isdecimal())
  return [path for path in found if int(path.stem) >= per_class]


def _as_json(label: int, query: str, image: ChosenImage, root: Path | None) -> dict[str, Any]:
  path = image.place.path.relative_to(root).as_posix() if root else str(image.place.path)
  place = [path, image.place.offset, image.place.size]
  return {"class": label, "query": query, **dataclasses.asdict(image), "place": place}


def _from_json(line: dict[str, Any], root: Path | None) -> tuple[int, str, ChosenImage]:
  name, offset, size = line.pop("place")
  label, query = line.pop("class"), line.pop("query")
  path = root / name if root else Path(name)
  return label, query, ChosenImage(**line, place=Place(path, offset, size, root=root))
