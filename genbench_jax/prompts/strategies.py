"""The five prompt strategies (GenBench, section 3) and one of our own: class names and templates to prompts."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from genbench_jax.errors import unknown_name
from genbench_jax.runtime.protocol import PROTOCOLS

STRATEGIES = (
  "simple_template",
  "defined_template",
  "category_enhancement",
  "restrictive_description",
  "negative_prompts",
  # Sentences from a small grammar of ours; Category Enhancement uses a language model.
  "category_grammar",
)
# Suffix of restrictive descriptions: reference appends it unchanged, strict adds a space after each comma
# and drops the template's final period.
SHARP_FOCUS = ",highly detailed,hires,8k,sharp focus"
# The published quality words. Their double brackets are syntax of a user interface, not of diffusion models.
REFERENCE_QUALITY_WORDS = (
  "((disfigured))", "((bad art))", "((deformed))", "((poorly drawn))", "((extra limbs))", "((close up))",
  "((b&w))", "weird colors", "blurry", "lowres", "bad anatomy", "bad hands", "text", "error", "missing fingers",
  "extra digit", "fewer digits", "cropped", "worst quality", "low quality", "normal quality", "jpeg artifacts",
  "signature", "watermark", "username", "blurry", "out of focus", "censorship",
)  # fmt: skip
QUALITY_WORDS = tuple(dict.fromkeys(word.strip("()") for word in REFERENCE_QUALITY_WORDS))
# `total_num_temps` of the published code: distinct prompts per class.
REFERENCE_PROMPTS = 16
NEGATIVE_CLASSES = 10
# Other classes in a negative prompt of the strict protocol, at most.


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A prompt and its negative prompt, empty for none."""

  text: str
  negative: str = ""


def prompts_of_class(
  strategy: str,
  label: int,
  class_names: Sequence[str],
  templates: Sequence[str],
  count: int,
  seed: int,
  fits: Callable[[str], bool] = lambda text: True,
  protocol: str = "strict",
  sentences: Sequence[str] = (),
) -> list[Prompt]:
  """Return the prompts of the first `count` images of a class.

  Image j uses template j of a seeded list, which is the same for every class and repeats. Strict's list
  contains every template once, so that their frequencies differ by at most one.

  Args:
    strategy: one of `STRATEGIES`.
    label: index of the class.
    class_names: name of each class.
    templates: prompt templates with `{}` for the class name.
    count: number of prompts.
    seed: random seed.
    fits: whether a text fits into the text encoder's input; negative prompts are filled up to it.
    protocol: `strict` or `reference`; for the published choices see `_template_list`, `_suffixed` and
      `reference_negative_prompt`.
    sentences: sentences of the class, for Category Enhancement; from a small grammar by default.

  Raises:
    UsageError: the strategy or protocol is unknown.
  """
  for kind, given, known in (("strategy", strategy, STRATEGIES), ("protocol", protocol, PROTOCOLS)):
    if given not in known:
      raise unknown_name(kind, given, known)
  name = class_names[label]
  if strategy in ("category_enhancement", "category_grammar"):
    texts = list(sentences) or [expand(name, seed + j) for j in range(count)]
  else:
    if strategy == "simple_template":
      templates = ("{}",)
    if strategy == "restrictive_description":
      templates = [_suffixed(template, protocol) for template in templates]
    texts = [template.replace("{}", name) for template in _template_list(templates, seed, protocol)]
  negative = ""
  if strategy == "negative_prompts":
    write = reference_negative_prompt if protocol == "reference" else negative_prompt
    negative = write(label, class_names, seed, fits)
  return [Prompt(texts[j % len(texts)], negative) for j in range(count)]


def negative_prompt(
  label: int, class_names: Sequence[str], seed: int, fits: Callable[[str], bool]
) -> str:
  """Return a seeded sample of other classes followed by quality words, as many as fit.

  Args:
    label: index of the class.
    class_names: name of each class.
    seed: random seed.
    fits: whether a text fits into the text encoder's input.
  """
  others = [name for name in dict.fromkeys(class_names) if name != class_names[label]]
  rng = np.random.default_rng([seed, zlib.crc32(b"negative"), label])
  chosen = [others[i] for i in rng.permutation(len(others))[:NEGATIVE_CLASSES]]
  # Class names take at most half of the space, so that quality words fit, too.
  kept: list[str] = []
  for word in chosen:
    if fits(", ".join([*kept, word] * 2)):
      kept.append(word)
  for word in QUALITY_WORDS:
    if fits(", ".join([*kept, word])):
      kept.append(word)
  return ", ".join(kept)


def reference_negative_prompt(
  label: int, class_names: Sequence[str], seed: int, fits: Callable[[str], bool]
) -> str:
  """Return all other classes in order, then the published quality words, as the published code does.

  That is more than the text encoder reads. The text ends with the first word that does not fit, since the
  encoder truncates the rest.

  Args:
    label: index of the class.
    class_names: name of each class.
    seed: ignored; the result is deterministic.
    fits: whether a text fits into the text encoder's input.
  """
  kept: list[str] = []
  others = [name for index, name in enumerate(class_names) if index != label]
  for word in (*others, *REFERENCE_QUALITY_WORDS):
    kept.append(word)
    if not fits(", ".join(kept)):
      break
  return ", ".join(kept)


def _template_list(templates: Sequence[str], seed: int, protocol: str) -> list[str]:
  """Return the templates in a seeded order.

  Reference repeats the list until it has more than 16 entries, shuffles it, and keeps 16. A short list is
  used about evenly, a long one becomes a random subset.
  """
  rng = np.random.default_rng([seed, zlib.crc32("|".join(templates).encode())])
  if protocol == "reference":
    templates = list(templates) * (REFERENCE_PROMPTS // len(templates) + 1)
    return [templates[i] for i in rng.permutation(len(templates))[:REFERENCE_PROMPTS]]
  return [templates[i] for i in rng.permutation(len(templates))]


def _suffixed(template: str, protocol: str) -> str:
  if protocol == "reference":
    return template + SHARP_FOCUS
  return template.removesuffix(".") + SHARP_FOCUS.replace(",", ", ")


def expand(name: str, seed: int) -> str:
  """Return a sentence about a class from a small grammar, for use without a keyword-to-sentence model."""
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  pick = lambda words: words[rng.integers(len(words))]  # noqa: E731
  view = pick(("a close view of", "a wide shot of", "a picture of", "a scene with"))
  place = pick(("outdoors", "indoors", "on a table", "in the street", "against a plain wall"))
  light = pick(("in daylight", "in soft light", "at dusk", "under a lamp"))
  return f"{view} {name} {place} {light}"
