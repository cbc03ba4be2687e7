"""Intervals of recognition scores against their formulas."""

import numpy as np
import pytest

from genbench_jax.metrics.accuracy import eleven_point_precision
from genbench_jax.metrics.intervals import (
  BIAS_STEPS,
  HALF_SAMPLES,
  MOST_GAIN,
  SHRINKAGE,
  area_gain_measurement,
  area_measurement,
  correct_measurement,
  difference_measurement,
  halved_measurement,
  halved_precision,
  image_weights,
  placements,
  recognition_interval,
  wilson,
)
from genbench_jax.runtime.protocol import NORMAL


def wilson_of(p, n):
  """Wilson's interval of a share p of n images."""
  square = NORMAL**2
  center = (p + square / (2 * n)) / (1 + square / n)
  half = NORMAL / (1 + square / n) * np.sqrt(p * (1 - p) / n + square / (4 * n**2))
  return max(center - half, 0), min(center + half, 1)


def ends(found):
  return found.ci_low, found.ci_high


def generator_ends(found):
  return found.generator_low, found.generator_high


def test_the_constants_of_the_estimators():
  assert (SHRINKAGE, MOST_GAIN, HALF_SAMPLES, BIAS_STEPS) == (1, 4, 100, 1.3)


@pytest.mark.parametrize(
  ("value", "variance", "most", "count"),
  [
    (0.3, 0.3 * 0.7 / 50, 80, 50),
    (0.3, 0.3 * 0.7 / 300, 80, 300),  # worth more images than there are
    (0.3, 1e-9, 80, 320),  # but at most four times as many
    (0.3, 0.0, 80, 80),  # the variance is unknown
    (0.0, 0.01, 20, 20),
    (1.0, 0.01, 20, 20),
  ],
)
def test_wilsons_interval_has_as_many_images_as_the_variance_says(value, variance, most, count):
  assert wilson(value, variance, most) == pytest.approx(wilson_of(value, count))


def test_the_ends_of_wilsons_interval_are_exact_at_0_and_1():
  assert wilson(0.0, 0.0, 10)[0] == 0 and wilson(1.0, 0.0, 10)[1] == 1
  assert wilson(0.0, 0.0, 10)[1] == pytest.approx(NORMAL**2 / (10 + NORMAL**2))


def test_images_weigh_equally_or_their_classes_do():
  labels = np.array([0, 0, 2, 2, 2, 2])
  np.testing.assert_allclose(image_weights(labels, "accuracy"), np.full(6, 1 / 6))
  np.testing.assert_allclose(
    image_weights(labels, "mean_per_class"), [1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8]
  )


def test_the_accuracy_of_independent_images_is_binomial():
  labels = np.array([0] * 9 + [1])
  correct = np.arange(10) < 7
  found = correct_measurement(correct, labels, "accuracy", external=0.01)
  assert found.value == pytest.approx(0.7)
  assert ends(found) == pytest.approx(wilson_of(0.7, 10))
  assert generator_ends(found) == pytest.approx(wilson_of(0.7, 0.21 / (0.021 + 0.01)))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 2)])
def test_images_drawn_class_by_class_vary_within_classes(first, second):
  """Recalls 4/5 and 1/5, shrunk by one image of the mean 1/2; classes without images do not count."""
  labels = np.repeat([first, second], 5)
  correct = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1], bool)
  recalls = (np.array([4, 1]) + 0.5) / 6
  variance = np.sum(recalls * (1 - recalls) * 5 / 10**2)
  found = correct_measurement(correct, labels, "accuracy")
  assert ends(found) == pytest.approx(wilson_of(0.5, 0.25 / variance))
  assert generator_ends(found) == (None, None)


