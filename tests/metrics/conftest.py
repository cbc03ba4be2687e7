"""Synthetic features: classes with text prototypes, and external and test images around them."""

import dataclasses

import numpy as np
import pytest


@dataclasses.dataclass(frozen=True)
class World:
  text: np.ndarray
  images: np.ndarray
  labels: np.ndarray
  tests: np.ndarray
  test_labels: np.ndarray

  @property
  def all(self):
    return self.images, self.labels, self.text, self.tests, self.test_labels


def make_world(classes, per_class, tests, width=16, seed=0):
  rng = np.random.default_rng(seed)
  text = rng.normal(size=(classes, width))
  centers = text + 0.7 * rng.normal(size=text.shape)
  labels = rng.permutation(np.repeat(np.arange(classes), per_class))
  test_labels = np.concatenate([np.arange(classes), rng.integers(0, classes, tests - classes)])
  images = centers[labels] + 2 * rng.normal(size=(len(labels), width))
  test_images = centers[test_labels] + 2 * rng.normal(size=(tests, width))
  scale = rng.uniform(0.5, 3, size=(len(labels), 1))  # features need not be unit-norm
  return World(
    text.astype(np.float32),
    (images * scale).astype(np.float32),
    labels,
    test_images.astype(np.float32),
    test_labels,
  )


@pytest.fixture(scope="session")
def world():
  return make_world(classes=7, per_class=9, tests=150)


@pytest.fixture(scope="session")
def two_classes():
  return make_world(classes=2, per_class=11, tests=130, seed=1)
