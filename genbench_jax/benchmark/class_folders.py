"""Match the names of the user's class folders to the classes of a dataset.

The first matching form wins: the dataset's label or a class name as written; the same without case, spaces
and punctuation; the reference's folder names; a number and a name (`657_missile`), also as written by an
export; a WordNet id (`n01440764`, `n01440764-tench`); singular instead of plural or the reverse; without
accents; and, if no folder matches by name, the plain class index. A class map from the user takes precedence over all of them.
"""

import dataclasses
import difflib
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from genbench_jax.benchmark.published import words
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import UsageError
from genbench_jax.runtime.printable import listed, storable

_WORDNET = re.compile(r"(n\d{8})(?:[\W_]+(.+))?", re.DOTALL | re.IGNORECASE)
_INDEX = re.compile(r"[0-9]{1,9}")
# Minimum similarity of a class name that is suggested for an unmatched name.
_SIMILAR = 0.6
_HINTS = 5
_NUMBERED = re.compile(r"(\d{1,18})(?:[\W_]+|(?=\D))(.+)", re.DOTALL)
# Plural ending -> endings of the singular.
_PLURALS = (
  ("s", ("",)), ("es", ("",)), ("ies", ("y",)), ("ves", ("f", "fe")), ("men", ("man",)),
  ("people", ("person",)), ("children", ("child",)), ("mice", ("mouse",)), ("geese", ("goose",)),
  ("teeth", ("tooth",)), ("feet", ("foot",)),
)  # fmt: skip
_SHORTEST_PLURAL = 4
_ACCENTS = re.compile("[\u0300-\u036f]")


@dataclasses.dataclass(frozen=True)
class ClassFolders:
  """The class of each folder.

  Attributes:
    label_of: folder -> class index.
    unmatched: folders that match no class of the dataset.
    missing: class indices without a folder.
    similar: unmatched folder -> the most similar class name, if any is similar.
  """

  label_of: Mapping[str, int]
  unmatched: tuple[str, ...]
  missing: tuple[int, ...]
  similar: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def unmatched_note(self, spec: DatasetSpec) -> str:
    """Return a sentence on unmatched folders; empty if there are none."""
    if not self.unmatched:
      return ""
    hints = [
      f"{storable(name)!r}: did you mean {self.similar[name]!r}?"
      for name in self.unmatched[:_HINTS]
      if name in self.similar
    ]
    names = listed([storable(name) for name in self.unmatched])
    note = f"{len(self.unmatched)} left out, not a class of '{spec.name}': {names}."
    return " ".join([note, *hints])


def match_folders(
  names: Sequence[str], spec: DatasetSpec, class_map: Mapping[str, str] | None = None
) -> ClassFolders:
  """Match names of class folders to the classes of a dataset.

  Args:
    names: names of folders, or any other names of images' classes.
    spec: the dataset.
    class_map: name -> name or index of its class, for names that do not match otherwise.

  Raises:
    UsageError: a name matches several classes, the indices start at 1, or no name matches any class.
  """
  matcher = ClassMatcher(spec)
  mapped = _mapped(class_map or {}, names, matcher)
  found = mapped | {name: matcher.classes(name) for name in names if name not in mapped}
  if not any(found.values()):
    found = _by_index(names, spec)
  for name, classes in found.items():
    if len(classes) > 1:
      raise _ambiguous(name, classes, spec)
  label_of = {name: found[name][0] for name in names if found[name]}
  if not label_of:
    raise _nothing_fits(names, spec)
  unmatched = tuple(n for n in names if n not in label_of and n not in mapped)
  present = set(label_of.values())
  missing = tuple(label for label in range(spec.num_classes) if label not in present)
  return ClassFolders(label_of, unmatched, missing, matcher.similar(unmatched))


def _mapped(
  class_map: Mapping[str, str], names: Sequence[str], matcher: "ClassMatcher"
) -> dict[str, list[int]]:
  """Return the classes of names in the class map. Names that are mapped to nothing are skipped silently."""
  found = {}
  for name in names:
    if name in class_map:
      target = class_map[name].strip()
      classes = matcher.classes(target)
      if not classes and _INDEX.fullmatch(target) and int(target) < matcher.spec.num_classes:
        classes = [int(target)]
      if target and not classes:
        near = matcher.similar([target]).get(target)
        hint = f" Did you mean {near!r}?" if near else ""
        raise UsageError(
          f"the class map maps {name!r} to {target!r}, which is not a class of '{matcher.spec.name}':"
          f" {listed(matcher.spec.names)}.{hint}"
        )
      found[name] = classes
  return found


