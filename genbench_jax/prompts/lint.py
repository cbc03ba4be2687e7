"""Find problems of prompts before images are generated from them."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from genbench_jax.prompts.strategies import Prompt

_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Finding:
  """A problem of an image set's prompts.

  Attributes:
    kind: `duplicate` (classes share a prompt, so that their images cannot differ systematically), `cut` (the
      prompt is too long for the encoder), `cut_negative`, or `empty_negative`.
    count: number of distinct prompts concerned; for `empty_negative`, number of classes.
    examples: a few of them.
  """

  kind: str
  count: int
  examples: tuple[str, ...]

  def __str__(self) -> str:
    what = {
      "duplicate": "prompts are shared by several classes",
      "cut": "prompts are too long for the text encoder and are truncated",
      "cut_negative": "negative prompts are too long for the text encoder and are truncated",
      "empty_negative": "classes have no negative prompt, although the strategy requires one",
    }[self.kind]
    return f"{self.count} {what}: {'; '.join(self.examples)}"


def lint_prompts(
  prompts: Sequence[Sequence[Prompt]],
  class_names: Sequence[str],
  fits: Callable[[str], bool],
  negatives_wanted: bool,
) -> list[Finding]:
  """Return the problems of an image set's prompts, worst first.

  Args:
    prompts: class -> shot -> prompt.
    class_names: name of each class.
    fits: whether a text fits into the text encoder's input.
    negatives_wanted: whether the strategy uses negative prompts.
  """
  found = [
    ("duplicate", _duplicates(prompts, class_names)),
    ("cut", [text for text in _distinct(prompts, "text") if not fits(text)]),
    ("cut_negative", [text for text in _distinct(prompts, "negative") if not fits(text)]),
  ]
  if negatives_wanted:
    empty = (not all(prompt.negative for prompt in of_class) for of_class in prompts)
    found.append(
      ("empty_negative", [name for name, bad in zip(class_names, empty, strict=True) if bad])
    )
  return [
    Finding(kind, len(texts), tuple(_short(text) for text in texts[:_SHOWN]))
    for kind, texts in found
    if texts
  ]


def _duplicates(prompts: Sequence[Sequence[Prompt]], class_names: Sequence[str]) -> list[str]:
  """Return the texts shared by several classes, with their labels."""
  labels = defaultdict(set)
  for label, of_class in enumerate(prompts):
    for prompt in of_class:
      labels[prompt.text].add(label)
  repeated = Counter(class_names)
  return [
    f"{text} (classes {', '.join(map(str, sorted(classes)))}"
    f"{', same name' if repeated[class_names[min(classes)]] > 1 else ''})"
    for text, classes in labels.items()
    if len(classes) > 1
  ]


def _distinct(prompts: Sequence[Sequence[Prompt]], field: str) -> list[str]:
  return list(dict.fromkeys(getattr(prompt, field) for of_class in prompts for prompt in of_class))


def _short(text: str) -> str:
  return repr(text if len(text) <= 120 else f"{text[:117]}...")


def alike_names(class_names: Sequence[str]) -> list[str]:
  """Describe groups of classes whose names a text encoder can hardly distinguish, one line per group.

  Names are alike if they consist of the same words in any order, ignoring case, punctuation, articles and
  plural s.
  """
  groups: dict[tuple[str, ...], list[int]] = {}
  for index, name in enumerate(class_names):
    groups.setdefault(_bare_words(name), []).append(index)
  return [
    f"classes {', '.join(map(str, own))} are named {' and '.join(repr(class_names[i]) for i in own)}, which mean the same"
    for own in groups.values()
    if len(own) > 1
  ]


def _bare_words(name: str) -> tuple[str, ...]:
  words = re.findall(r"\w+", name.casefold())
  kept = [word for word in words if word not in ("a", "an", "the")] or words
  return tuple(sorted(word.removesuffix("s") if len(word) > 3 else word for word in kept))
