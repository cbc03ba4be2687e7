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
  "category_grammar",
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


def _number(name: str, label: str, better: Literal["higher", "lower"], meaning: str) -> Quantity:
  return Quantity(name, label, "number", better, meaning)


# In the page's order: what is trained on the images, then what is not, then distances and diversity.
_ALL = (
  _accuracy("zero_shot", "zero-shot", "Each test image goes to the class whose text is nearest."),
  _accuracy("linear_probe", "linear probe", "A linear classifier trained on the image features."),
  _accuracy(
    "linear_probe_last_epoch",
    "linear probe, last epoch",
    "The reference's probe after its last epoch, which no test image has chosen.",
  ),
  _accuracy(
    "from_scratch",
    "network from scratch",
    "A network trained from random weights on these images alone.",
  ),
  _accuracy(
    "fine_tune", "fine-tuned CLIP", "The vision tower trained on from a head of class texts."
  ),
  _accuracy("lora", "LoRA", "Both CLIP towers trained by low-rank updates."),
  _accuracy("tip_adapter", "Tip-Adapter", "A cache of the training features beside zero-shot."),
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
  _accuracy(
    "guide_ridge",
    "guide ridge",
    "A ridge classifier trained on the images and tested on a few real training images.",
  ),
  _number(
    "class_chamfer",
    "class Chamfer",
    "lower",
    "Mean distance of a few real training images to the nearest image of their class.",
  ),
  _number("clip_score", "CLIP score", "higher", "100 × cosine between image and its text."),
  _number("fid", "FID (CLIP)", "lower", "Fréchet distance to the test images, on CLIP features."),
  _number(
    "fd_infinity",
    "FD∞ (CLIP)",
    "lower",
    "The same Fréchet distance, extrapolated to infinitely many images.",
  ),
  _number(
    "fid_inception",
    "FID (Inception)",
    "lower",
    "Fréchet distance on Inception-v3 features: the FID that papers quote.",
  ),
  _number("kid", "KID (CLIP)", "lower", "Kernel (MMD²) distance, cubic polynomial kernel."),
  _number(
    "kid_inception",
    "KID (Inception)",
    "lower",
    "The same kernel distance on Inception-v3 features.",
  ),
  _number(
    "inception_score", "Inception score", "higher", "How surely and how variously classes are seen."
  ),
  _number("cmmd", "CMMD", "lower", "Kernel (MMD²) distance, Gaussian kernel."),
  _number("precision", "precision", "higher", "Share of images on the real manifold."),
  _number("recall", "recall", "higher", "Share of real images on their manifold."),
  _number("density", "density", "higher", "How many real neighborhoods hold each."),
  _number("coverage", "coverage", "higher", "Share of real neighborhoods reached."),
  _number("vendi", "Vendi", "higher", "Effective number of different images."),
  _number("proxy_a_distance", "proxy-A", "lower", "How well a classifier tells them from real."),
)
QUANTITIES = {quantity.name: quantity for quantity in _ALL}
# What is trained on the images and tested on test images; the first that was measured is the headline.
RECOGNIZERS = ("linear_probe", "from_scratch", "fine_tune", "lora", "tip_adapter", "coop", "vpt")
# Those of them that see the class names besides the images: a gain over zero-shot compares like with like.
WITH_TEXT = ("fine_tune", "lora", "tip_adapter", "coop", "vpt", "cler", "topk_vote_text")
EXCESS = "_excess"
# Distances on the main encoder's features say so: FID without a word would be Inception's.
CLIP = " (CLIP)"


def excess_name(name: str) -> str:
  """The name of what a distance has above its floor: `fid_excess`, `fid_excess [facebook/dinov2-base]`."""
  base, bracket, space = name.partition(" [")
  return f"{base}{EXCESS}{bracket}{space}"


def raw_name(name: str) -> str:
  """The name of the quantity that an excess is of; any other name as it is."""
  base, bracket, space = name.partition(" [")
  return f"{base.removesuffix(EXCESS)}{bracket}{space}"


def in_space(name: str, encoder: str) -> str:
  """The name of a quantity that was measured on other features than the run's: `fid [facebook/dinov2-base]`."""
  return f"{name} [{encoder}]"


