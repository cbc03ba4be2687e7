"""Precision, recall, density and coverage against explicit distance matrices."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from genbench_jax.errors import UsageError
from genbench_jax.metrics.intervals import wilson
from genbench_jax.metrics.manifold import (
  _coverage,
  _measurement,
  balls_held,
  measure,
  measure_manifold,
  precision_recall_density_coverage,
)
from genbench_jax.metrics.manifold_spread import Spread
from genbench_jax.metrics.registry import Sets

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


SPREAD = Spread(
  dict.fromkeys(NAMES, 0.5), {"precision": 2.0, "recall": 3.0, "density": 4.0, "coverage": 1.0}
)


@pytest.mark.parametrize("name", ["precision", "density"])
def test_variances_are_those_of_a_mean_times_the_spread(name):
  values = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
  alone, both = values.var() / 8, values.var() / 8 * SPREAD.both[name]

  def around(variance):
    half = 1.959964 * variance**0.5
    return wilson(0.75, variance, 8) if name == "precision" else (max(0.75 - half, 0), 0.75 + half)

  found = _measurement(name, values, SPREAD, True)
  assert (found.ci_low, found.ci_high) == pytest.approx(around(both / 2))
  assert (found.generator_low, found.generator_high) == pytest.approx(around(both))
  unknown = _measurement(name, values, SPREAD, False)
  assert unknown.generator_low is None and "one image per class" in unknown.note
  few = _measurement(name, values, None, True)
  assert (few.ci_low, few.ci_high) == pytest.approx(around(alone))
  assert few.generator_low is None and "too few images" in few.note


def test_a_density_is_not_below_zero_and_may_exceed_one():
  found = _measurement("density", np.array([0.0, 0, 0, 4]), SPREAD, True)
  assert found.generator_low == 0 and found.generator_high > 2


@pytest.mark.parametrize("k", [0, 6, -1])
def test_neighbors_must_be_fewer_than_images(k, sets):
  real, generated = sets[0][:6], sets[1][:9]
  for pair in ((real, generated), (generated, real)):
    with pytest.raises(UsageError, match=f"k={k} neighbors need at least"):
      precision_recall_density_coverage(*pair, k=k)
    assert set(precision_recall_density_coverage(*pair, k=5)) == set(NAMES)


def test_the_default_has_five_neighbors(sets):
  real, generated = (rows[:30] for rows in sets)
  five = precision_recall_density_coverage(real, generated, 5)
  assert precision_recall_density_coverage(real, generated) == five
  assert measure_manifold(real, generated, resamples=4) == measure_manifold(
    real, generated, 5, None, 0, 4
  )


def test_balls_hold_what_is_nearer_than_their_radius(one_device_mesh):
  centers = np.array([[0.0, 0], [3, 0], [9, 9]], np.float32)
  points = np.array([[1, 0], [2, 0], [0, 0], [30, 0]], np.float32)
  found = balls_held(centers, np.array([2.25, 4.5, 0.0]), points, one_device_mesh)
  assert found.tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize("pairs", [2**20, 0])
def test_up_to_k_real_images_the_farthest_defines_the_radius(pairs, one_device_mesh, monkeypatch):
  """Radii of three images at 0, 2 and 6 with five neighbors: 6, 4 and 6."""
  monkeypatch.setattr("genbench_jax.metrics.manifold.HOST_PAIRS", pairs)
  real = np.array([[0.0], [2], [6]], np.float32)
  for at, covered in ((5.9, 3), (6.5, 1), (-1.5, 2), (11.5, 1), (13, 0), (-2.5, 1)):
    found = _coverage(real, np.array([[at]], np.float32), 5, one_device_mesh)
    assert found == pytest.approx(covered / 3), at
  assert _coverage(real, np.zeros((0, 1), np.float32), 5, one_device_mesh) == 0
  two = _coverage(real[:2], np.array([[-1.0]], np.float32), 1, one_device_mesh)
  assert two == 0.5


@pytest.mark.parametrize(("size", "names"), [(5, set()), (6, set(NAMES))])
def test_six_images_a_set_are_measured(sets, size, names):
  real, generated = sets
  given = (generated[:size], real[:30], np.zeros(size, int), np.zeros(30, int))
  found = {r.name: r for r in measure(Sets(*given, num_classes=1, resamples=4), NAMES)}
  assert found.keys() == names
  for result in found.values():
    assert set(result.by_class) == {0}
  swapped = (given[1], given[0], given[3], given[2])
  assert {r.name for r in measure(Sets(*swapped, num_classes=1, resamples=4), NAMES)} == names
