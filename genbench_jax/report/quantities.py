"""Names, units and directions of the measured quantities on the page."""

import dataclasses
from typing import Literal

from genbench_jax.prompts.strategies import STRATEGIES

Kind = Literal["accuracy", "difference", "number"]
SOURCES = ("generative", "retrieval", "original", "folder", "combined", "control")
# If a source has several strategies, the headline uses one that is fixed in advance: the
# benchmark's default first.
HEADLINE_STRATEGIES = ("", "defined_template", *STRATEGIES)


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A measured quantity.

  Attributes:
    name: its name in the rows.
    label: its name on the page.
    kind: `accuracy` (a fraction, shown in percent), `difference` of two accuracies (shown in
      points) or `number` (shown in its own unit).
    better: whether higher or lower values mean better images.
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


# In the order of the page: recognizers that train on the images, training-free scores, distances,
# diversity.
_ALL = (
  _accuracy("zero_shot", "zero-shot", "Each test image goes to the class whose text is nearest."),
  _accuracy("linear_probe", "linear probe", "A linear classifier trained on the image features."),
  _accuracy(
    "linear_probe_last_epoch",
    "linear probe, last epoch",
    "The reference's probe after its last epoch, which is not chosen on test images.",
  ),
  _accuracy(
    "from_scratch",
    "network from scratch",
    "A network trained from random weights on these images alone.",
  ),
  _accuracy(
    "fine_tune",
    "fine-tuned CLIP",
    "The vision tower fine-tuned with a head initialized from the class texts.",
  ),
  _accuracy("lora", "LoRA", "Both CLIP towers fine-tuned by low-rank updates."),
  _accuracy(
    "tip_adapter", "Tip-Adapter", "Zero-shot combined with a cache of the training features."
  ),
  _accuracy("coop", "CoOp", "Learned prompt vectors in front of the class name."),
  _accuracy("vpt", "VPT", "Learned tokens in the image encoder."),
  _accuracy(
    "cler",
    "CLER",
    "Class-centered recognition without training: each test image goes to the class with the nearest "
    "sum of text and mean training image.",
  ),
  Quantity("cler_gain", "CLER gain", "difference", "higher", "CLER minus zero-shot."),
  _accuracy("cler_image", "CLER, images only", "CLER with the mean training images only."),
  _accuracy("topk_vote", "top-k vote", "The nearest training images vote."),
  _accuracy("topk_vote_text", "top-k vote + text", "The average of the vote and zero-shot."),
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
  _number(
    "discriminative_span",
    "discriminative span",
    "lower",
    "Relative error of a real classifier's weights on the span of the images' differences.",
  ),
  _number("clip_score", "CLIP score", "higher", "100 × cosine of an image and its class's text."),
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
    "Fréchet distance on Inception-v3 features, the FID of papers.",
  ),
  _number("kid", "KID (CLIP)", "lower", "Kernel (MMD²) distance, cubic polynomial kernel."),
  _number(
    "kid_inception",
    "KID (Inception)",
    "lower",
    "The same kernel distance on Inception-v3 features.",
  ),
  _number(
    "inception_score",
    "Inception score",
    "higher",
    "Confidence and diversity of Inception's class predictions.",
  ),
  _number("cmmd", "CMMD", "lower", "Kernel (MMD²) distance, Gaussian kernel."),
  _number("mind", "MIND (CLIP)", "lower", "Sliced squared 2-Wasserstein distance."),
  _number("precision", "precision", "higher", "Fraction of images on the real manifold."),
  _number("recall", "recall", "higher", "Fraction of real images on the images’ manifold."),
  _number(
    "density", "density", "higher", "Average density of real neighborhoods around each image."
  ),
  _number(
    "coverage", "coverage", "higher", "Fraction of real neighborhoods that contain an image."
  ),
  _number(
    "clipped_density",
    "clipped density",
    "higher",
    "Density in which no image counts twice, relative to that of real images.",
  ),
  _number(
    "clipped_coverage",
    "clipped coverage",
    "higher",
    "Independent real images that would cover as much, relative to the number of images.",
  ),
  _number("vendi", "Vendi", "higher", "Effective number of different images."),
  _number("vendi_q2", "Vendi, order 2", "higher", "The same with more weight on common images."),
  _number("vendi_inf", "Vendi, order ∞", "higher", "The same for the most common images alone."),
  _number(
    "intra_class_diversity",
    "diversity within classes",
    "higher",
    "Mean cosine distance of two images of a class.",
  ),
  _number(
    "auth_pct",
    "authentic images (%)",
    "higher",
    "Percentage of images that are no copies of the nearest training image.",
  ),
  _number(
    "near_copies",
    "near copies",
    "lower",
    "Fraction of images nearer to a training image than 95 % of test images; .05 is chance.",
  ),
  _number(
    "proxy_a_distance",
    "proxy-A",
    "lower",
    "How well a classifier distinguishes the images from real ones.",
  ),
)
QUANTITIES = {quantity.name: quantity for quantity in _ALL}
# Recognizers that train on the images; the first measured one is the headline.
RECOGNIZERS = ("linear_probe", "from_scratch", "fine_tune", "lora", "tip_adapter", "coop", "vpt")
# Recognizers that use the class names, so that a gain over zero-shot is a fair comparison.
WITH_TEXT = ("fine_tune", "lora", "tip_adapter", "coop", "vpt", "cler", "topk_vote_text")
EXCESS = "_excess"
DISTANCES = ("fid", "kid", "cmmd", "proxy_a_distance", "mind")
# Distances on the main encoder's features are marked, because a plain FID means Inception's.
CLIP = " (CLIP)"


