"""Seeds give the numbers that they gave before: rows of different versions are compared, and runs are resumed.

The numbers were computed by this package; that they are right is shown elsewhere. A change here changes published
rows, and belongs in the changelog.
"""

import numpy as np
import pytest

from genbench_jax.metrics import (
  authenticity,
  clipped,
  discriminative_span,
  guides,
  kernels,
  mind,
  within_class,
)
from genbench_jax.metrics.bootstrap import resample_weights, resampled_means
from genbench_jax.metrics.cler_spread import chosen_tests, external_variances
from genbench_jax.metrics.fd_infinity import _evenly, measure_fd_infinity
from genbench_jax.metrics.half_samples import common_variance, halves_of, variance_of
from genbench_jax.metrics.image_values import paired_values
from genbench_jax.metrics.manifold import measure_manifold
from genbench_jax.metrics.manifold_spread import spread_of
from genbench_jax.metrics.registry import Sets
from genbench_jax.metrics.set_spread import set_measurements
from genbench_jax.metrics.within_class import intra_class_diversity

RANDOM = np.random.default_rng(0)
CLASSES, WIDTH = 3, 4
LABELS, TEST_LABELS = np.arange(24) % CLASSES, np.arange(33) % CLASSES
CENTERS = RANDOM.normal(size=(CLASSES, WIDTH))


def images(labels):
  rows = CENTERS[labels] + 1.5 * RANDOM.normal(size=(len(labels), WIDTH))
  return rows.astype(np.float32)


X, Y, REAL = images(LABELS), images(TEST_LABELS), images(TEST_LABELS)


def sets(**more):
  return Sets(
    X, Y, LABELS, TEST_LABELS, CENTERS, CLASSES, guides=REAL[:12], guide_labels=TEST_LABELS[:12], training=REAL,
    training_labels=TEST_LABELS, seed=5, resamples=100, **more,
  )  # fmt: skip


def numbers(found):
  ends = (found.value, found.ci_low, found.ci_high, found.generator_low, found.generator_high)
  return [end for end in ends if end is not None]


def measured(module, *names):
  return [n for result in module.measure(sets(), names) for n in numbers(result.value)]


def of_halves():
  halves = halves_of(np.repeat([0, 1, 2], [40, 5, 1]), 7, 6)
  values = np.stack([halves.rows(r)[:9] for r in range(6)]).astype(float)
  weights = np.arange(1, 10) / 45
  return [
    halves.kept.shape[2], *np.flatnonzero(halves.rows(5)), halves.factor,
    variance_of(values, halves).sum(), common_variance(values, weights, halves),
  ]  # fmt: skip


def of_votes(metric):
  similarity = Y @ X.T
  rows = np.argsort(-similarity, axis=1, kind="stable")[:, :9]
  voters = np.take_along_axis(similarity, rows, axis=1), rows
  found = external_variances(X, LABELS, CENTERS, Y, TEST_LABELS, metric, voters, 3, 5)
  return list(found.values())


def of_spread():
  found = spread_of(Y, X, TEST_LABELS, LABELS, 3, 5)
  return [*found.test.values(), *found.both.values()]


def of_parts(**settings):
  statistic = lambda a, b: lambda i, j: np.array([a[i].std(), np.abs(b[j]).mean() - a[i].mean()])  # noqa: E731
  values, strata = np.array([0.5, 0.25]), (LABELS, TEST_LABELS)
  found = set_measurements(values, statistic, X, Y, strata, 5, **settings)
  return [n for each in found for n in numbers(each)]


def of_manifold():
  found = measure_manifold(Y, X, 3, (TEST_LABELS, LABELS), seed=5)
  return [n for score in found.scores.values() for n in numbers(score)]


