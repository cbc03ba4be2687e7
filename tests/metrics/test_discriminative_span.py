"""Discriminative span against its formula, and what it says of good and useless images."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.discriminative_span import (
  _on_parts,
  discriminative_span,
  measure,
  span_of_classes,
)
from genbench_jax.metrics.guides import ridge_classifier
from genbench_jax.metrics.registry import Sets, measured


def by_formula(differences, weights, penalty):
  """Compute |l (C + l)^-1 w| / |w| with a matrix inverse, C = D'D / n and l relative to tr C / d."""
  second = differences.T @ differences / len(differences)
  level = penalty * np.trace(second) / len(second)
  rest = level * np.linalg.solve(second + level * np.eye(len(second)), weights)
  return np.linalg.norm(rest) / np.linalg.norm(weights)


@pytest.mark.parametrize("count", [4, 40])
@pytest.mark.parametrize("penalty", [0.1, 2.0])
def test_the_regularized_projection_is_its_formula(count, penalty):
  random = np.random.default_rng(0)
  images, negatives = random.normal(size=(2, count, 12))
  weights = random.normal(size=12)
  found = discriminative_span(images, negatives, weights, penalty)
  assert found == pytest.approx(by_formula(images - negatives, weights, penalty))
  assert discriminative_span(images, negatives, 5 * weights, penalty) == pytest.approx(found)


def test_without_a_penalty_it_is_the_distance_to_the_span():
  """The differences span the first two of four axes; the third is beyond them."""
  negatives = np.ones((3, 4))
  images = negatives + np.array([[1.0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 0, 0]])
  for weights, error in (([3.0, 4, 0, 0], 0), ([0.0, 0, 1, 0], 1), ([3.0, 0, 4, 0], 0.8)):
    found = discriminative_span(images, negatives, np.array(weights), 0)
    assert found == pytest.approx(error, abs=1e-12)


def test_arrays_that_do_not_fit_are_rejected():
  with pytest.raises(UsageError, match=r"must be paired with synthetic \(3, 2\)"):
    discriminative_span(np.ones((3, 2)), np.ones((2, 2)), np.ones(2))
  with pytest.raises(UsageError, match="no direction to express"):
    discriminative_span(np.ones((3, 2)), np.zeros((3, 2)), np.zeros(2))


def test_images_without_the_classes_score_worse(world):
  """Class images reach the classifier's directions better than copies of a single point."""
  guides = {"guides": world.tests[:70], "guide_labels": world.test_labels[:70]}

  def value(images):
    sets = Sets(
      images, world.tests, world.labels, world.test_labels, num_classes=7, resamples=6, **guides
    )
    (found,) = (result for _, result in measured(sets, ("discriminative_span",)))
    return found

  good = value(world.images)
  assert set(good.by_class) == set(range(7))
  assert good.value.value == pytest.approx(np.mean(list(good.by_class.values())))
  assert good.value.generator_low <= good.value.ci_low <= good.value.value <= good.value.ci_high
  useless = np.broadcast_to(world.images[:1], world.images.shape)
  assert value(useless).value.value > good.value.value + 0.1
  hot = np.eye(7, dtype=bool)
  sets = Sets(
    world.images, world.tests, hot[world.labels], hot[world.test_labels], num_classes=7, resamples=6,
    guides=guides["guides"], guide_labels=hot[guides["guide_labels"]],
  )  # fmt: skip
  (same,) = (result for _, result in measured(sets, ("discriminative_span",)))
  assert same.value.value == pytest.approx(good.value.value)


def hot(labels, classes=3):
  return np.eye(classes, dtype=bool)[labels]


def test_the_nearest_real_image_of_another_class_takes_the_place_of_the_negative():
  random = np.random.default_rng(0)
  labels, real_labels = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 2, 0, 2])
  x, real = random.normal(size=(7, 4)), random.normal(size=(6, 4))
  found = span_of_classes(x, hot(labels), real, hot(real_labels))
  assert set(found) == {0, 1}  # class 2 has no external image
  weights, _ = ridge_classifier(real, hot(real_labels), 0.1)
  for c, value in found.items():
    own, others = x[labels == c], real[real_labels != c]
    distances = ((own[:, None] - others) ** 2).sum(-1)
    negatives = others[distances.argmin(axis=1)]
    assert value == pytest.approx(by_formula(own - negatives, weights[:, c], 0.1))
    assert value == pytest.approx(discriminative_span(own, negatives, weights[:, c]))


def test_a_class_without_negatives_or_real_images_has_no_span():
  random = np.random.default_rng(0)
  x, real = random.normal(size=(4, 3)), random.normal(size=(4, 3))
  several = hot(np.array([0, 1, 0, 1])) | np.array([True, False, False])
  assert set(span_of_classes(x, hot(np.arange(4) % 3), real, several)) == {1}


@pytest.mark.parametrize("guides", [None, np.zeros((0, 3))])
def test_without_guides_there_is_no_span(guides):
  images, labels = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
  sets = Sets(images, images, labels, labels, num_classes=2, guides=guides, guide_labels=labels[:0])
  assert list(measure(sets, ("discriminative_span",))) == []


def test_guides_of_a_single_class_have_no_span():
  images, labels = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
  sets = Sets(
    images, images, labels, labels, num_classes=2, guides=images[:2], guide_labels=labels[:2] * 0
  )
  assert list(measure(sets, ("discriminative_span",))) == []


def test_parts_without_any_class_have_the_span_of_nothing():
  random = np.random.default_rng(0)
  x, real = random.normal(size=(6, 3)), random.normal(size=(6, 3))
  labels = hot(np.arange(6) % 3)
  of = _on_parts(3)(np.concatenate([x, labels], 1), np.concatenate([real, labels], 1))
  images, others = np.arange(6) < 4, np.arange(6) > 0
  expected = span_of_classes(x[images], labels[images], real[others], labels[others])
  assert of(images, others) == pytest.approx([np.mean(list(expected.values()))])
  assert of(np.arange(6) == 0, np.arange(6) == 1) == [1.0]  # a class without real images


@pytest.mark.parametrize("place", [0, 1, 2])
def test_values_that_are_not_finite_are_rejected(place):
  given = [np.ones((3, 2)), np.zeros((3, 2)), np.ones(2)]
  given[place] = given[place] * np.nan
  with pytest.raises(UsageError, match="NaN or infinite"):
    discriminative_span(*given)
  with pytest.raises(UsageError, match="weights be 2 wide"):
    discriminative_span(np.ones((3, 2)), np.zeros((3, 2)), np.ones(3))
