"""Vendi score against the n x n kernel, and known values."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import vendi as module
from genbench_jax.metrics.bootstrap import own_interval
from genbench_jax.metrics.registry import Sets
from genbench_jax.metrics.vendi import measure_vendi, vendi
from genbench_jax.runtime.mesh import data_mesh


def by_hand(x):
  unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
  eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
  kept = eigenvalues[eigenvalues > 1e-12]
  return np.exp(-np.sum(kept * np.log(kept)))


@pytest.fixture(scope="module")
def features():
  rng = np.random.default_rng(0)
  return (rng.normal(size=(300, 16)) * np.linspace(0.2, 2, 16) + 0.5).astype(np.float32)


@pytest.mark.parametrize("rows", [300, 9, 2, 1])
def test_agrees_with_the_kernel(features, rows):
  assert vendi(features[:rows]) == pytest.approx(by_hand(features[:rows]), rel=1e-5)


def test_devices_blocks_and_order_do_not_matter(features, one_device_mesh, monkeypatch):
  whole = vendi(features)
  assert vendi(features[::-1], mesh=one_device_mesh) == pytest.approx(whole, rel=1e-6)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 100)
  assert vendi(features) == pytest.approx(whole, rel=1e-6)


def test_known_values():
  assert vendi(np.tile([[3.0, 4.0]], (7, 1))) == pytest.approx(1)
  assert vendi(np.eye(12) * 5) == pytest.approx(12, rel=1e-6)
  assert vendi(np.repeat(np.eye(12), 3, axis=0)) == pytest.approx(12, rel=1e-6)
  assert vendi(np.concatenate([np.eye(4), np.zeros((3, 4))])) == pytest.approx(4, rel=1e-6)


def test_the_interval_agrees_with_a_full_bootstrap(features):
  """The spread is compared, not the center: resamples repeat images, which lowers the score."""
  x = features[:, :4]
  found = measure_vendi(x)
  rng = np.random.default_rng(0)
  samples = [by_hand(x[rng.integers(0, 300, 300)]) for _ in range(150)]
  width = np.quantile(samples, 0.975) - np.quantile(samples, 0.025)
  assert found.score.ci_high - found.score.ci_low == pytest.approx(width, rel=0.25)
  assert found.score.ci_low < found.score.value < found.score.ci_high


def test_per_class(features):
  labels = np.arange(300) % 3
  labels[0] = 5
  hot = np.eye(6)[labels]
  assert measure_vendi(features, hot, resamples=20) == measure_vendi(features, labels, resamples=20)
  found = measure_vendi(features, labels, resamples=20).per_class
  assert list(found) == [0, 1, 2, 5] and found[5] == pytest.approx(1)
  assert found[1] == pytest.approx(by_hand(features[labels == 1]), rel=1e-5)
  assert measure_vendi(features[:12], np.zeros(12, int), resamples=20).per_class[
    0
  ] == pytest.approx(by_hand(features[:12]), rel=1e-5)


def test_undefined_values_are_usage_errors(features):
  with pytest.raises(UsageError, match="all zero"):
    vendi(np.zeros((3, 4)))
  with pytest.raises(UsageError, match="every image needs its label"):
    measure_vendi(features, np.zeros(3, int), resamples=20)
  with pytest.raises(UsageError, match="class indices or multi-hot"):
    measure_vendi(features, np.zeros(300), resamples=20)


def test_features_of_any_scale_have_the_same_score(features):
  expected = vendi(features)
  for scale in (1e-30, 1e30):
    assert vendi(features * np.float32(scale)) == pytest.approx(expected, rel=1e-5)
  assert vendi(np.full((5, 4), 1e38, np.float32)) == pytest.approx(1)


@pytest.mark.parametrize("order", [0.0, 0.5, 2.0, np.inf])
def test_the_influence_of_an_image_is_the_derivative_of_the_score(order):
  """d log(score) / d weight of one image, up to a constant, by a finite difference."""
  random = np.random.default_rng(0)
  x = random.normal(size=(30, 3)) * [3, 2, 1]
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  second = unit.T @ unit / 30
  eigenvalues, vectors = np.linalg.eigh(second)
  found = module._surprises(x.astype(np.float32), eigenvalues, vectors, data_mesh(), order)

  def score(weights):
    return np.log(module._of_eigenvalues(np.linalg.eigvalsh((unit.T * weights) @ unit), order))

  step, even = 1e-6, np.full(30, 1 / 30)
  expected = [
    (score(even + step * one) - score(even - step * one)) / (2 * step) for one in np.eye(30)
  ]
  if order == 0:
    assert not found.any()  # the rank does not change
  else:
    moved = found - found.mean()
    np.testing.assert_allclose(moved, expected - np.mean(expected), atol=2e-3 * np.abs(moved).max())


def test_the_usual_score_counts_directions_that_are_fitted_to_few_images(features):
  """Influences are multiplied by sqrt(1 + score / n), for order 1 alone."""
  x = features[:40]
  for order in (1.0, 2.0):
    found = measure_vendi(x, resamples=100, seed=3, order=order).score
    mesh = data_mesh()
    eigenvalues, vectors = np.linalg.eigh(module._second_moment(x, mesh))
    influences = found.value * module._surprises(x, eigenvalues, vectors, mesh, order)
    factor = np.sqrt(1 + found.value / 40) if order == 1 else 1
    expected = own_interval(found.value, factor * influences, np.zeros(40, int), 100, 3, lowest=1.0)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.ci_low, expected.ci_high))
  assert measure_vendi(x, resamples=5) == measure_vendi(x, None, 0, 5, None, 1.0)


def test_orders_at_their_limits():
  values = np.array([0.5, 0.25, 0.25, 1e-9])
  of = module._of_eigenvalues
  assert of(values, 0.0) == pytest.approx(3)  # what is below the rounding of float32 is nothing
  assert of(values) == of(values, 1.0) == pytest.approx(2**1.5)
  assert of(values, 2.0) == pytest.approx(1 / 0.375)
  assert of(values, np.inf) == pytest.approx(2)
  assert of(2 * values, 2.0) == pytest.approx(1 / 0.375)
  with pytest.raises(UsageError, match=r"order must be 0 or greater, got -0\.1"):
    vendi(np.eye(3), order=-0.1)
  with pytest.raises(UsageError, match="order must be"):
    vendi(np.eye(3), order=float("nan"))


def test_classes_of_few_images():
  assert module._of_few(np.zeros((2, 3))) == 1
  assert module._of_few(np.array([[1.0, 0], [0, 3], [0, 0]])) == pytest.approx(2)
  assert module._of_few(np.array([[1.0, 0, 0], [0, 2, 0]])) == pytest.approx(2)
  assert module._of_few(np.array([[1.0, 0], [2, 0], [0, 1], [0, 5]]), 2.0) == pytest.approx(2)


def test_every_order_is_measured_if_wanted(features):
  labels = np.arange(12) % 2
  sets = Sets(features[:12], features, labels, np.zeros(300, int), num_classes=2, resamples=4)
  found = {r.name: r for r in module.measure(sets, ("vendi_inf", "vendi_q2"))}
  assert list(found) == ["vendi_inf", "vendi_q2"]
  for name, order in (("vendi_inf", np.inf), ("vendi_q2", 2.0)):
    assert found[name].value.value == pytest.approx(vendi(features[:12], order=order))
    expected = module._of_few(features[:12:2].astype(float), order)
    assert found[name].by_class[0] == pytest.approx(expected)