def on_its_features(name: str, encoder: str) -> str:
  """The name, with the encoder where the label would say CLIP and the encoder is none: `fid [google/siglip2]`."""
  quantity = QUANTITIES.get(name)
  is_clip = not encoder or "clip" in encoder.lower()
  return (
    name if is_clip or quantity is None or CLIP not in quantity.label else in_space(name, encoder)
  )


def known_name(name: str) -> str:
  """The quantity's name without the features that it was measured on; empty for one that the page doesn't know."""
  base = raw_name(name).partition(" [")[0]
  return base if base in QUANTITIES else ""


def quantity_of(name: str) -> Quantity:
  """The quantity of that name; one the page doesn't know is shown as a plain number."""
  if name in QUANTITIES:
    return QUANTITIES[name]
  if raw_name(name) != name:
    raw = quantity_of(raw_name(name))
    meaning = f"{raw.meaning} Less what real training images have at equal number."
    return dataclasses.replace(raw, name=name, label=f"{raw.label} above floor", meaning=meaning)
  if base := known_name(name):
    quantity, encoder = QUANTITIES[base], name.removeprefix(f"{base} [").removesuffix("]")
    label = f"{quantity.label.removesuffix(' (CLIP)')} ({short_name(encoder)})"
    meaning = (
      f"{quantity.meaning.removesuffix(', on CLIP features.')} On the features of {encoder}."
    )
    return dataclasses.replace(quantity, name=name, label=label, meaning=meaning)
  return Quantity(name, name.replace("_", " "), "number", "higher", "")


def short_name(encoder: str) -> str:
  """`facebook/dinov2-base` is `dinov2-base`."""
  return encoder.rstrip("/").rpartition("/")[2]


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


def series_label(source: str, strategy: str, generator: str = "") -> str:
  """`generated, simple template`, `sd21, simple template`; what images are called everywhere on the page."""
  return ", ".join(
    part for part in (images_label(source, generator), strategy_label(strategy)) if part
  )


def images_label(source: str, generator: str = "") -> str:
  """The generator's or the folder's own name where there is one; with its source where that is another."""
  if not generator or source == "original":
    return source_label(source)
  return generator if source in ("generative", "folder") else f"{source_label(source)} {generator}"


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
  return f"{tenths(100 * value):.1f}".replace("-", "−")


def points(value: float) -> str:
  """A difference of fractions in points, always with its sign: -0.012 is −1.2."""
  text = f"{tenths(100 * value):+.1f}"
  return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def tenths(value: float) -> float:
  """Rounded to one decimal, half away from zero.

  Counts of 400 or 800 test images make halves (4.75) often, which binary fractions and their differences miss
  by 1e-15 either way: without the 1e-6 the same gain would be 4.7 in a figure and 4.8 in a sentence. The
  page's script rounds by the same rule.
  """
  return math.copysign(math.floor(abs(value) * 10 + 0.5 + 1e-6) / 10, value)


def number(value: float) -> str:
  """Three significant digits or more, written out: 0.0000123 and 123,456, not 1.23e-5."""
  if value == 0:
    return "0.00"
  digits = 2 - math.floor(math.log10(abs(value)))
  if abs(value) < 5e-7:
    return "0.00"
  return f"{value:,.{max(0, digits)}f}".replace("-", "−")


def rate(value: float, unit: str) -> str:
  """`0.25 images a second` as a person says it: `4.0 seconds an image` below one a second.

  Args:
    value: a second.
    unit: what there is so many of, in the singular.
  """
  if value >= 1 or value <= 0:
    return f"{number(value)} {unit}s a second"
  return f"{number(1 / value)} seconds a{'n' * (unit[0] in 'aeiou')} {unit}"


def the(label: str) -> str:
  """The label with its article: `the linear probe`, but `CLER` and `LoRA`, which are names."""
  return (
    label if label[:2].isupper() or label in ("CoOp", "LoRA", "Tip-Adapter") else f"the {label}"
  )


def p_value(p: float) -> str:
  """`p = 0.03`, `p < 0.001`: never 0, never with an exponent."""
  return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def shown(quantity: Quantity, value: float) -> str:
  """A value as the page writes it."""
  return {"accuracy": percent, "difference": points, "number": number}[quantity.kind](value)