class ClassMatcher:
  """Look up names of a dataset's classes in all supported forms."""

  def __init__(self, spec: DatasetSpec) -> None:
    self.spec = spec
    self._written, self._folded = _written_names(spec), _folded_names(spec)
    pairs = [(name, index) for name, classes in self._folded.items() for index in classes]
    self._singular = _classes_of((form, index) for name, index in pairs for form in _forms(name))
    self._plain = _classes_of((form, index) for name, index in pairs for form in _plain_forms(name))

  def classes(self, name: str) -> list[int]:
    """Return the classes that a name may mean, by the first matching form."""
    for names in self._written:
      if classes := names.get(name):
        return classes
    folded = _fold(name)
    return (
      self._folded.get(folded)
      or self._numbered(name)
      or self._by_wordnet(name)
      or self._loosely(folded)
    )

  def _loosely(self, folded: str) -> list[int]:
    """Return the classes of a folded name with another number or other accents."""
    for forms, names in ((_forms, self._singular), (_plain_forms, self._plain)):
      if classes := next(filter(None, (names.get(form) for form in forms(folded))), None):
        return classes
    return []

  def may_be_class(self, name: str) -> bool:
    """Return whether a folder with this name may contain a class's images, by name or index."""
    is_index = bool(_INDEX.fullmatch(name)) and int(name) <= self.spec.num_classes
    return is_index or bool(self.classes(name))

  def similar(self, names: Sequence[str]) -> dict[str, str]:
    """Return name -> the most similar class name, for names that have one."""
    found = {}
    for name in names[:_HINTS]:
      numbered = _NUMBERED.fullmatch(name)
      near = difflib.get_close_matches(
        _fold(numbered[2] if numbered else name), self._folded, n=1, cutoff=_SIMILAR
      )
      if near:
        found[name] = self.spec.names[self._folded[near[0]][0]]
    return found

  def _numbered(self, name: str) -> list[int]:
    numbered = _NUMBERED.fullmatch(name)
    if not numbered:
      return []
    rest, index = _fold(numbered[2]), int(numbered[1])
    classes = self._folded.get(rest, [])
    if index in classes:
      return [index]
    # An export writes names in ASCII: what remains of accents or other scripts must equal what remains of ours.
    if not classes and index < self.spec.num_classes and rest in _exported(self.spec, index):
      return [index]
    return classes or self._loosely(rest)

  def _by_wordnet(self, name: str) -> list[int]:
    """Match the name after a WordNet id, or ImageNet's names for the id."""
    found = _WORDNET.fullmatch(name)
    if not found:
      return []
    number = found[1].lower()
    for names in self._written:
      if classes := names.get(number):
        return classes
    synonyms = [found[2] or "", *_imagenet_names().get(number, ())]
    return next(filter(None, (self._folded.get(_fold(synonym), []) for synonym in synonyms)), [])


@functools.cache
def _imagenet_names() -> dict[str, tuple[str, ...]]:
  """Return WordNet id -> names of ImageNet's class."""
  classes = words("imagenet2012")["classes"]
  return {label: tuple(synonyms) for label, synonyms in classes.items()}


def _exported(spec: DatasetSpec, index: int) -> set[str]:
  """Return what an export may make of a class name: non-ASCII letters without accents, or dropped."""
  forms = set()
  for name in (*spec.class_names[index], *spec.label_names[index : index + 1]):
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    forms.add(_fold(plain) or "class")
  return forms


def _forms(folded: str) -> list[str]:
  """Return a folded name and what may be its singular: `buses` gives `buse` and `bus`."""
  is_plural = len(folded) >= _SHORTEST_PLURAL and not folded.endswith("ss")
  return [folded] + [
    folded.removesuffix(plural) + singular
    for plural, singulars in _PLURALS
    if is_plural and folded.endswith(plural)
    for singular in singulars
  ]


def _plain_forms(folded: str) -> list[str]:
  """Return the forms of a folded name without accents; signs of other scripts, as in `が`, are kept."""
  plain = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
  return _forms(unicodedata.normalize("NFC", plain))


def _written_names(spec: DatasetSpec) -> list[dict[str, list[int]]]:
  """Return name -> classes as written: the data's labels, which are distinct, before the names for prompts."""
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
    # The reference writes a slash in a folder name as `or`.
    for form in (name, name.replace("/", "or"))
  )


def _classes_of(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
  classes: dict[str, list[int]] = defaultdict(list)
  for name, index in pairs:
    if name and index not in classes[name]:
      classes[name].append(index)
  return dict(classes)


def _fold(name: str) -> str:
  """Remove case, spaces and punctuation from a name."""
  return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def _by_index(names: Sequence[str], spec: DatasetSpec) -> dict[str, list[int]]:
  indices = {name: int(name) for name in names if _INDEX.fullmatch(name)}
  if spec.num_classes in indices.values() and 0 not in indices.values():
    raise UsageError(
      f"the folders seem to be numbered from 1 to {spec.num_classes}, but class indices of"
      f" '{spec.name}' count from 0. Rename them, preferably to class names."
    )
  return {
    name: [indices[name]] if indices.get(name, spec.num_classes) < spec.num_classes else []
    for name in names
  }


def _ambiguous(name: str, classes: Sequence[int], spec: DatasetSpec) -> UsageError:
  ways = [f"{index}_{spec.names[index]}" for index in classes]
  return UsageError(
    f"the folder {name!r} matches the classes {', '.join(map(str, classes))} of '{spec.name}'."
    f" Rename it to {' or '.join(map(repr, ways))}."
  )


def _nothing_fits(names: Sequence[str], spec: DatasetSpec) -> UsageError:
  # The name of an own dataset is no name that the command knows.
  lists_all = "" if spec.group == "own" else f"; `genbench benchmark show {spec.name}` lists all"
  return UsageError(
    f"none of the folders {listed(names)} is a class of '{spec.name}': {listed(spec.names)}. Name them by"
    f" class name or index{lists_all}."
  )
