"""Intervals of the scores from guides."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import guides as module
from genbench_jax.metrics.guides import (
  _measurement,
  checked_sets,
  class_chamfer,
  guide_ridge,
  ridge_classifier,
)
from genbench_jax.metrics.half_samples import halves_of
from genbench_jax.metrics.registry import Sets

STRATA = np.repeat([0, 1], 8)


def test_a_fraction_of_recognized_guides_has_wilsons_interval():
  found = _measurement("guide_ridge", np.ones(16), STRATA, 0.0)
  assert found.value == found.ci_high == 1
  # Wilson's lower end for 16 of 16: n / (n + z^2).
  assert abs(found.ci_low - 16 / (16 + 1.959964**2)) < 1e-6


def test_a_distance_has_a_symmetric_interval_around_its_mean():
  values = np.linspace(1, 3, 16)
  found = _measurement("class_chamfer", values, STRATA, 0.01)
  assert found.ci_high - found.value == pytest.approx(found.value - found.ci_low)
  within = values - np.repeat([values[:8].mean(), values[8:].mean()], 8)
  # Guides are drawn by class: only the variance within classes counts.
  expected = 1.959964 * np.sqrt(np.sum(within**2) * 8 / 7 / 16**2)
  assert abs(found.ci_high - found.value - expected) < 1e-6
  assert found.generator_high - found.value > found.ci_high - found.value


def test_without_external_variance_only_the_guides_vary():
  found = _measurement("class_chamfer", np.linspace(1, 3, 16), STRATA, None)
  assert found.generator_high is None and found.note


def hot(labels, classes=3):
  return np.eye(classes, dtype=bool)[labels]


def test_the_classifier_is_ridge_regression_with_equal_classes():
  """scikit-learn's ridge with weights 1 / (k n_c), for classes of different sizes."""
  from sklearn.linear_model import Ridge

  random = np.random.default_rng(0)
  labels = np.repeat([0, 1, 2], [3, 9, 20])
  x = random.normal(size=(32, 4)) + 2 * np.eye(3, 4)[labels] + 5
  weights = 1 / (3 * np.bincount(labels)[labels])
  middle = weights @ x
  second = ((x - middle) * weights[:, None]).T @ (x - middle)
  model = Ridge(alpha=0.3 * np.trace(second) / 4, tol=1e-12).fit(x, hot(labels) * 1.0, weights)
  found, offsets = ridge_classifier(x, hot(labels), 0.3)
  np.testing.assert_allclose(found, model.coef_.T, atol=1e-9)
  np.testing.assert_allclose(offsets, model.intercept_, atol=1e-9)


def test_equal_images_say_nothing_about_classes():
  weights, offsets = ridge_classifier(np.ones((4, 2)), hot([0, 0, 1, 2]), 0.1)
  assert not weights.any()
  np.testing.assert_allclose(offsets, 1 / 3)


X = np.array([[0.0, 0], [4, 0], [0, 9]])


def test_a_guide_without_an_image_of_its_class_is_as_far_as_the_farthest():
  found = class_chamfer(X, np.array([0, 0, 1]), np.array([[1.0, 0], [0, 1]]), np.array([0, 2]))
  assert found == pytest.approx((1 + 82**0.5) / 2)
  # Of several classes any may be shared.
  several = np.array([[True, False, True]])
  assert class_chamfer(X, hot([0, 1, 1]), np.array([[0.0, 5]]), several) == pytest.approx(5)
  assert class_chamfer(X, hot([0, 1, 2]), np.array([[0.0, 5]]), several) == pytest.approx(4)


def test_a_class_without_images_is_never_recognized():
  """Guides of class 2, which has no image, are wrong; those of several classes may be either."""
  random = np.random.default_rng(0)
  labels = np.array([0] * 8 + [1] * 8)
  x = np.where(labels[:, None] == 0, -1.0, 1.0) * np.ones((16, 2)) + 0.1 * random.normal(
    size=(16, 2)
  )
  guides = np.array([[-1.0, -1], [1, 1], [1, 1]])
  assert guide_ridge(x, labels, guides, np.array([0, 1, 2])) == pytest.approx(2 / 3)
  several = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
  assert guide_ridge(x, hot(labels), guides, several) == 1
  assert guide_ridge(x, labels, guides, np.array([1, 0, 0]), penalty=0.1) == 0


def test_sets_of_one_width_and_of_finite_values_are_accepted():
  guide_labels = np.array([3, 0])
  images, guides, x, found = checked_sets(X, np.array([0, 1, 0]), X[:2], guide_labels)
  assert images.shape == (3, 4) and guides.shape == (2, 4)
  assert guides.argmax(axis=1).tolist() == [3, 0] and x.dtype == found.dtype == np.float64
  for changed in ((np.full_like(X, np.nan), X), (X, np.full_like(X, np.inf))):
    with pytest.raises(UsageError, match="NaN or infinite"):
      checked_sets(changed[0], np.zeros(3, int), changed[1], np.zeros(3, int))
  with pytest.raises(UsageError, match="2 wide"):
    checked_sets(X, np.zeros(3, int), X[:, :1], np.zeros(3, int))


def sets_of(labels, guides, **more):
  random = np.random.default_rng(0)
  x = random.normal(size=(len(labels), 3)) + 2 * np.eye(3)[labels]
  count = 0 if guides is None else len(guides)
  return Sets(
    x, x, labels, labels, num_classes=3, guides=guides, guide_labels=np.arange(count) % 3, resamples=200, **more
  )  # fmt: skip


def measured(sets, wanted=("class_chamfer", "guide_ridge")):
  return {result.name: result for result in module.measure(sets, wanted)}


def test_both_scores_have_values_by_class_and_of_guides():
  guides = 2 * np.eye(3)[np.arange(12) % 3] + np.random.default_rng(1).normal(size=(12, 3))
  found = measured(sets_of(np.arange(18) % 3, guides))
  ridge, chamfer = found["guide_ridge"], found["class_chamfer"]
  assert chamfer.per_image is None and ridge.on_guides and chamfer.on_guides
  assert ridge.per_image.mean() == ridge.value.value
  for result in (ridge, chamfer):
    assert np.mean(list(result.by_class.values())) == pytest.approx(result.value.value)
    assert result.value.generator_high >= result.value.ci_high
  assert ridge.by_class[1] == ridge.per_image[1::3].mean()


def test_thirty_halves_are_enough(monkeypatch):
  asked = []

  def halves(strata, seed, repeats):
    asked.append(repeats)
    return halves_of(strata, seed, repeats)

  monkeypatch.setattr(module, "halves_of", halves)
  guides = np.eye(3)
  measured(sets_of(np.arange(18) % 3, guides))
  assert asked == [30]
  assert measured(sets_of(np.arange(18) % 3, guides), ())["guide_ridge"].value.generator_low is None
  assert asked == [30]


def test_without_guides_or_pairs_there_is_less():
  labels = np.arange(18) % 3
  assert measured(sets_of(labels, None)) == measured(sets_of(labels, np.zeros((0, 3)))) == {}
  alone = measured(sets_of(np.arange(3), np.eye(3)))
  assert alone["class_chamfer"].value.generator_low is None and alone["class_chamfer"].value.note
