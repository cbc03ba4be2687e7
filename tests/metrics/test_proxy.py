"""Proxy-A-distance: known values, scikit-learn's ridge, and the published procedure."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.proxy import (
  PENALTIES,
  measure_proxy_a_distance,
  proxy_a_distance,
  ridge_error,
)


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
