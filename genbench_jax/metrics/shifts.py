"""Ways in which images become worse training data, done to their features."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Features:
  """Unit-norm features of labeled images, and the class prototypes of the texts, if any."""

  features: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, "n"]
  text: Float[np.ndarray, "k d"] | None

  def take(self, rows: np.ndarray) -> "Features":
    return dataclasses.replace(self, features=self.features[rows], labels=self.labels[rows])


Shift = Callable[[Features, np.random.Generator], Features]


def dropped_modes(given: Features, random: np.random.Generator) -> Features:
  """No images of half of the classes."""
  classes = np.unique(given.labels)
  kept = random.permutation(classes)[: max(1, len(classes) // 2)]
  return given.take(np.isin(given.labels, kept))


def duplicates(given: Features, random: np.random.Generator) -> Features:
  """As many images of each class, but only an eighth of them different."""
  rows = [
    random.choice(random.permutation(own)[: max(1, len(own) // 8)], len(own))
    for own in rows_by_class(given.labels)
  ]
  return given.take(np.concatenate(rows))


def noise(given: Features, random: np.random.Generator) -> Features:
  """Noise of the size of the spread within the classes on every feature."""
  spread = np.mean([given.features[own].std(0).mean() for own in rows_by_class(given.labels)])
  noisy = given.features + spread * random.normal(size=given.features.shape)
  return dataclasses.replace(given, features=unit(noisy))


def outliers(given: Features, random: np.random.Generator) -> Features:
  """A fifth of the images replaced by something else: random directions."""
  strange = random.random(len(given.labels)) < 0.2
  elsewhere = unit(random.normal(size=given.features.shape))
  return dataclasses.replace(given, features=np.where(strange[:, None], elsewhere, given.features))


def blurred(given: Features, random: np.random.Generator) -> Features:
  """Every image halfway to the mean of all: nothing in it is wrong, but little is its own."""
  return dataclasses.replace(given, features=unit(given.features + given.features.mean(0)))


def swapped_labels(given: Features, random: np.random.Generator) -> Features:
  """The labels of 40 % of the images exchanged among them: the images are as good as before."""
  swapped = np.flatnonzero(random.random(len(given.labels)) < 0.4)
  labels = given.labels.copy()
  labels[swapped] = labels[random.permutation(swapped)]
  return dataclasses.replace(given, labels=labels)


def fewer_images(given: Features, random: np.random.Generator) -> Features:
  """An eighth of the images of each class."""
  rows = [random.permutation(own)[: max(1, len(own) // 8)] for own in rows_by_class(given.labels)]
  return given.take(np.concatenate(rows))


SHIFTS: dict[str, Shift] = {
  shift.__name__: shift
  for shift in (
    dropped_modes, duplicates, noise, outliers, blurred, swapped_labels, fewer_images,
  )
}  # fmt: skip


def rows_by_class(labels: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "m"]]:
  """The row numbers of each class that occurs."""
  return [np.flatnonzero(labels == c) for c in np.unique(labels)]


def unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Rows of length one; a row of zeros stays zero."""
  length = np.linalg.norm(rows, axis=1, keepdims=True)
  return (rows / np.where(length > 0, length, 1)).astype(np.float32)