def test_the_mean_per_class_varies_within_classes():
  labels = np.array([0, 0, 0, 0, 0, 0, 2, 2])
  correct = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool)
  value = (5 / 6 + 1 / 2) / 2
  recalls = np.array([(5 + value) / 7, (1 + value) / 3])
  # Each class has half of the weight.
  variance = np.sum(recalls * (1 - recalls) / np.array([6, 2]) / 4)
  found = correct_measurement(correct, labels, "mean_per_class")
  assert found.value == pytest.approx(value)
  assert ends(found) == pytest.approx(wilson_of(value, value * (1 - value) / variance))


SCORES = np.array([0.9, 0.8, 0.4, 0.4, 0.3, 0.1])
POSITIVE = np.array([True, False, True, False, True, False])


def test_placements_count_ties_half():
  above, below = placements(SCORES, POSITIVE)
  np.testing.assert_allclose(above, [3 / 3, 1.5 / 3, 1 / 3])
  np.testing.assert_allclose(below, [1 / 3, 1.5 / 3, 3 / 3])


def test_the_area_has_delongs_variance():
  found = area_measurement(SCORES, POSITIVE, external=0.02)
  variance = sum(part.var(ddof=1) / 3 for part in placements(SCORES, POSITIVE))
  value = (1 + 0.5 + 1 / 3) / 3
  assert found.value == pytest.approx(value)
  assert ends(found) == pytest.approx(wilson_of(value, value * (1 - value) / variance))
  wide = value * (1 - value) / (variance + 0.02)
  assert generator_ends(found) == pytest.approx(wilson_of(value, wide))
  assert area_measurement(SCORES, POSITIVE).generator_low is None


def test_a_single_positive_adds_no_variance_of_its_own():
  positive = np.arange(6) == 1
  found = area_measurement(SCORES, positive)
  variance = placements(SCORES, positive)[1].var(ddof=1) / 5
  assert ends(found) == pytest.approx(wilson_of(0.8, 0.16 / variance))


def test_a_difference_of_areas_has_the_variance_of_differences():
  other = np.array([0.2, 0.8, 0.9, 0.1, 0.7, 0.3])
  found = area_gain_measurement(SCORES, other, POSITIVE, external=0.01)
  parts = [
    ours - theirs
    for ours, theirs in zip(placements(SCORES, POSITIVE), placements(other, POSITIVE), strict=True)
  ]
  # As if one of n + 2 images had changed sides.
  variance = sum(part.var(ddof=1) / 3 for part in parts) + 1 / 8**2
  value = parts[0].mean()
  assert found.value == pytest.approx(value)
  for total, found_ends in ((variance, ends(found)), (variance + 0.01, generator_ends(found))):
    half = NORMAL * total**0.5
    assert found_ends == pytest.approx((max(value - half, -1), min(value + half, 1)))
  assert area_gain_measurement(SCORES, other, POSITIVE).generator_high is None


def test_two_pseudo_images_are_added_to_differences():
  """One for each side: the sum stays, the sum of squares grows by one, and n by two."""
  differences = np.array([1.0, 1, 0, -1, 0, 1, 0, 0])
  found = difference_measurement(differences, np.full(8, 1 / 8), external=0.01)
  center, square = 2 / 10, (4 + 1) / 10
  variance = (square - center**2) / 10
  assert found.value == pytest.approx(2 / 8)
  for total, found_ends in ((variance, ends(found)), (variance + 0.01, generator_ends(found))):
    half = NORMAL * total**0.5
    assert found_ends == pytest.approx((center - half, center + half))
  assert difference_measurement(differences, np.full(8, 1 / 8)).generator_low is None


def test_uneven_weights_count_as_fewer_images():
  weights = np.array([0.5, 0.25, 0.25])
  count = 1 / (0.25 + 0.0625 + 0.0625)
  found = difference_measurement(np.array([1.0, 0, -1]), weights)
  center = 0.25 * count / (count + 2)
  variance = ((0.75 * count + 1) / (count + 2) - center**2) / (count + 2)
  low, high = center - NORMAL * variance**0.5, center + NORMAL * variance**0.5
  assert ends(found) == pytest.approx((max(low, -1), min(high, 1)))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_lies_between_minus_1_and_1(sign):
  found = difference_measurement(sign * np.ones(2), np.full(2, 0.5))
  # (2 + 1) / 4 - (1/2)^2 = 1/2, over 4.
  ends_by_hand = sorted((sign * 1.0, sign * (0.5 - NORMAL * 0.125**0.5)))
  assert list(ends(found)) == pytest.approx(ends_by_hand)


