"""Clipped density and coverage, authenticity, MIND, orders of Vendi, diversity within classes,
guides: each against an explicit computation."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.authenticity import auth_pct, near_copies
from genbench_jax.metrics.clipped import clipped_density_coverage, expected_coverage, on_parts
from genbench_jax.metrics.guides import class_chamfer, guide_ridge
from genbench_jax.metrics.mind import mind, unit_directions
from genbench_jax.metrics.registry import Sets, measured
from genbench_jax.metrics.vendi import vendi
from genbench_jax.metrics.within_class import intra_class_diversity


@pytest.fixture(scope="module")
def sets():
  random = np.random.default_rng(0)
  real = random.normal(size=(120, 6)).astype(np.float32)
  return real, (0.9 * random.normal(size=(150, 6)) + 0.2).astype(np.float32)


def distances(a, b):
  return np.sqrt(((a[:, None].astype(float) - b) ** 2).sum(-1))


def clipped_by_hand(real, generated, k=5):
  """Compute the paper's definition, image by image."""
  own = np.sort(distances(real, real), axis=1)
  radius = own[:, k]
  clipped = np.minimum(radius, np.median(radius))
  count = (distances(real, generated) <= clipped[:, None]).sum(0)
  count_real = (distances(real, real) <= clipped[:, None]).sum(0) - 1
  density = np.minimum(count / k, 1).mean() / np.minimum(count_real / k, 1).mean()
  coverage = np.minimum((distances(real, generated) < radius[:, None]).sum(1), k).mean() / k
  curve = expected_coverage(len(real), len(generated), k)
  return min(density, 1), np.sum(curve < coverage) / len(curve)


def test_clipped_density_and_coverage(sets, one_device_mesh):
  found = clipped_density_coverage(*sets)
  assert tuple(found.values()) == pytest.approx(clipped_by_hand(*sets), abs=1e-6)
  assert clipped_density_coverage(*sets, mesh=one_device_mesh) == pytest.approx(found)
  real, generated = (np.asarray(rows, np.float64) for rows in sets)
  every = [np.ones(len(rows), bool) for rows in (generated, real)]
  of_all = on_parts(generated, real)(*every)
  assert of_all == pytest.approx([*found.values(), *found.values()], abs=1e-6)
  far = clipped_density_coverage(*(rows * np.float32(1e20) + np.float32(3e20) for rows in sets))
  assert far == pytest.approx(found, abs=0.02)


def test_the_expected_coverage_equals_that_of_simulated_images():
  random = np.random.default_rng(0)
  n, m, k = 40, 30, 3
  values = []
  for _ in range(300):
    real, generated = random.normal(size=(n, 2)), random.normal(size=(m, 2))
    radius = np.sort(distances(real, real), axis=1)[:, k]
    near = (distances(real, generated) < radius[:, None]).sum(1)
    values.append(np.minimum(near, k).mean() / k)
  curve = expected_coverage(n, m, k)
  assert curve[m] == pytest.approx(np.mean(values), abs=0.01)
  assert curve[0] == 0 and (np.diff(curve) >= 0).all()


def test_a_fraction_of_good_images_scores_about_that_fraction():
  random = np.random.default_rng(0)
  real, good = random.normal(size=(2, 400, 4))
  for share in (0.25, 0.75):
    images = good.copy()
    images[int(400 * share) :] += 100
    found = clipped_density_coverage(real, images)
    assert found["clipped_density"] == pytest.approx(share, abs=0.1)
    assert found["clipped_coverage"] == pytest.approx(share, abs=0.1)


def test_authenticity(sets):
  training, generated = sets
  across, within = distances(generated, training), distances(training, training)
  np.fill_diagonal(within, np.inf)
  expected = 100 * np.mean(within.min(1)[across.argmin(1)] < across.min(1))
  assert auth_pct(training, generated) == pytest.approx(expected)
  assert auth_pct(training, training) == 0
  with pytest.raises(UsageError, match="2 training images"):
    auth_pct(training[:1], generated)


def test_copies_are_detected(sets):
  training, unseen = sets[0], np.random.default_rng(1).normal(size=(400, 6))
  assert near_copies(training, unseen, unseen) == pytest.approx(0.05)
  assert near_copies(training, training + 1e-4, unseen) == 1


def test_mind_is_the_sorted_difference(sets):
  x, y = (rows[:100].astype(float) for rows in sets)
  lines = unit_directions(50, 6, np.random.default_rng(0))
  steps = [np.mean((np.sort(x @ u) - np.sort(y @ u)) ** 2) for u in lines]
  assert mind(x, y, lines) == pytest.approx(3 * 6 * np.mean(steps))
  assert mind(x, x) == 0
  assert mind(x[::-1], y, lines) == pytest.approx(mind(x, y, lines))
  moved = mind(x, x + 0.5)
  assert moved == pytest.approx(3 * 6 * 0.25, rel=0.1)  # E (u . s)^2 = |s|^2 / d
  assert 0 < mind(sets[0][:60], sets[1]) < 10


