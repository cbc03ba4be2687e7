"""Intervals of the CLER scores, the gain and the control from judgments of test images."""

import numpy as np
import pytest
from scipy import stats

from genbench_jax.metrics.bootstrap import ONE_A_CLASS, Measurement
from genbench_jax.metrics.cler_measurements import measurements, over_permutations, per_image
from genbench_jax.metrics.intervals import (
  area_gain_measurement,
  area_measurement,
  correct_measurement,
  difference_measurement,
  halved_measurement,
  halved_precision,
)

NAMES = ("zero_shot", "cler", "cler_image")
LABELS = np.array([0, 1, 1, 1, 0, 1, 1, 1, 1, 0])
RANDOM = np.random.default_rng(0)
HITS = RANDOM.random((10, 3)) < 0.6
SCORES = RANDOM.random((10, 3, 2))
VARIANCES = {"cler": 0.01, "cler_image": 0.02}


def test_the_control_is_predicted_for_one_more_shuffle():
  found = over_permutations(
    [Measurement(v, v - 0.1 * i, v + 0.2 * i) for i, v in enumerate((0.2, 0.3, 0.4))], 0.0
  )
  half = stats.t.ppf(0.975, 2) * 0.1 * np.sqrt(1 + 1 / 3)
  assert found.value == pytest.approx(0.3)
  assert (found.ci_low, found.ci_high) == pytest.approx((0.2, 0.5))
  assert half > 0.3
  assert (found.generator_low, found.generator_high) == (0.0, pytest.approx(0.3 + half))
  free = over_permutations([Measurement(v, 0, 1) for v in (-0.2, 0.9)], -1.0)
  assert (free.generator_low, free.generator_high) == (-1, 1)


def test_one_shuffle_has_no_spread_but_two_have():
  one = over_permutations([Measurement(0.2, 0.1, 0.3)], 0.0)
  assert one == Measurement(0.2, 0.1, 0.3, note="a single shuffle has no spread")
  two = over_permutations([Measurement(v, 0, 1) for v in (0.49, 0.51)], 0.0)
  half = stats.t.ppf(0.975, 1) * np.std([0.49, 0.51], ddof=1) * np.sqrt(1.5)
  assert two.generator_high - two.value == pytest.approx(half) == two.value - two.generator_low


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class"])
def test_scores_and_the_gain_have_their_own_variance(metric):
  values = HITS.mean(axis=0).tolist()
  found = measurements(NAMES, values, HITS, LABELS, metric, VARIANCES, 0, 10)
  for v, name in enumerate(NAMES):
    external = {"zero_shot": 0.0, **VARIANCES}[name]
    assert found[name] == correct_measurement(HITS[:, v], LABELS, metric, external)
  weights = {"accuracy": np.full(10, 0.1), "mean_per_class": np.where(LABELS == 0, 1 / 6, 1 / 14)}
  differences = HITS[:, 1].astype(float) - HITS[:, 0]
  gain = difference_measurement(differences, weights[metric], 0.01)
  assert found["cler_gain"].ci_low == pytest.approx(gain.ci_low)
  assert found["cler_gain"].generator_high == pytest.approx(gain.generator_high)


def test_areas_and_their_difference_are_of_the_second_class():
  found = measurements(NAMES, [0.0] * 3, SCORES, LABELS, "roc_auc", VARIANCES, 0, 10)
  positive = LABELS == 1
  assert found["cler"] == area_measurement(SCORES[:, 1, 1], positive, 0.01)
  assert found["zero_shot"] == area_measurement(SCORES[:, 0, 1], positive, 0.0)
  gain = area_gain_measurement(SCORES[:, 1, 1], SCORES[:, 0, 1], positive, 0.01)
  assert found["cler_gain"] == gain


def test_average_precisions_and_their_difference_are_taken_on_the_same_halves():
  values = [0.4, 0.7, 0.6]
  found = measurements(NAMES, values, SCORES, LABELS, "map_11_point", VARIANCES, 3, 12)
  halves = halved_precision(SCORES, LABELS, 3, 12)
  assert found["zero_shot"] == halved_measurement(0.4, halves[:, 0], 0.0)
  assert found["cler_image"] == halved_measurement(0.6, halves[:, 2], 0.02)
  moved = halves[:, 1] - halves[:, 0]
  assert found["cler_gain"] == halved_measurement(0.7 - 0.4, moved, 0.01, lowest=-1.0)


def test_without_variances_only_zero_shot_has_an_interval_for_the_generator():
  found = measurements(NAMES, [0.5] * 3, HITS, LABELS, "accuracy", None, 0, 10)
  assert found["zero_shot"].generator_low is not None and not found["zero_shot"].note
  for name in ("cler", "cler_image", "cler_gain"):
    assert found[name].generator_low is None and found[name].note == ONE_A_CLASS


def test_the_values_of_images_are_those_of_each_score():
  found = per_image(NAMES, HITS, LABELS, "accuracy")
  assert tuple(found) == NAMES
  for v, name in enumerate(NAMES):
    np.testing.assert_array_equal(found[name], HITS[:, v])
