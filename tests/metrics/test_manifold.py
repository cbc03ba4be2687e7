"""Precision, recall, density and coverage against explicit distance matrices."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from genbench_jax.errors import UsageError
from genbench_jax.metrics.manifold import measure_manifold, precision_recall_density_coverage

NAMES = ("precision", "recall", "density", "coverage")


def by_hand(real, generated, k=5):
  real, generated = real.astype(float), generated.astype(float)
  radius_real, radius_generated = (np.sort(cdist(rows, rows))[:, k] for rows in (real, generated))
  across = cdist(real, generated)
  in_real = across < radius_real[:, None]
  return {
    "precision": in_real.any(0).mean(),
    "recall": (across < radius_generated).any(1).mean(),
    "density": in_real.sum(0).mean() / k,
    "coverage": in_real.any(1).mean(),
  }


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  real = rng.normal(size=(290, 8)) + 20
  generated = 0.8 * rng.normal(size=(260, 8)) + 20.5
  return real.astype(np.float32), generated.astype(np.float32)


def test_agrees_with_the_matrices(sets):
  for k in (1, 5):
    assert precision_recall_density_coverage(*sets, k=k) == pytest.approx(
      by_hand(*sets, k), rel=1e-5
    )


def test_devices_blocks_and_order_do_not_matter(sets, one_device_mesh, monkeypatch):
  real, generated = sets
  whole = precision_recall_density_coverage(real, generated)
  assert precision_recall_density_coverage(real[::-1], generated, mesh=one_device_mesh) == whole
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 100)
  assert precision_recall_density_coverage(real, generated) == whole


def test_known_values(sets):
  real, _ = sets
  same = precision_recall_density_coverage(real, real)
  assert [same[name] for name in NAMES] == pytest.approx([1, 1, same["density"], 1])
  # Each ball holds its center and the k - 1 others that are nearer than the k-th.
  assert same["density"] == pytest.approx(1)
  apart = precision_recall_density_coverage(real, real + 100)
  assert list(apart.values()) == [0, 0, 0, 0]
  one_mode = precision_recall_density_coverage(np.concatenate([real, real + 100]), real)
  assert one_mode["precision"] == 1
  assert one_mode["coverage"] == one_mode["recall"] == pytest.approx(0.5)


def test_copies_of_one_image_have_no_extent(sets):
  copies = np.tile(sets[0][:1], (20, 1))
  assert precision_recall_density_coverage(sets[0], copies)["recall"] == 0
  assert precision_recall_density_coverage(copies, copies)["precision"] == 0


def test_classes_are_the_same_on_host_and_device(sets, monkeypatch):
  labels = np.arange(290) % 3, np.arange(260) % 3
  on_host = measure_manifold(*sets, labels=labels, resamples=10).per_class
  monkeypatch.setattr("genbench_jax.metrics.manifold.HOST_PAIRS", 0)
  assert measure_manifold(*sets, labels=labels, resamples=10).per_class == on_host
  copies = np.tile(sets[0][:1], (20, 1))
  same = measure_manifold(copies, copies, labels=(np.zeros(20, int),) * 2, resamples=10)
  assert same.per_class == {0: 0}


def test_intervals_and_classes(sets):
  real, generated = sets
  real_labels = np.arange(290) % 3
  real_labels[-1] = 7  # a class with a single image
  generated_labels = np.arange(260) % 2  # nothing for class 2
  result = measure_manifold(real, generated, labels=(real_labels, generated_labels))
  for name, value in by_hand(real, generated).items():
    found = result.scores[name]
    assert found.value == pytest.approx(value)
    assert found.ci_low < found.value < found.ci_high
  assert set(result.per_class) == {0, 1, 2} and result.per_class[2] == 0
  hot = np.eye(8)[real_labels], np.eye(8)[generated_labels]
  assert measure_manifold(real, generated, labels=hot, resamples=10).per_class == result.per_class
  for c in (0, 1):
    expected = by_hand(real[real_labels == c], generated[generated_labels == c])["coverage"]
    assert result.per_class[c] == pytest.approx(expected)


def test_undefined_values_are_usage_errors(sets):
  real, generated = sets
  with pytest.raises(UsageError, match=r"k \+ 1 images"):
    precision_recall_density_coverage(real[:5], generated)
  with pytest.raises(UsageError, match="NaN"):
    precision_recall_density_coverage(real, generated * np.nan)
  with pytest.raises(UsageError, match="every image needs its label"):
    labels = np.zeros(3, int), np.zeros(260, int)
    measure_manifold(real, generated, labels=labels, resamples=10)
