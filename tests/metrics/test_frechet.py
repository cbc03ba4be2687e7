"""Fréchet distance against SciPy's matrix square root, closed forms, and the published flaw."""

import numpy as np
import pytest
import scipy.linalg

from genbench_jax.errors import UsageError
from genbench_jax.metrics.frechet import (
  _influences,
  distance_of_gaussians,
  frechet_distance,
  measure,
  measure_frechet_distance,
)
from genbench_jax.metrics.moments import Moments, moments
from genbench_jax.metrics.registry import Sets


def by_hand(x, y, divide_by=None):
  x, y = x.astype(float), y.astype(float)
  cov_x, cov_y = np.cov(x.T), np.cov(y.T)
  if divide_by is not None:
    cov_y *= (len(y) - 1) / divide_by
  root = scipy.linalg.sqrtm(cov_x @ cov_y).real
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cov_x + cov_y - 2 * root)


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  mix = rng.normal(size=(16, 16))
  x = (rng.normal(size=(400, 16)) @ mix + 50).astype(np.float32)
  y = (rng.normal(size=(300, 16)) * 1.3 + 49.5).astype(np.float32)
  return x, y


def test_agrees_with_scipy(sets):
  assert frechet_distance(*sets) == pytest.approx(by_hand(*sets), rel=1e-4)
  unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in sets]
  assert frechet_distance(*sets, normalize=True) == pytest.approx(by_hand(*unit), rel=1e-4)


def test_reference_divides_both_covariances_by_the_n_of_x(sets):
  x, y = sets
  found = frechet_distance(x, y, protocol="reference")
  assert found == pytest.approx(by_hand(x, y, divide_by=len(x) - 1), rel=1e-4)
  assert abs(found / frechet_distance(x, y) - 1) > 0.01


def test_devices_blocks_and_order_do_not_matter(sets, one_device_mesh, monkeypatch):
  x, y = sets
  whole = frechet_distance(x, y)
  assert frechet_distance(y, x) == pytest.approx(whole, rel=1e-6)
  assert frechet_distance(x, y, mesh=one_device_mesh) == pytest.approx(whole, rel=1e-5)
  assert frechet_distance(x[::-1], y) == pytest.approx(whole, rel=1e-5)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 100)
  assert frechet_distance(x, y) == pytest.approx(whole, rel=1e-5)


def test_known_values(sets):
  x, _ = sets
  assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
  assert frechet_distance(x, x + 2) == pytest.approx(16 * 4, rel=1e-5)
  scaled = (x - x.mean(0)) * 3 + x.mean(0)
  assert frechet_distance(x, scaled) == pytest.approx(4 * np.trace(np.cov(x.T)), rel=1e-4)


def test_fewer_images_than_dimensions(sets):
  x, y = sets
  assert frechet_distance(x[:5], y) == pytest.approx(by_hand(x[:5], y), rel=1e-4)
  found = measure_frechet_distance(x[:5], y)
  assert 0 <= found.ci_low <= found.value <= found.ci_high < np.inf


@pytest.mark.parametrize("normalize", [False, True])
def test_the_intervals_agree_with_a_full_bootstrap(sets, normalize):
  """The first-order bootstrap has the spread of a full one if n is well above d."""
  x, y = sets[0][:, :4], sets[1][:, :4]
  found = measure_frechet_distance(x, y, normalize=normalize)
  unit = [
    rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize else rows for rows in (x, y)
  ]
  rng = np.random.default_rng(0)

  def width(*sides):
    samples = [
      by_hand(*(rows[rng.integers(0, len(rows), len(rows))] if side in sides else rows
                for side, rows in zip("xy", unit, strict=True)))
      for _ in range(400)
    ]  # fmt: skip
    return np.ptp(np.quantile(samples, [0.025, 0.975]))

  assert found.ci_high - found.ci_low == pytest.approx(width("y"), rel=0.15)
  assert found.generator_high - found.generator_low == pytest.approx(width("x", "y"), rel=0.15)
  assert found.ci_low < found.value < found.ci_high


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_features_of_any_scale_give_the_same_distance(sets, scale):
  x, y = (rows * np.float32(scale) for rows in sets)
  assert frechet_distance(x, y) / scale**2 == pytest.approx(frechet_distance(*sets), rel=1e-4)


def test_undefined_values_are_usage_errors(sets):
  x, y = sets
  with pytest.raises(UsageError, match="at least 2 images"):
    frechet_distance(x[:1], y)
  with pytest.raises(UsageError, match="Known: strict, reference"):
    frechet_distance(x, y, protocol="published")
  with pytest.raises(UsageError, match="NaN"):
    frechet_distance(x * np.nan, y)


def test_moments_far_from_zero_keep_their_precision(mesh):
  rows = (1000 + np.random.default_rng(0).normal(size=(3000, 8))).astype(np.float32)
  mean, covariance = moments("x", rows, mesh).compute()
  np.testing.assert_allclose(mean, rows.astype(float).mean(0), rtol=1e-9)
  np.testing.assert_allclose(covariance, np.cov(rows.astype(float).T), rtol=2e-5, atol=2e-5)


