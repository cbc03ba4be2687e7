"""What is wrong with prompts, seen before an image is made from them."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from genbench_jax.prompts.strategies import Prompt

_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Finding:
  """One fault of the prompts of an image set.

  Attributes:
    kind: `duplicate` (classes that share a prompt, so that their images can't differ in kind), `cut` (the
      encoder doesn't hear the prompt's end), `cut_negative`, or `empty_negative`.
    count: how many distinct prompts it concerns; of `empty_negative`, how many classes.
    examples: a few of them.
  """

  kind: str
  count: int
  examples: tuple[str, ...]

  def __str__(self) -> str:
    what = {
      "duplicate": "prompts serve more than one class",
      "cut": "prompts are longer than the text encoder hears and are cut",
      "cut_negative": "negative prompts are longer than the text encoder hears and are cut",
      "empty_negative": "classes have no negative prompt though the strategy asks for one",
    }[self.kind]
    return f"{self.count} {what}: {'; '.join(self.examples)}"


def lint_prompts(
  prompts: Sequence[Sequence[Prompt]],
  class_names: Sequence[str],
  fits: Callable[[str], bool],
  negatives_wanted: bool,
) -> list[Finding]:
  """The faults of the prompts of an image set, worst first.

  Args:
    prompts: class -> shot -> prompt.
    fits: whether the text encoder hears a text to its end.
    negatives_wanted: whether the strategy gives negative prompts.
  """
  found = [
    ("duplicate", _duplicates(prompts, class_names)),
    ("cut", [text for text in _distinct(prompts, "text") if not fits(text)]),
    ("cut_negative", [text for text in _distinct(prompts, "negative") if not fits(text)]),
  ]
  if negatives_wanted:
    empty = (not all(prompt.negative for prompt in some) for some in prompts)
    found.append(
      ("empty_negative", [name for name, bad in zip(class_names, empty, strict=True) if bad])
    )
  return [
    Finding(kind, len(texts), tuple(_short(text) for text in texts[:_SHOWN]))
    for kind, texts in found
    if texts
  ]


def _duplicates(prompts: Sequence[Sequence[Prompt]], class_names: Sequence[str]) -> list[str]:
  """The texts that serve several classes, each with their labels."""
  labels = defaultdict(set)
  for label, some in enumerate(prompts):
    for prompt in some:
      labels[prompt.text].add(label)
  repeated = Counter(class_names)
  return [
    f"{text} (classes {', '.join(map(str, sorted(classes)))}"
    f"{', one name' if repeated[class_names[min(classes)]] > 1 else ''})"
    for text, classes in labels.items()
    if len(classes) > 1
  ]


def _distinct(prompts: Sequence[Sequence[Prompt]], field: str) -> list[str]:
  return list(dict.fromkeys(getattr(prompt, field) for some in prompts for prompt in some))


def _short(text: str) -> str:
  return repr(text if len(text) <= 120 else f"{text[:117]}...")


def alike_names(class_names: Sequence[str]) -> list[str]:
  """Classes that a text encoder can hardly tell apart by name: one line a group, whatever the images are from.

  Names count as alike if they are the same words in any order, without case, punctuation, articles and plural s.
  """
  groups: dict[tuple[str, ...], list[int]] = {}
  for index, name in enumerate(class_names):
    groups.setdefault(_bare_words(name), []).append(index)
  return [
    f"classes {', '.join(map(str, own))} are called {' and '.join(repr(class_names[i]) for i in own)}: by name they are one"
    for own in groups.values()
    if len(own) > 1
  ]


def _bare_words(name: str) -> tuple[str, ...]:
  words = re.findall(r"\w+", name.casefold())
  kept = [word for word in words if word not in ("a", "an", "the")] or words
  return tuple(sorted(word.removesuffix("s") if len(word) > 3 else word for word in kept))
