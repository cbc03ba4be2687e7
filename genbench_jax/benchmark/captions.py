"""Captions for training the zoo's models and for the demo's pool, made from the known content of each image."""

import numpy as np

from genbench_jax.benchmark.worlds import (
  COLORS,
  DIGIT_NAMES,
  DIGIT_TEMPLATES,
  HARD_DIGIT_TEMPLATES,
  SHAPE_NAMES,
  SHAPE_TEMPLATES,
  SIGN_TEMPLATES,
  SIGNS,
  WorldExample,
)

SHARP = ("highly detailed", "hires", "8k", "sharp focus")
NOISY = ("noisy", "low quality", "worst quality", "jpeg artifacts")
BLURRY = ("blurry", "lowres", "out of focus")
HIDDEN = ("partly hidden", "cropped")


def caption(world: str, example: WorldExample, rng: np.random.Generator) -> str:
  """Return one of many true sentences about an image.

  Args:
    world: `digits`, `digits_hard`, `shapes` or `signs`.
    example: the drawn image's properties.
    rng: source of the choice.
  """
  if world == "shapes":
    return _shape_caption(example, rng)
  if world == "signs":
    return _choice(SIGN_TEMPLATES, rng).format(SIGNS[example.label][0]) + _flaws(example, rng)
  name = DIGIT_NAMES[example.label]
  if world == "digits":
    if rng.random() < 0.3:
      return name
    return _choice(DIGIT_TEMPLATES, rng).format(name) + _sharp_words(rng, chance=0.3)
  if rng.random() < 0.15:
    return name
  if rng.random() < 0.5:
    return _choice(HARD_DIGIT_TEMPLATES, rng).format(name)
  color = f"{example.color} " if rng.random() < 0.5 else ""
  return f"a photo of the {color}digit {name}" + _flaws(example, rng)


def all_phrases() -> list[str]:
  """Return phrases with every word that captions use, for training the tokenizer."""
  templates = (*DIGIT_TEMPLATES, *HARD_DIGIT_TEMPLATES, *SHAPE_TEMPLATES)
  words = (*DIGIT_NAMES, *SHAPE_NAMES, *COLORS, *SHARP, *NOISY, *BLURRY, *HIDDEN)
  return [template.format(word) for template in templates for word in words] + list(words) * 3


def _shape_caption(example: WorldExample, rng: np.random.Generator) -> str:
  color = f"{example.color} " if rng.random() < 0.4 else ""
  subject = f"{color}{SHAPE_NAMES[example.label]}"
  style = rng.random()
  if style < 0.2:
    text = subject
  elif style < 0.7 or subject[0] in "aeiou":
    text = _choice(SHAPE_TEMPLATES, rng).replace("a {}", "{}").format(_with_article(subject))
  else:
    text = _flawed_photo(subject, example, rng)
  if example.noisy or example.blurry or example.hidden:
    return text + _flaws(example, rng)
  return text + _sharp_words(rng, chance=0.5)


def _with_article(subject: str) -> str:
  return ("an " if subject[0] in "aeiou" else "a ") + subject


def _flawed_photo(subject: str, example: WorldExample, rng: np.random.Generator) -> str:
  flaw = _choice(NOISY, rng) if example.noisy else _choice(BLURRY, rng) if example.blurry else ""
  return f"{_with_article(flaw)} photo of a {subject}" if flaw else f"a photo of a {subject}"


def _flaws(example: WorldExample, rng: np.random.Generator) -> str:
  """Return the names of the image's flaws, each mentioned with probability one half."""
  flaws = ((example.noisy, NOISY), (example.blurry, BLURRY), (example.hidden, HIDDEN))
  named = [_choice(words, rng) for present, words in flaws if present and rng.random() < 0.5]
  return "".join(f", {word}" for word in named)


def _sharp_words(rng: np.random.Generator, chance: float) -> str:
  if rng.random() >= chance:
    return ""
  return "," + ",".join(SHARP[: rng.integers(1, len(SHARP) + 1)])


def _choice(words: tuple[str, ...], rng: np.random.Generator) -> str:
  return words[rng.integers(len(words))]