def test_states_merge_on_the_host_and_on_the_device():
  rows = np.random.default_rng(0).normal(size=(60, 4))
  masks = [np.arange(60) % 3 == part for part in range(3)]
  device = [Moments.from_batch(rows.astype(np.float32), np.asarray(mask)) for mask in masks]
  host = [Moments(*(np.asarray(array, np.float64) for array in state)) for state in device]
  for states in (device, host):
    mean, covariance = states[0].merge(states[1]).merge(states[2]).compute()
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(rows.T), atol=1e-6)


def test_an_empty_state_is_neutral():
  rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
  some, none = (Moments.from_batch(rows, np.full(60, real)) for real in (True, False))
  for merged in (some.merge(none), none.merge(some)):
    np.testing.assert_allclose(merged.scatter, some.scatter, rtol=1e-6)


def test_two_images_per_set_are_enough():
  """Covariances of rank one, along a and b: the trace of the root is the length of their
  product."""
  x = np.array([[0, 0, 0], [2, 0, 0]], np.float32)
  y = np.array([[0, 0, 1], [0, 4, 1]], np.float32)
  # Variances 2 and 8 along axes at a right angle; means (1, 0, 0) and (0, 2, 1).
  assert frechet_distance(x, y) == pytest.approx(1 + 4 + 1 + 2 + 8, rel=1e-5)


def test_the_influence_of_an_image_is_the_change_by_one_more_copy_of_it(mesh):
  rng = np.random.default_rng(3)
  x, y = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4)) + 0.5, rng.normal(size=(60, 4))
  x = x.astype(np.float32)
  gaussians = [(rows.mean(0), np.cov(rows.T)) for rows in (x.astype(float), y)]
  found = _influences(x, *gaussians, normalize=False, mesh=mesh)
  many = np.repeat(x, 100, axis=0)
  base = by_hand(many, y)
  moved = [(by_hand(np.concatenate([many, x[i : i + 1]]), y) - base) * len(many) for i in range(40)]
  # Copies make the sample covariance smaller by 39/40; the influence corrects for that.
  assert np.corrcoef(found, moved)[0, 1] > 0.999
  assert found.std() == pytest.approx(np.std(moved), rel=0.05)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_influence_is_the_derivative_of_the_distance(normalize, mesh):
  """Of mean and covariance towards an image: z, and n / (n - 1) z z' less the covariance."""
  rng = np.random.default_rng(3)
  x = (rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3)) + 0.5).astype(np.float32)
  y = rng.normal(size=(60, 3))
  rows, others = (
    unit_rows(each.astype(float)) if normalize else each.astype(float) for each in (x, y)
  )
  first, second = ((each.mean(0), np.cov(each.T)) for each in (rows, others))
  found = _influences(x, first, second, normalize=normalize, mesh=mesh)
  step, expected = 1e-5, []
  for row in rows:
    z = row - first[0]
    towards = 9 / 8 * np.outer(z, z) - first[1]
    sides = [
      distance_of_gaussians((first[0] + s * z, first[1] + s * towards), second)
      for s in (step, -step)
    ]
    expected.append((sides[0] - sides[1]) / (2 * step))
  # Up to a constant, which is the same for all images.
  moved, expected = found - found.mean(), np.array(expected) - np.mean(expected)
  np.testing.assert_allclose(moved, expected, atol=2e-3 * np.abs(expected).max())


def unit_rows(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_measured_distances_have_the_value_protocol_and_scale_of_the_distance(sets):
  x, y = (rows[:40] for rows in sets)
  for options in ({}, {"protocol": "reference"}, {"normalize": True}):
    found = measure_frechet_distance(x, y[:30], **options, resamples=20)
    assert found.value == pytest.approx(frechet_distance(x, y[:30], **options))
    assert 0 <= found.generator_low <= found.ci_low < found.ci_high
  plain = measure_frechet_distance(x, y, resamples=20)
  scale = np.float32(2.0**60)
  large = measure_frechet_distance(scale * x, scale * y, resamples=20)
  for end in ("value", "ci_low", "ci_high", "generator_low", "generator_high"):
    assert getattr(large, end) == pytest.approx(2.0**120 * getattr(plain, end), rel=1e-3)
  unit = measure_frechet_distance(scale * x, scale * y, normalize=True, resamples=20)
  assert unit.value == pytest.approx(frechet_distance(x, y, normalize=True), rel=1e-4)


def test_one_image_a_class_leaves_the_generators_interval_open(sets):
  x, y = (rows[:40] for rows in sets)
  labels = np.arange(40), np.arange(40) % 2
  found = measure_frechet_distance(x, y, resamples=20, labels=labels)
  assert found.generator_low is None and found.note


@pytest.mark.parametrize(("size", "names"), [(1, []), (2, ["fid"])])
def test_two_images_a_set_have_a_distance(sets, size, names):
  x, y = sets
  labels = np.zeros(size, int), np.zeros(30, int)
  for given in ((x[:size], y[:30], *labels), (y[:30], x[:size], *labels[::-1])):
    found = list(measure(Sets(*given, num_classes=1, resamples=4), ("fid",)))
    assert [result.name for result in found] == names
