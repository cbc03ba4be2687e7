"""The five prompt strategies (GenBench, section 3): class names and templates in, prompts out."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from genbench_jax.errors import unknown_name

STRATEGIES = (
  "simple_template",
  "defined_template",
  "category_enhancement",
  "restrictive_description",
  "negative_prompts",
)
SHARP_FOCUS = ",highly detailed,hires,8k,sharp focus"
# The published tail of quality words. Their double brackets mean nothing to a diffusion model.
QUALITY_WORDS = (
  "disfigured", "bad art", "deformed", "poorly drawn", "extra limbs", "close up", "b&w", "weird colors",
  "blurry", "lowres", "bad anatomy", "bad hands", "text", "error", "missing fingers", "extra digit",
  "fewer digits", "cropped", "worst quality", "low quality", "normal quality", "jpeg artefacts", "signature",
  "watermark", "username", "out of focus", "censorship",
)  # fmt: skip
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
) -> list[Prompt]:
  """The prompts of the first `count` images of a class.

  Image j takes template j of a seeded order of all templates, which is the same for every class and
  begins anew when it ends: any number of images uses each template equally often, up to one.

  Args:
    fits: whether a text is within the text encoder's length; negative prompts are filled up to it.

  Raises:
    UsageError: there is no such strategy.
  """
  if strategy not in STRATEGIES:
    raise unknown_name("strategy", strategy, STRATEGIES)
  name = class_names[label]
  order = _order(templates if strategy != "simple_template" else ("{}",), seed)
  negative = ""
  if strategy == "negative_prompts":
    negative = negative_prompt(label, class_names, seed, fits)
  texts = [_fill(strategy, order[j % len(order)], name, seed + j) for j in range(count)]
  return [Prompt(text, negative) for text in texts]


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


def _order(templates: Sequence[str], seed: int) -> list[str]:
  rng = np.random.default_rng([seed, zlib.crc32("|".join(templates).encode())])
  return [templates[i] for i in rng.permutation(len(templates))]


def _fill(strategy: str, template: str, name: str, seed: int) -> str:
  if strategy == "category_enhancement":
    return expand(name, seed)
  text = template.replace("{}", name)
  return text + SHARP_FOCUS if strategy == "restrictive_description" else text


def expand(name: str, seed: int) -> str:
  """A sentence about a class from a small grammar, where no keyword-to-sentence model is at hand."""
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  pick = lambda words: words[rng.integers(len(words))]  # noqa: E731
  view = pick(("a close view of", "a wide shot of", "a picture of", "a scene with"))
  place = pick(("outdoors", "indoors", "on a table", "in the street", "against a plain wall"))
  light = pick(("in daylight", "in soft light", "at dusk", "under a lamp"))
  return f"{view} {name} {place} {light}"