def is_distance(name: str) -> bool:
  """Return whether only what exceeds the floor counts, as for a distance; for unknown quantities it does."""
  return known_name(name) in ("", *DISTANCES)


def excess_name(name: str) -> str:
  """Return the name of the excess of a distance over its floor, such as `fid_excess`."""
  base, bracket, space = name.partition(" [")
  return f"{base}{EXCESS}{bracket}{space}"


def raw_name(name: str) -> str:
  """Return the quantity of an excess; other names are unchanged."""
  base, bracket, space = name.partition(" [")
  return f"{base.removesuffix(EXCESS)}{bracket}{space}"


def in_space(name: str, encoder: str) -> str:
  """Return the name of a quantity on other features, such as `fid [facebook/dinov2-base]`."""
  return f"{name} [{encoder}]"


def on_its_features(name: str, encoder: str) -> str:
  """Return the name, with the encoder if the label would wrongly say CLIP.

  An example is `fid [google/siglip2]`.
  """
  quantity = QUANTITIES.get(name)
  is_clip = not encoder or "clip" in encoder.lower()
  return (
    name if is_clip or quantity is None or CLIP not in quantity.label else in_space(name, encoder)
  )


def known_name(name: str) -> str:
  """Return the quantity's name without its features; empty if the page does not know it."""
  base = raw_name(name).partition(" [")[0]
  return base if base in QUANTITIES else ""


def quantity_of(name: str) -> Quantity:
  """Return the quantity of a name; unknown ones are shown as plain numbers."""
  if name in QUANTITIES:
    return QUANTITIES[name]
  if raw_name(name) != name:
    raw = quantity_of(raw_name(name))
    meaning = f"{raw.meaning} Minus the same distance of as many real training images."
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
  """Return the last part of an encoder's name: `dinov2-base` for `facebook/dinov2-base`."""
  return encoder.rstrip("/").rpartition("/")[2]


def by_quantity(name: str) -> tuple[tuple[int, str], str]:
  """Return a sort key: the order of the page, each quantity before its variants on other features."""
  return order_of(known_name(name) or name, tuple(QUANTITIES)), name


def order_of(name: str, known: tuple[str, ...]) -> tuple[int, str]:
  """Return a sort key: known names in their order, then the others by name."""
  return (known.index(name) if name in known else len(known), name)
