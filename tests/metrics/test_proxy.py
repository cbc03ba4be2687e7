"""Proxy-A-distance: known values, scikit-learn's ridge, and the published procedure."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import proxy as module
from genbench_jax.metrics.inputs import host_unit_rows
from genbench_jax.metrics.proxy import (
  PENALTIES,
  _errors,
  _half_width,
  measure,
  measure_proxy_a_distance,
  proxy_a_distance,
  ridge_error,
)
from genbench_jax.metrics.registry import Sets


def normal(rows, shift=0.0, seed=0, width=8):
  return (np.random.default_rng(seed).normal(size=(rows, width)) + shift).astype(np.float32)


def test_equal_distributions_are_near_zero_for_any_sizes():
  for rows in (200, 900):
    found = measure_proxy_a_distance(normal(200), normal(rows, seed=1))
    assert abs(found.distance.value) < 0.3
    assert found.distance.ci_low < 0 < found.distance.ci_high


def test_disjoint_clusters_have_distance_two():
  found = measure_proxy_a_distance(normal(60), normal(70, 50, seed=1))
  assert (found.distance.value, found.deviation) == (2, 0)
  assert proxy_a_distance(normal(60), normal(70, 50, seed=1), protocol="reference") == 2


def test_shifted_gaussians_have_the_distance_of_the_best_linear_classifier():
  """With shift 0.5 in each of 8 dimensions, the best line errs with probability Phi(-sqrt(8) /
  4)."""
  from scipy.stats import norm

  found = measure_proxy_a_distance(normal(1000), normal(1000, 0.5, seed=1))
  assert found.distance.value == pytest.approx(2 * (1 - 2 * norm.cdf(-np.sqrt(8) / 4)), abs=0.1)
  assert len(found.repeats) == 10 and found.deviation == pytest.approx(
    np.std(found.repeats, ddof=1)
  )


def test_the_classifier_is_ridge_regression():
  from sklearn.linear_model import RidgeClassifier
  from sklearn.preprocessing import StandardScaler

  x, y = normal(100), normal(100, 0.4, seed=1)
  train = np.concatenate([x[:40], y[:40]]).astype(float)
  scaler = StandardScaler().fit(train)
  side = np.repeat([1, -1], [40, 40])
  errors = []
  for penalty in PENALTIES:
    # The mean eigenvalue of the standardized training rows is their number.
    model = RidgeClassifier(alpha=penalty * 80, fit_intercept=False).fit(
      scaler.transform(train), side
    )
    right_x, right_y = (model.predict(scaler.transform(rows)) == s for rows, s in ((x, 1), (y, -1)))
    errors.append(
      [
        1 - np.append(right_x[part], right_y[part]).mean()
        for part in (slice(40, 50), slice(50, 100))
      ]
    )
  best = np.argmin(np.array(errors)[:, 0])
  assert float(ridge_error(x, y)) == pytest.approx(errors[best][1], abs=1e-6)


def test_the_same_seed_gives_the_same_number():
  x, y = normal(90), normal(100, 0.5, seed=1)
  assert proxy_a_distance(x, y) == proxy_a_distance(x, y)
  assert measure_proxy_a_distance(x, y).repeats != measure_proxy_a_distance(x, y, seed=1).repeats


def test_fewer_images_than_dimensions():
  found = measure_proxy_a_distance(normal(4, width=40), normal(30, seed=1, width=40))
  assert -2 <= found.distance.ci_low <= found.distance.value <= found.distance.ci_high <= 2


def test_the_reference_sees_unequal_sizes_as_distance():
  """With five times as many images in one set, always predicting it errs in one of six cases."""
  found = proxy_a_distance(normal(20), normal(100, seed=1), protocol="reference")
  assert found >= 2 * (1 - 2 / 6) - 1e-9


def test_undefined_values_are_usage_errors():
  with pytest.raises(UsageError, match="at least 4"):
    proxy_a_distance(normal(3), normal(30))
  with pytest.raises(UsageError, match="NaN"):
    proxy_a_distance(normal(30) * np.nan, normal(30))
  with pytest.raises(UsageError, match="protocol"):
    proxy_a_distance(normal(30), normal(30), protocol="x")


def test_a_constant_feature_changes_nothing():
  """Its standard deviation is zero, so it is divided by one instead."""
  x, y = normal(300), normal(300, 0.5, seed=1)
  constant = np.full((300, 1), 7, np.float32)
  found = proxy_a_distance(np.hstack([x, constant]), np.hstack([y, constant]))
  assert found == pytest.approx(proxy_a_distance(x, y), abs=0.1)


def test_sets_of_different_width_are_rejected():
  with pytest.raises(UsageError, match="8"):
    proxy_a_distance(normal(20), normal(20, width=5))


def test_the_penalty_is_chosen_on_a_fifth_of_the_training_half_as_by_hand():
  """Few images in many dimensions, where the penalty decides."""
  x, y = normal(60, 0.25, width=40), normal(60, seed=1, width=40)
  training, half = 24, 30
  both = np.concatenate([x[:training], y[:training]]).astype(float)
  middle, scale = both.mean(0), both.std(0)
  x_unit, y_unit, both = ((rows - middle) / scale for rows in (x, y, both))
  targets = np.repeat([1.0, -1.0], training)
  level = np.trace(both.T @ both) / both.shape[1]
  weights = [
    np.linalg.solve(both.T @ both + penalty * level * np.eye(40), both.T @ targets)
    for penalty in PENALTIES
  ]

  def error(w, cut):
    return (np.mean(x_unit[cut] @ w < 0) + np.mean(y_unit[cut] @ w > 0)) / 2

  validated = [error(w, slice(training, half)) for w in weights]
  tested = [error(w, slice(half, None)) for w in weights]
  best = int(np.argmin(validated))
  assert tested[best] != tested[0]  # almost no penalty
  assert float(ridge_error(x, y)) == pytest.approx(tested[best], abs=1e-6)


def test_half_widths_of_repeats_and_of_a_single_division():
  from scipy.stats import t

  expected = t.ppf(0.975, 9) * 0.2 * np.sqrt(1 / 10 + 1)
  assert _half_width(1.0, 0.2, 10, 50) == pytest.approx(expected)
  # One division of 50 images a set: 25 of each are tested; d = 1 is an error of 1/4.
  assert _half_width(1.0, 0.0, 1, 50) == pytest.approx(1.96 * 4 * np.sqrt(3 / 16 / 50))
  assert _half_width(1.0, 0.0, 1, 1) == pytest.approx(1.96 * 4 * np.sqrt(3 / 16 / 2))
  assert _half_width(2.0, 0.0, 1, 50) == 0 == _half_width(-2.0, 0.0, 1, 50)
  assert _half_width(1.0, 0.3, 2, 50) == pytest.approx(t.ppf(0.975, 1) * 0.3 * np.sqrt(1.5))


def test_a_point_on_the_boundary_is_half_an_error():
  x, y = np.array([[1.0], [2.0], [0.0], [-1.0]]), np.array([[-1.0], [-3.0], [-2.0], [5.0]])
  found = _errors(x, y, np.array([[1.0], [-1.0]]))
  np.testing.assert_allclose(found, [(1.5 / 4 + 1 / 4) / 2, 1 - (1.5 / 4 + 1 / 4) / 2])


def test_four_images_a_set_are_enough():
  x, y = normal(4), normal(30, 1, seed=1)
  for first, second in ((x, y), (y, x)):
    labels = np.zeros(len(first), int), np.zeros(len(second), int)
    (found,) = measure(Sets(first, second, *labels, num_classes=1, seed=2), ("proxy_a_distance",))
    expected = measure_proxy_a_distance(host_unit_rows(first), host_unit_rows(second), 2)
    assert found.value == expected.distance
  few = Sets(normal(3), y, np.zeros(3, int), np.zeros(30, int), num_classes=1)
  assert list(measure(few, ())) == []


def test_the_reference_divides_sets_in_the_given_order_and_scales_by_the_first_halves():
  """scikit-learn written out; the error may be mirrored, and ten costs are tried."""
  from sklearn.preprocessing import StandardScaler
  from sklearn.svm import SVC

  x, y = normal(14, width=3), normal(22, 0.7, seed=1, width=3)
  scaler = StandardScaler().fit(np.concatenate([x[:7], y[:11]]).astype(float))
  x_unit, y_unit = scaler.transform(x.astype(float)), scaler.transform(y.astype(float))
  train, side = np.concatenate([x_unit[:7], y_unit[:11]]), np.repeat([0, 1], [7, 11])
  test, truth = np.concatenate([x_unit[7:], y_unit[11:]]), np.repeat([0, 1], [7, 11])
  errors = []
  for power in range(-5, 5):
    model = SVC(C=10.0**power, kernel="linear").fit(train, side)
    wrong = np.mean(model.predict(test) != truth)
    errors.append(min(wrong, 1 - wrong))
  found = measure_proxy_a_distance(x, y, protocol="reference")
  assert found.distance.value == pytest.approx(2 * (1 - 2 * min(errors)))
  assert found.deviation == 0 and found.repeats == (found.distance.value,)
  half = _half_width(found.distance.value, 0.0, 1, 14)
  assert found.distance.ci_low == pytest.approx(max(found.distance.value - half, -2))
  assert found.distance.generator_high == pytest.approx(min(found.distance.value + half, 2))


def test_the_interval_of_ten_divisions_is_the_corrected_one():
  x, y = normal(30, width=3), normal(40, 0.4, seed=1, width=3)
  found = measure_proxy_a_distance(x, y, 3)
  half = _half_width(found.distance.value, found.deviation, 10, 30)
  assert found.distance.value == pytest.approx(np.mean(found.repeats))
  assert found.distance.ci_low == pytest.approx(max(found.distance.value - half, -2))
  assert found.distance.ci_high == pytest.approx(min(found.distance.value + half, 2))
  assert (found.distance.generator_low, found.distance.generator_high) == (found.distance.ci_low, found.distance.ci_high)  # fmt: skip
  assert measure_proxy_a_distance(x, y) == measure_proxy_a_distance(x, y, 0, "strict")


def test_no_more_than_a_thousand_images_are_drawn(monkeypatch):
  seen = []

  def errors(x, y, x_order, y_order):
    seen.append((x_order.shape, y_order.shape, len(x), len(y)))
    return np.zeros(10)

  monkeypatch.setattr(module, "_ridge_errors", errors)
  proxy_a_distance(normal(1001, width=2), normal(1200, width=2))
  proxy_a_distance(normal(30, width=2), normal(1200, width=2))
  assert [each[:2] for each in seen] == [((10, 1000),) * 2, ((10, 30),) * 2]