@pytest.mark.parametrize("order", [0.5, 2.0, np.inf])
def test_orders_of_vendi(sets, order):
  unit = sets[0].astype(float) / np.linalg.norm(sets[0], axis=1, keepdims=True)
  values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
  values = values[values > 1e-9]
  expected = 1 / values.max() if np.isinf(order) else np.sum(values**order) ** (1 / (1 - order))
  assert vendi(sets[0], order=order) == pytest.approx(expected, rel=1e-4)
  assert vendi(np.eye(8, dtype=np.float32), order=order) == pytest.approx(8, rel=1e-4)


def test_vendi_of_order_two_has_the_interval_of_a_bootstrap():
  from genbench_jax.metrics.vendi import measure_vendi

  random = np.random.default_rng(0)
  x = random.normal(size=(400, 3)) * [3, 2, 1]
  found = measure_vendi(x, order=2.0).score
  samples = [vendi(x[random.integers(0, 400, 400)], order=2.0) for _ in range(80)]
  width = np.ptp(np.quantile(samples, [0.025, 0.975]))
  assert found.ci_high - found.ci_low == pytest.approx(width, rel=0.3)


def test_diversity_within_classes(sets):
  labels = np.arange(120) % 4
  found = intra_class_diversity(sets[0], labels)
  unit = sets[0].astype(float) / np.linalg.norm(sets[0], axis=1, keepdims=True)
  for c, value in found.items():
    own = unit[labels == c]
    pairs = (own @ own.T)[np.triu_indices(len(own), 1)]
    assert value == pytest.approx(1 - pairs.mean(), rel=1e-5)
  with pytest.raises(UsageError, match="a class with two images"):
    intra_class_diversity(sets[0][:3], np.arange(3))


def test_class_chamfer(sets):
  x, guides = sets
  labels, guide_labels = np.arange(120) % 3, np.arange(150) % 3
  across = distances(guides, x)
  expected = np.mean([
    across[g, labels == guide_labels[g]].min() for g in range(len(guides))
  ])  # fmt: skip
  assert class_chamfer(x, labels, guides, guide_labels) == pytest.approx(expected)
  kept = labels != 2
  missing = class_chamfer(x[kept], labels[kept], guides, guide_labels)
  assert missing > expected
  hot = np.eye(3, dtype=bool)
  same = class_chamfer(x, hot[labels], guides, hot[guide_labels])
  assert same == pytest.approx(expected)


def test_guide_ridge_is_a_ridge_classifier(sets):
  from sklearn.linear_model import Ridge

  random = np.random.default_rng(0)
  centers = random.normal(size=(3, 6))
  labels, guide_labels = np.arange(60) % 3, np.arange(90) % 3
  x = centers[labels] + random.normal(size=(60, 6))
  guides = centers[guide_labels] + random.normal(size=(90, 6))
  level = 0.1 * np.trace(np.cov(x.T, bias=True)) / 6
  model = Ridge(alpha=60 * level).fit(x, np.eye(3)[labels])
  expected = np.mean(model.predict(guides).argmax(1) == guide_labels)
  assert guide_ridge(x, labels, guides, guide_labels) == pytest.approx(expected)
  assert expected > 0.6


def test_guides_give_rows_with_both_intervals(sets):
  x, guides = sets
  given = Sets(
    x, guides, np.arange(120) % 3, np.arange(150) % 3, num_classes=3, guides=guides[:24],
    guide_labels=np.arange(24) % 3, training=guides, training_labels=np.arange(150) % 3,
  )  # fmt: skip
  names = ("class_chamfer", "guide_ridge", "mind", "auth_pct", "near_copies", "clipped_coverage")
  found = {result.name: result.value for _, result in measured(given, names)}
  assert set(found) == set(names)
  for value in found.values():
    assert value.generator_low <= value.ci_low <= value.value <= value.ci_high
    assert value.ci_high <= value.generator_high


@pytest.mark.slow
def test_values_depend_on_neither_devices_nor_blocks_nor_padding(
  world, one_device_mesh, monkeypatch
):
  """61 images on 8 devices are padded; on one device, and in blocks of 16, they give the same
  values."""

  names = (
    "mind", "clipped_density", "clipped_coverage", "intra_class_diversity", "auth_pct", "near_copies",
    "class_chamfer", "guide_ridge",
  )  # fmt: skip
  real = {"training": world.tests[::2], "training_labels": world.test_labels[::2]}
  guides = {"guides": world.tests[1::2], "guide_labels": world.test_labels[1::2]}

  def values(mesh):
    sets = Sets(
      world.images[:61], world.tests, world.labels[:61], world.test_labels, world.text, 7, resamples=2,
      mesh=mesh, **real, **guides,
    )  # fmt: skip
    return {result.name: result.value.value for _, result in measured(sets, names)}

  whole = values(None)
  assert whole.keys() == set(names)
  assert values(one_device_mesh) == pytest.approx(whole, rel=1e-5)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 16)
  assert values(None) == pytest.approx(whole, rel=1e-5)
