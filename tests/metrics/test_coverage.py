"""Intervals hold what they promise: short forms of benchmarks/intervals.py, one for each kind of interval.

A number is measured on images drawn again and again; an interval of 95 % should hold its mean nearly always, and be about as
wide as the number varies. Ten times too narrow, or too wide, fails.
"""

import numpy as np
import pytest

from genbench_jax.metrics.cler import measure_cler
from genbench_jax.metrics.frechet import measure_frechet_distance
from genbench_jax.metrics.intervals import correct_measurement, recognition_interval
from genbench_jax.metrics.kernels import measure_kernel_distance
from genbench_jax.metrics.manifold import measure_manifold

CLASSES, WIDTH, SHOTS, TESTS = 5, 16, 8, 200
CENTERS = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
TEXT = CENTERS + np.random.default_rng(1).normal(size=CENTERS.shape)
LABELS, TEST_LABELS = np.arange(CLASSES * SHOTS) % CLASSES, np.arange(TESTS) % CLASSES


def draw(random, labels, shift=0.0):
  rows = CENTERS[labels] + shift + 1.5 * random.normal(size=(len(labels), WIDTH))
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def checked(found, kind, least=0.8, widths=(0.7, 1.6)):
  """Return the coverage of the mean, and the mean width relative to the spread of the values."""
  values = np.array([one.value for one in found])
  ends = np.array([[getattr(one, f"{kind}_{end}") for end in ("low", "high")] for one in found])
  held = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
  width = np.mean(ends[:, 1] - ends[:, 0]) / (3.92 * values.std())
  assert held >= least, (kind, held, width)
  assert widths[0] < width < widths[1], (kind, held, width)


@pytest.fixture(scope="module")
def options(one_device_mesh):
  return {"resamples": 100, "mesh": one_device_mesh}


@pytest.mark.slow
def test_cler_for_these_images_and_for_this_generator(options):
  random = np.random.default_rng(2)
  fixed = draw(random, LABELS)
  same = [
    measure_cler(fixed, LABELS, TEXT, draw(random, TEST_LABELS), TEST_LABELS, permutations=1, **options)
    for _ in range(30)
  ]  # fmt: skip
  for name in ("zero_shot", "cler", "cler_image", "topk_vote", "cler_gain"):
    checked([each.scores[name] for each in same], "ci")
  anew = [
    measure_cler(draw(random, LABELS), LABELS, TEXT, draw(random, TEST_LABELS), TEST_LABELS,
                 permutations=1, seed=seed, **options)
    for seed in range(30)
  ]  # fmt: skip
  for name in ("cler", "cler_image", "topk_vote"):
    checked([each.scores[name] for each in anew], "generator", widths=(0.75, 1.6))


@pytest.mark.slow
def test_distances_for_this_generator(options):
  random = np.random.default_rng(3)
  labels = (LABELS, TEST_LABELS)
  sets = [(draw(random, LABELS, 0.4), draw(random, TEST_LABELS)) for _ in range(40)]
  fid = [measure_frechet_distance(*pair, labels=labels, **options) for pair in sets]
  checked(fid, "generator")
  kid = [
    measure_kernel_distance(*pair, labels=labels, standardize=True, **options) for pair in sets
  ]
  checked(kid, "generator", 0.75, (0.7, 1.5))
  real = [measure_manifold(y, x, 5, labels[::-1], **options) for x, y in sets]
  for name in ("precision", "density", "coverage"):
    checked([each.scores[name] for each in real], "generator", 0.8, (0.6, 1.9))


def test_accuracy_at_the_ceiling():
  random = np.random.default_rng(4)
  held = []
  for _ in range(500):
    truth = random.uniform(0.98, 1)
    found = correct_measurement(random.random(100) < truth, np.zeros(100, int), "accuracy")
    assert found.ci_low < found.ci_high
    held.append(found.ci_low <= truth <= found.ci_high)
  assert 0.92 < np.mean(held) < 0.98


def test_intervals_of_average_precision_contain_the_true_value():
  random = np.random.default_rng(5)

  def sample(n):
    hot = random.random((n, 4)) < 0.2
    return random.normal(size=hot.shape) + 1.2 * hot, hot

  from genbench_jax.metrics.accuracy import recognition_score

  truth = recognition_score(*sample(40_000), "map_11_point")
  ends = [recognition_interval(*sample(200), "map_11_point", seed) for seed in range(40)]
  assert np.mean([low <= truth <= high for low, high in ends]) > 0.8
  assert 0.05 < np.mean([high - low for low, high in ends]) < 0.25
