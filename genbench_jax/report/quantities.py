"""What each measured quantity is called on the page, its unit and which way is better."""

import dataclasses
import math
from typing import Literal

from genbench_jax.cells import strategy_parts

Kind = Literal["accuracy", "difference", "number"]
SOURCES = ("generative", "retrieval", "original", "folder", "combined", "control")
STRATEGIES = (
  "simple_template",
  "defined_template",
  "category_enhancement",
  "restrictive_description",
  "negative_prompts",
)
# Where a source has several strategies the headline shows one, named before any result is seen:
# the benchmark's default first.
HEADLINE_STRATEGIES = ("", "defined_template", *STRATEGIES)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A measured quantity.

  Attributes:
    name: its name in the rows.
    label: what the page calls it.
    kind: `accuracy` (a fraction, shown in per cent), `difference` of two accuracies (shown in
      points) or `number` (shown in its own unit).
    better: whether a higher or a lower value means better images.
    meaning: one sentence for the reader.
  """

  name: str
  label: str
  kind: Kind
  better: Literal["higher", "lower"]
  meaning: str


def _accuracy(name: str, label: str, meaning: str) -> Quantity:
  return Quantity(name, label, "accuracy", "higher", meaning)


QUANTITIES = {
  quantity.name: quantity
  for quantity in (
    _accuracy("zero_shot", "zero-shot", "Each test image goes to the class whose text is nearest."),
    _accuracy("linear_probe", "linear probe", "A linear classifier trained on the image features."),
    _accuracy(
      "linear_probe_last_epoch",
      "linear probe, last epoch",
      "The reference's probe after its last epoch, which no test image has chosen.",
    ),
    _accuracy("coop", "CoOp", "Learned prompt vectors in front of the class name."),
    _accuracy("vpt", "VPT", "Learned tokens in the image encoder."),
    _accuracy(
      "cler",
      "CLER",
      "Class-centered recognition without training: each test image goes to the class whose text "
      "and mean training image, added up, are nearest.",
    ),
    Quantity("cler_gain", "CLER gain", "difference", "higher", "CLER less zero-shot."),
    _accuracy("cler_image", "CLER, images only", "As CLER, with the mean training images alone."),
    _accuracy("topk_vote", "top-k vote", "The nearest training images vote."),
    _accuracy("topk_vote_text", "top-k vote + text", "The vote and zero-shot, averaged."),
    Quantity(
      "clip_score", "CLIP score", "number", "higher", "100 × cosine between image and its text."
    ),
    Quantity("fid", "FID", "number", "lower", "Fréchet distance to the test features."),
    Quantity("kid", "KID", "number", "lower", "Kernel (MMD²) distance, cubic polynomial kernel."),
    Quantity("cmmd", "CMMD", "number", "lower", "Kernel (MMD²) distance, Gaussian kernel."),
    Quantity("precision", "precision", "number", "higher", "Share of images on the real manifold."),
    Quantity("recall", "recall", "number", "higher", "Share of real images on their manifold."),
    Quantity("density", "density", "number", "higher", "How many real neighborhoods hold each."),
    Quantity("coverage", "coverage", "number", "higher", "Share of real neighborhoods reached."),
    Quantity("vendi", "Vendi", "number", "higher", "Effective number of different images."),
    Quantity(
      "proxy_a_distance",
      "proxy-A",
      "number",
      "lower",
      "How well a classifier tells them from real.",
    ),
  )
}
RECOGNIZERS = ("linear_probe", "coop", "vpt")


def in_space(name: str, encoder: str) -> str:
  """The name of a quantity that was measured on other features than the run's: `fid [facebook/dinov2-base]`."""
  return f"{name} [{encoder}]"


def known_name(name: str) -> str:
  """The quantity's name without the features that it was measured on; empty for one that the page doesn't know."""
  base = name.partition(" [")[0]
  return base if base in QUANTITIES else ""


def quantity_of(name: str) -> Quantity:
  """The quantity of that name; one the page doesn't know is shown as a plain number."""
  if name in QUANTITIES:
    return QUANTITIES[name]
  if base := known_name(name):
    quantity, encoder = QUANTITIES[base], name.removeprefix(f"{base} [").removesuffix("]")
    label = f"{quantity.label}, {encoder.rstrip('/').rpartition('/')[2]}"
    meaning = f"{quantity.meaning} On the features of {encoder}."
    return dataclasses.replace(quantity, name=name, label=label, meaning=meaning)
  return Quantity(name, name.replace("_", " "), "number", "higher", "")


def source_label(source: str) -> str:
  """What a source's images are called in running text."""
  return {
    "generative": "generated",
    "retrieval": "retrieved",
    "control": "label-shuffled",
  }.get(source, source)


def strategy_label(strategy: str) -> str:
  """`defined template`, or `defined template with tokens from original images`."""
  prompts, references = strategy_parts(strategy)
  tokens = f" with tokens from {source_label(references)} images" if references else ""
  return prompts.replace("_", " ") + tokens


def series_label(source: str, strategy: str) -> str:
  """`generated, simple template`; the source alone where there is no strategy."""
  return ", ".join(part for part in (source_label(source), strategy_label(strategy)) if part)


def shots_label(shots: int) -> str:
  """Images a class; 0 or less stands for all there are."""
  return str(shots) if shots > 0 else "all"


def budget_words(shots: int) -> str:
  """`16 images a class`, or `all images`."""
  return f"{shots} {'image' if shots == 1 else 'images'} a class" if shots > 0 else "all images"


def by_quantity(name: str) -> tuple[tuple[int, str], str]:
  """A sort key: quantities in the page's order, each before itself on other features."""
  return order_of(known_name(name) or name, tuple(QUANTITIES)), name


def order_of(name: str, known: tuple[str, ...]) -> tuple[int, str]:
  """A sort key: known names in their order, then the others by name."""
  return (known.index(name) if name in known else len(known), name)


def percent(value: float) -> str:
  """A fraction in per cent with one decimal, without its sign: 0.931 is 93.1."""
  return f"{100 * value:.1f}"


def points(value: float) -> str:
  """A difference of fractions in points, always with its sign: -0.012 is −1.2."""
  text = f"{100 * value:+.1f}"
  return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def number(value: float) -> str:
  """Three significant digits, written out where that is short."""
  if value != 0 and not 1e-3 <= abs(value) < 1e5:
    return f"{value:.2e}".replace("-", "−")
  digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
  return f"{value:.{digits}f}".replace("-", "−")


def shown(quantity: Quantity, value: float) -> str:
  """A value as the page writes it."""
  return {"accuracy": percent, "difference": points, "number": number}[quantity.kind](value)
