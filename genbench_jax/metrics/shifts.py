"""Degradations of training images, simulated on their features."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Features:
  """Unit-norm features of labeled images, and the text prototypes of their classes, if any."""

  features: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, "n"]
  text: Float[np.ndarray, "k d"] | None

  def take(self, rows: np.ndarray) -> "Features":
    return dataclasses.replace(self, features=self.features[rows], labels=self.labels[rows])


Shift = Callable[[Features, np.random.Generator], Features]


def dropped_modes(given: Features, random: np.random.Generator) -> Features:
  """Remove all images of half of the classes."""
  classes = np.unique(given.labels)
  kept = random.permutation(classes)[: max(1, len(classes) // 2)]
  return given.take(np.isin(given.labels, kept))


def duplicates(given: Features, random: np.random.Generator) -> Features:
  """Replace the images of each class by copies of an eighth of them."""
  rows = [
    random.choice(random.permutation(own)[: max(1, len(own) // 8)], len(own))
    for own in rows_by_class(given.labels)
  ]
  return given.take(np.concatenate(rows))


def noise(given: Features, random: np.random.Generator) -> Features:
  """Add noise with the standard deviation that features have within classes."""
  # The mean over classes of the standard deviation of a feature within a class.
  spread = np.mean([given.features[own].std(0).mean() for own in rows_by_class(given.labels)])
  noisy = given.features + spread * random.normal(size=given.features.shape)
  return dataclasses.replace(given, features=unit(noisy))


def outliers(given: Features, random: np.random.Generator) -> Features:
  """Replace a fifth of the images by random directions."""
  strange = random.random(len(given.labels)) < 0.2
  elsewhere = unit(random.normal(size=given.features.shape))
  return dataclasses.replace(given, features=np.where(strange[:, None], elsewhere, given.features))


def blurred(given: Features, random: np.random.Generator) -> Features:
  """Move every image halfway to the overall mean: less of it is its own, but nothing is wrong."""
  return dataclasses.replace(given, features=unit(given.features + given.features.mean(0)))


def swapped_labels(given: Features, random: np.random.Generator) -> Features:
  """Permute the labels of 40 % of the images. The images themselves are unchanged."""
  swapped = np.flatnonzero(random.random(len(given.labels)) < 0.4)
  labels = given.labels.copy()
  labels[swapped] = labels[random.permutation(swapped)]
  return dataclasses.replace(given, labels=labels)


def fewer_images(given: Features, random: np.random.Generator) -> Features:
  """Keep an eighth of the images of each class."""
  rows = [random.permutation(own)[: max(1, len(own) // 8)] for own in rows_by_class(given.labels)]
  return given.take(np.concatenate(rows))


SHIFTS: dict[str, Shift] = {
  shift.__name__: shift
  for shift in (
    dropped_modes, duplicates, noise, outliers, blurred, swapped_labels, fewer_images,
  )
}  # fmt: skip


def rows_by_class(labels: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "m"]]:
  """Return the row numbers of each class that occurs."""
  return [np.flatnonzero(labels == c) for c in np.unique(labels)]


def unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Return rows scaled to unit length; a zero row stays zero."""
  length = np.linalg.norm(rows, axis=1, keepdims=True)
  return (rows / np.where(length > 0, length, 1)).astype(np.float32)
