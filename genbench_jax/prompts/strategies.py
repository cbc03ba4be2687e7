"""The five prompt strategies (GenBench, section 3), and a sixth of our own: class names and templates in, prompts out."""

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
  # Sentences by a small grammar of ours. Category Enhancement has them from a language model.
  "category_grammar",
)
# Appended as it is by reference; by strict with a space after each comma, in place of the full stop.
SHARP_FOCUS = ",highly detailed,hires,8k,sharp focus"
# The published tail of quality words. Its double brackets mean nothing to a diffusion model.
REFERENCE_QUALITY_WORDS = (
  "((disfigured))", "((bad art))", "((deformed))", "((poorly drawn))", "((extra limbs))", "((close up))",
  "((b&w))", "weird colors", "blurry", "lowres", "bad anatomy", "bad hands", "text", "error", "missing fingers",
  "extra digit", "fewer digits", "cropped", "worst quality", "low quality", "normal quality", "jpeg artifacts",
  "signature", "watermark", "username", "blurry", "out of focus", "censorship",
)  # fmt: skip
QUALITY_WORDS = tuple(dict.fromkeys(word.strip("()") for word in REFERENCE_QUALITY_WORDS))
# The reference's `total_num_temps`: so many prompts a class, each for as many images as it takes.
REFERENCE_PROMPTS = 16
NEGATIVE_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Prompt:
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
  """The prompts of the first `count` images of a class.

  Image j takes template j of a seeded list, which is the same for every class and begins anew when it
  ends. Strict's list has every template once: any number of images uses each equally often, up to one.

  Args:
    fits: whether a text is within the text encoder's length; negative prompts are filled up to it.
    protocol: `reference` keeps the published choices, see `_template_list`, `_suffixed` and
      `reference_negative_prompt`.
    sentences: of the class, for Category Enhancement; by default from a small grammar.

  Raises:
    UsageError: there is no such strategy or protocol.
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
  """A seeded sample of other classes, then the quality words, as far as they fit."""
  others = [name for name in dict.fromkeys(class_names) if name != class_names[label]]
  rng = np.random.default_rng([seed, zlib.crc32(b"negative"), label])
  chosen = [others[i] for i in rng.permutation(len(others))[:NEGATIVE_CLASSES]]
  # Half of the room at most goes to class names, so that the quality words are heard as well.
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
  """All other classes in their order, then the published tail: more than the text encoder hears.

  It ends with the first word that doesn't fit, which the encoder cuts: what follows would never be heard.
  """
  kept: list[str] = []
  others = [name for index, name in enumerate(class_names) if index != label]
  for word in (*others, *REFERENCE_QUALITY_WORDS):
    kept.append(word)
    if not fits(", ".join(kept)):
      break
  return ", ".join(kept)


def _template_list(templates: Sequence[str], seed: int, protocol: str) -> list[str]:
  """The templates in a seeded order.

  Reference repeats them until there are more than 16, shuffles and keeps 16: of few templates each comes
  about equally often, of many a random choice.
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
  """A sentence about a class from a small grammar, where no keyword-to-sentence model is at hand."""
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  pick = lambda words: words[rng.integers(len(words))]  # noqa: E731
  view = pick(("a close view of", "a wide shot of", "a picture of", "a scene with"))
  place = pick(("outdoors", "indoors", "on a table", "in the street", "against a plain wall"))
  light = pick(("in daylight", "in soft light", "at dusk", "under a lamp"))
  return f"{view} {name} {place} {light}"
