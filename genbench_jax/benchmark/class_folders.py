"""Whichever names the class folders of a user's images have: which class is each?

The forms, the first that fits: the dataset's label or a name of the class, as written; the same but for case,
spaces and punctuation; the folder names of the reference; a number and then the name (`657_missile`); and where no
folder is called by a name, the class index alone.
"""

import dataclasses
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import UsageError
from genbench_jax.runtime.printable import listed

_NUMBERED = re.compile(r"(\d+)[\W_]+(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class ClassFolders:
  """Which class each folder is.

  Attributes:
    label_of: folder -> class index.
    unmatched: folders that are no class of the dataset.
    missing: class indices without a folder.
  """

  label_of: Mapping[str, int]
  unmatched: tuple[str, ...]
  missing: tuple[int, ...]


def match_folders(names: Sequence[str], spec: DatasetSpec) -> ClassFolders:
  """Matches the names of class folders with the classes of a dataset.

  Raises:
    UsageError: a name fits several classes, the indices count from 1, or no name fits any class.
  """
  written, folded = _written_names(spec), _folded_names(spec)
  found = {name: _classes_called(name, written, folded) for name in names}
  if not any(found.values()):
    found = _by_index(names, spec)
  for name, classes in found.items():
    if len(classes) > 1:
      raise _ambiguous(name, classes, spec)
  label_of = {name: classes[0] for name, classes in found.items() if classes}
  if not label_of:
    raise _nothing_fits(names, spec)
  unmatched = tuple(name for name in names if name not in label_of)
  present = set(label_of.values())
  return ClassFolders(
    label_of, unmatched, tuple(label for label in range(spec.num_classes) if label not in present)
  )


def _written_names(spec: DatasetSpec) -> list[dict[str, list[int]]]:
  """Name -> classes, as written: the data's own labels, which are distinct, before the names for prompts."""
  labels = _classes_of((label, index) for index, label in enumerate(spec.label_names))
  names = _classes_of(
    (name, index) for index, names in enumerate(spec.class_names) for name in names
  )
  return [labels, names]


def _folded_names(spec: DatasetSpec) -> dict[str, list[int]]:
  return _classes_of(
    (_fold(form), index)
    for index, synonyms in enumerate(spec.class_names)
    for name in (*synonyms, "_and_".join(synonyms), *spec.label_names[index : index + 1])
    # The reference writes a slash in a folder's name as `or`.
    for form in (name, name.replace("/", "or"))
  )


def _classes_of(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
  classes: dict[str, list[int]] = defaultdict(list)
  for name, index in pairs:
    if name and index not in classes[name]:
      classes[name].append(index)
  return dict(classes)


def _fold(name: str) -> str:
  """The name without case, spaces and punctuation."""
  return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def _classes_called(
  name: str, written: Sequence[Mapping[str, list[int]]], folded: Mapping[str, list[int]]
) -> list[int]:
  for names in written:
    if classes := names.get(name):
      return classes
  if classes := folded.get(_fold(name)):
    return classes
  numbered = _NUMBERED.fullmatch(name)
  if not numbered:
    return []
  classes, index = folded.get(_fold(numbered[2]), []), int(numbered[1])
  return [index] if index in classes else classes


def _by_index(names: Sequence[str], spec: DatasetSpec) -> dict[str, list[int]]:
  indices = {name: int(name) for name in names if re.fullmatch(r"[0-9]{1,9}", name)}
  if spec.num_classes in indices.values() and 0 not in indices.values():
    raise UsageError(
      f"the folders seem to be numbered from 1 to {spec.num_classes}: class indices of"
      f" '{spec.name}' count from 0. Rename them, by class name if you can."
    )
  return {
    name: [indices[name]] if indices.get(name, spec.num_classes) < spec.num_classes else []
    for name in names
  }


def _ambiguous(name: str, classes: Sequence[int], spec: DatasetSpec) -> UsageError:
  ways = [f"{index}_{spec.names[index]}" for index in classes]
  return UsageError(
    f"the folder {name!r} could be any of the classes {', '.join(map(str, classes))} of '{spec.name}':"
    f" rename it {' or '.join(map(repr, ways))}."
  )


def _nothing_fits(names: Sequence[str], spec: DatasetSpec) -> UsageError:
  return UsageError(
    f"none of the folders {listed(names)} is a class of '{spec.name}': {listed(spec.names)}. Name them by"
    f" class name or index; `python -m genbench_jax.benchmark show {spec.name}` lists all."
  )
