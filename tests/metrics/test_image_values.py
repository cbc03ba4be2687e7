"""The values per image add up to the score, and their differences vary as that of two scores."""

import numpy as np
import pytest

from genbench_jax.analysis.paired import ImageOutcomes, paired_difference
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.metrics.image_values import image_values, paired_values
from genbench_jax.metrics.intervals import area_measurement, halved_precision
from genbench_jax.store.hits import PerImage


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class", "roc_auc"])
def test_values_add_up_to_the_score(metric):
  random = np.random.default_rng(1)
  labels = random.choice(2, 60, p=(0.3, 0.7))
  scores = random.normal(size=(60, 2)) + np.eye(2)[labels]
  judged = scores if metric == "roc_auc" else scores.argmax(1) == labels
  values = image_values(judged, labels, metric)
  found = PerImage(values, "", labels if metric == "mean_per_class" else np.zeros(0, int))
  assert found.score == pytest.approx(recognition_score(scores, labels, metric))
  assert found.weights.sum() == pytest.approx(1)


def test_pseudo_values_of_the_roc_area_have_delongs_variance():
  random = np.random.default_rng(2)
  positive = random.random(400) < 0.4
  scores = random.normal(size=(400, 2)) + positive[:, None]
  values = image_values(scores, positive.astype(int), "roc_auc")
  found = area_measurement(scores[:, 1], positive)
  half = 1.959964 * values.std(ddof=1) / np.sqrt(400)
  assert half == pytest.approx((found.ci_high - found.ci_low) / 2, rel=0.05)


def ranked(random, count, classes=4):
  """Return multi-hot labels, and scores of two classifiers that find the same images hard."""
  hot = random.random((count, classes)) < 0.2
  hard = random.normal(size=(count, classes))
  sides = [1.2 * hot + hard + 0.5 * random.normal(size=hot.shape) for _ in range(2)]
  return hot, sides


@pytest.mark.parametrize("count", [2, 7, 100, 130])
def test_values_of_ranked_classes_have_the_score_as_mean(count):
  hot, (scores, _) = ranked(np.random.default_rng(count), count)
  hot[0, 0] = True
  assert image_values(scores, hot, "map_11_point") is None
  values = paired_values(scores, hot, "map_11_point")
  assert values.mean() == pytest.approx(recognition_score(scores, hot, "map_11_point"))
  assert np.array_equal(values, paired_values(scores, hot, "map_11_point"))


def test_paired_intervals_of_ranked_classes_cover_no_difference_and_are_narrower():
  """Short form of a line of benchmarks/intervals.py: 0 is the true difference."""
  random = np.random.default_rng(5)
  covered, paired, alone = [], [], []
  for _ in range(40):
    hot, sides = ranked(random, 150, classes=2)
    first, second = (ImageOutcomes(paired_values(s, hot, "map_11_point")) for s in sides)
    found = paired_difference("a", "b", "voc", first, second)
    covered.append(found.ci_low <= 0 <= found.ci_high)
    paired.append(found.ci_high - found.ci_low)
    alone.append(3.92 * np.hypot(first.values.std(), second.values.std()) / np.sqrt(150))
  assert np.mean(covered) >= 0.85
  assert np.mean(paired) < 0.8 * np.mean(alone)


@pytest.mark.parametrize("count", [2, 100, 130, 250])
def test_values_of_ranked_classes_vary_as_the_score_over_halves(count):
  """The variance of their mean, of all images, is the variance over the common halves."""
  hot, (scores, _) = ranked(np.random.default_rng(count), count)
  hot[:2, 0] = True
  values = paired_values(scores, hot, "map_11_point")
  repeats = min(count, 100)
  halves = halved_precision(scores[:, None], hot, 0, repeats)[:, 0]
  assert np.sum((values - values.mean()) ** 2) / count**2 == pytest.approx(halves.var(ddof=1))
  often = count // repeats
  moved = values - values.mean()
  np.testing.assert_allclose(moved[often * repeats :], 0, atol=1e-12)
  if often > 1:
    np.testing.assert_allclose(moved[:repeats], moved[repeats : 2 * repeats])


def test_a_single_ranked_image_has_the_score_itself():
  values = paired_values(np.array([[0.3, 0.6]]), np.array([[True, False]]), "map_11_point")
  assert values.tolist() == [1.0]


def test_pseudo_values_of_a_few_images():
  """Placements 1, 1/2 of the positives and 1/2, 1 of the negatives; A = 3/4, and n / n_g = 2."""
  scores = np.array([[0, 0.9], [0, 0.5], [0, 0.7], [0, 0.1]])
  values = image_values(scores, np.array([1, 1, 0, 0]), "roc_auc")
  np.testing.assert_allclose(values, [0.75 + 2 * 0.25, 0.75 - 0.5, 0.75 - 0.5, 0.75 + 0.5])
