"""Values of each class: Fréchet distances of few images, MIND, and means over the images of a class."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.class_distances import (
  FEWEST,
  distances_by_class,
  frechet_of_few,
  means_by_class,
)
from genbench_jax.metrics.clipped import NAMES, clipped_density_coverage
from genbench_jax.metrics.frechet import distance_of_gaussians, frechet_distance
from genbench_jax.metrics.kernels import cmmd
from genbench_jax.metrics.registry import Sets, measured


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gaussian(rows):
  return rows.mean(axis=0), np.cov(rows, rowvar=False)


@pytest.mark.parametrize("sizes", [(5, 7), (40, 6), (30, 50)])
def test_the_distance_of_few_images_equals_that_of_their_gaussians(sizes):
  """The singular values of X Y' give what the square root of the product of covariances does."""
  random = np.random.default_rng(0)
  x, y = (random.normal(size=(n, 12)) + 3 for n in sizes)
  expected = distance_of_gaussians(gaussian(x), gaussian(2 * y))
  assert frechet_of_few(x, 2 * y) == pytest.approx(expected, rel=1e-6)
  assert frechet_of_few(x, x) == pytest.approx(0, abs=1e-9)


def test_classes_with_too_few_images_have_no_distance():
  x, labels = np.eye(8), np.array([0] * FEWEST + [1] * (8 - FEWEST - 1) + [2])
  found = distances_by_class(x, x, labels, labels, frechet_of_few)
  assert found.keys() == {0}
  with pytest.raises(UsageError, match="every image needs its label: got 3 for 8"):
    distances_by_class(x, x, labels[:3], labels, frechet_of_few)


def test_means_by_class_of_indices_and_of_several_labels():
  values = np.array([1.0, 3.0, 5.0])
  assert means_by_class(values, np.array([0, 0, 2])) == {0: 2.0, 2: 5.0}
  hot = np.array([[1, 0], [1, 1], [0, 1]], bool)
  assert means_by_class(values, hot) == {0: 2.0, 1: 4.0}


def test_every_quantity_of_images_is_measured_by_class(world):
  names = ("fid", "mind", "precision", "recall", "density", "coverage", "auth_pct", "near_copies")
  training = {"training": world.tests[::2], "training_labels": world.test_labels[::2]}
  sets = Sets(
    world.images, world.tests, world.labels, world.test_labels, num_classes=7, resamples=4, **training
  )  # fmt: skip
  found = {result.name: result for _, result in measured(sets, names)}
  assert found.keys() == set(names)
  for c, value in found["fid"].by_class.items():
    own, tests = world.images[world.labels == c], world.tests[world.test_labels == c]
    assert value == pytest.approx(frechet_distance(unit(own), unit(tests)), abs=1e-4)
  for name in names:
    assert found[name].by_class.keys() <= set(range(7)) and found[name].by_class, name
  counts = np.bincount(world.labels)
  by_class = found["precision"].by_class
  mean = sum(by_class[c] * counts[c] for c in by_class) / counts.sum()
  assert mean == pytest.approx(found["precision"].value.value)


def cubic_distance(x, y):
  """Compute the unbiased squared MMD with the kernel (a . b / d + 1)^3 over all pairs."""
  kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
  within = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
  return sum(within) - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("on_device", [False, True])
def test_kernel_distances_and_clipped_metrics_by_class(world, monkeypatch, on_device):
  """Every class is measured as the library measures two sets; KID standardizes by all test images."""
  if on_device:
    monkeypatch.setattr("genbench_jax.metrics.kernels.HOST_ROWS", 1)
    monkeypatch.setattr("genbench_jax.metrics.clipped.HOST_PAIRS", 1)
  sets = Sets(
    world.images, world.tests, world.labels, world.test_labels, num_classes=7, resamples=4
  )
  found = {result.name: result for _, result in measured(sets, ("kid", "cmmd", *NAMES))}
  x, y = unit(world.images.astype(float)), unit(world.tests.astype(float))
  middle = y.mean(axis=0)
  size = np.sqrt(np.mean((y - middle) ** 2))
  for c in range(7):
    own, tests = x[world.labels == c], y[world.test_labels == c]
    expected = {
      "kid": cubic_distance((own - middle) / size, (tests - middle) / size),
      "cmmd": cmmd(own, tests),
      **clipped_density_coverage(tests, own),
    }
    for name, value in expected.items():
      assert found[name].by_class[c] == pytest.approx(value, rel=1e-4, abs=1e-4), name


@pytest.mark.parametrize(("own", "others", "there"), [(4, 4, True), (3, 4, False), (4, 3, False)])
def test_four_images_on_either_side_are_enough(own, others, there):
  x, y = np.ones((own, 2)), np.zeros((others, 2))
  found = distances_by_class(
    x, y, np.zeros(own, int), np.zeros(others, int), lambda a, b: len(a) + len(b)
  )
  assert found == ({0: own + others} if there else {})
  few = distances_by_class(x, y, [0] * own, [0] * others, lambda a, b: 1, fewest=3)
  assert few == {0: 1}
  with pytest.raises(UsageError, match="got 2 for"):
    distances_by_class(x, y, [0] * own, [0, 0], lambda a, b: 1)


def test_a_distance_of_equal_sets_is_not_below_zero():
  x = np.random.default_rng(0).normal(size=(5, 3)) * 1e3
  assert 0 <= frechet_of_few(x, x) < 1e-6
  # Along one axis: (mean difference)^2 + (deviation difference)^2.
  first, second = np.array([[0.0], [2]]), np.array([[5.0], [11]])
  assert frechet_of_few(first, second) == pytest.approx((8 - 1) ** 2 + (18**0.5 - 2**0.5) ** 2)
