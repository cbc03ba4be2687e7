"""Discriminative span against its formula, and what it says of good and useless images."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.discriminative_span import discriminative_span
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