def test_the_bias_seen_on_halves_is_subtracted():
  halves = np.array([0.62, 0.66, 0.64, 0.68])
  found = halved_measurement(0.6, halves, external=0.01)
  step = 0.65 - 0.6
  middle, variance = 0.6 - 1.3 * step, halves.var(ddof=1) + (0.75 * step) ** 2
  for total, found_ends in ((variance, ends(found)), (variance + 0.01, generator_ends(found))):
    half = NORMAL * total**0.5
    assert found_ends == pytest.approx((middle - half, middle + half))
  assert halved_measurement(0.6, halves).generator_low is None


def test_an_interval_from_halves_holds_the_value_within_what_is_possible():
  steady = np.array([0.9, 0.9])
  # The middle of .6 - 1.3 x .3 has a half width of 1.96 x .225: the upper end is raised to the value.
  far = halved_measurement(0.6, steady)
  assert ends(far) == pytest.approx((0.0, max(0.6, 0.21 + NORMAL * 0.225)))
  below = halved_measurement(-0.9, np.array([-0.7, -0.5]), lowest=-1.0)
  assert below.ci_low == -1 and halved_measurement(0.05, np.array([0.1, 0.3])).ci_low == 0
  assert halved_measurement(0.98, np.array([0.9, 0.7])).ci_high == 1
  exact = halved_measurement(0.5, np.array([0.5, 0.5]))
  assert ends(exact) == (0.5, 0.5)


@pytest.mark.parametrize("hot", [False, True])
def test_halves_are_half_of_the_images_without_repetition(hot):
  random = np.random.default_rng(0)
  labels = np.arange(9) % 3
  columns = random.random((9, 2, 3))
  given = np.eye(3, dtype=bool)[labels] if hot else labels
  found = halved_precision(columns, given, seed=4, repeats=5)
  assert found.shape == (5, 2)
  again = np.random.default_rng(4)
  for row in found:
    half = again.permutation(9)[:4]
    drawn = np.eye(3, dtype=bool)[labels[half]]
    used = np.unique(labels[half])
    for v, value in enumerate(row):
      expected = [eleven_point_precision(columns[half, v, c], drawn[:, c]) for c in used]
      assert value == pytest.approx(np.mean(expected))


def test_a_half_without_positives_takes_the_first_positive_image():
  hot = np.zeros((6, 2), bool)
  hot[4, 1] = True
  columns = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[:, None, None] * np.ones((6, 1, 2))
  found = halved_precision(columns, hot, seed=0, repeats=40)
  # Alone, an image has the precision 1; beside the last one, which scores higher, 1/2 or less.
  assert found.max() == 1 and 0 < found.min() < 1
  assert halved_precision(columns[4:5], hot[4:5], seed=0, repeats=2).tolist() == [[1.0], [1.0]]


def test_an_interval_of_every_metric_is_that_of_its_measurement():
  random = np.random.default_rng(0)
  labels = np.array([0, 1, 1, 0, 1, 1, 1, 0])
  scores = random.random((8, 2))
  correct = scores.argmax(axis=1) == labels
  for metric in ("accuracy", "mean_per_class"):
    expected = ends(correct_measurement(correct, labels, metric))
    assert recognition_interval(scores, labels, metric) == expected
  area = area_measurement(scores[:, 1], labels == 1)
  assert recognition_interval(scores, labels, "roc_auc") == ends(area)
  low, high = recognition_interval(scores, labels, "map_11_point", seed=3)
  assert 0 <= low < high <= 1