GIVEN = {
  "resample_weights": lambda: resample_weights(6, 2, 3).ravel().tolist(),
  "resampled_means": lambda: resampled_means(X[:, 0].astype(float), 3, 4),
  "chosen_tests": lambda: chosen_tests(2003, 1)[[0, 1, 600, 1200, 1999]],
  "halves": of_halves,
  "votes": lambda: of_votes("accuracy"),
  "votes of classes": lambda: of_votes("mean_per_class"),
  "paired values": lambda: paired_values(Y[:, :3], np.eye(3, dtype=bool)[TEST_LABELS], "map_11_point")[:4],
  "manifold spread": of_spread,
  "manifold": of_manifold,
  "parts": of_parts,
  "parts at once": lambda: of_parts(joint=True, bounded=True),
  "parts of equal sizes": lambda: of_parts(equal_sizes=True, proportions=True),
  "evenly": lambda: _evenly(LABELS, np.random.default_rng(3)),
  "fd_infinity": lambda: numbers(measure_fd_infinity(X, Y, (LABELS, TEST_LABELS), 5, 100)),
  "mind": lambda: measured(mind, "mind"),
  "authenticity": lambda: measured(authenticity, "auth_pct", "near_copies"),
  "clipped": lambda: measured(clipped, *clipped.NAMES),
  "guides": lambda: measured(guides, "class_chamfer", "guide_ridge"),
  "span": lambda: measured(discriminative_span, "discriminative_span"),
  "kernels": lambda: measured(kernels, "kid", "cmmd"),
  "diversity": lambda: measured(within_class, "intra_class_diversity"),
  "diversities": lambda: list(intra_class_diversity(X, LABELS).values()),
}  # fmt: skip
EXPECTED: dict[str, list[float]] = {
  "resample_weights": [0, 4, 1, 0, 0, 1, 1, 0, 0, 2, 2, 1],
  "resampled_means": [-0.67574, -0.752397, -0.226449],
  "chosen_tests": [0, 1, 602, 1203, 2002],
  "halves": [
    16,
    1,
    4,
    9,
    10,
    11,
    12,
    13,
    20,
    22,
    24,
    25,
    26,
    27,
    28,
    31,
    34,
    35,
    36,
    37,
    38,
    41,
    42,
    43,
    45,
    0.940299,
    2.19403,
    0.0354143,
  ],
  "votes": [0.000130008, 0, 0, 0],
  "votes of classes": [0.000130008, 0, 0, 0],
  "paired values": [0.8973, 0.329019, 0.758684, 0.356294],
  "manifold spread": [0.809814, 0.597841, 0.622636, 0.567725, 2.72257, 2.08882, 2.30113, 2.19708],
  "manifold": [
    0.916667,
    0.629828,
    0.986133,
    0.592268,
    0.988138,
    0.848485,
    0.669079,
    0.939432,
    0.607721,
    0.952925,
    1.16667,
    0.798022,
    1.53531,
    0.69948,
    1.63385,
    0.848485,
    0.6692,
    0.939401,
    0.600816,
    0.954203,
  ],
  "parts": [0.5, 0.5, 0.5, 0.28425, 0.71575, 0.25, 0.0603223, 0.439678, 0, 0.607945],
  "parts at once": [0.5, 0.5, 0.5, 0.28425, 0.71575, 0.25, 0.0603223, 0.439678, 0, 0.629804],
  "parts of equal sizes": [
    0.5,
    0.401924,
    0.598076,
    0.301905,
    0.698095,
    0.25,
    0.103906,
    0.489334,
    0.0555509,
    0.653866,
  ],
  "evenly": [14, 18, 13, 17, 21, 10, 23, 6, 1, 8, 3, 16, 5, 12, 19, 20, 15, 4, 2, 9, 22, 11, 0, 7],
  "fd_infinity": [-1.56813, -3.96838, 0.894583, -4.15992, 1.30024],
  "mind": [0.348882, 0.123858, 0.573906, 0.00202143, 0.695743],
  "authenticity": [
    62.5,
    45.5096,
    76.8836,
    41.6366,
    79.5655,
    0.0416667,
    0.0186114,
    0.0906444,
    0.00723262,
    0.206019,
  ],
  "clipped": [1, 0.922006, 1, 0.900014, 1, 1, 0.861144, 1, 0.861144, 1],
  "guides": [
    0.674248,
    0.551131,
    0.797364,
    0.551131,
    0.797364,
    0.583333,
    0.343086,
    0.7896,
    0.329012,
    0.799889,
  ],
  "span": [0.150476, 0.0408203, 0.260132, 0, 0.330285],
  "kernels": [
    -0.19451,
    -0.31337,
    -0.0904494,
    -0.371273,
    0.0196381,
    0.185982,
    0,
    0.624161,
    0,
    0.941604,
  ],
  "diversity": [0.714022, 0.598214, 0.842791, 0.598214, 0.842791],
  "diversities": [1.04172, 0.432332, 0.668009],
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_seed_gives_the_number_that_it_gave(name):
  found = np.asarray(GIVEN[name](), float)
  np.testing.assert_allclose(found, EXPECTED[name], rtol=2e-4, atol=1e-6)
