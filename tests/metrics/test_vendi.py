"""Vendi score against the n x n kernel, and known values."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.vendi import measure_vendi, vendi


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
