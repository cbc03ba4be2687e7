"""Kernel distances against explicit kernel matrices."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import kernels
from genbench_jax.metrics.kernels import (
  cmmd,
  kernel_distance,
  measure_cmmd,
  measure_kernel_distance,
)
from genbench_jax.metrics.registry import Sets, measured


def polynomial(a, b):
  return (a @ b.T / a.shape[1] + 1) ** 3


def gaussian(a, b):
  a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
  return np.exp(-((a[:, None] - b) ** 2).sum(-1) / 200)


def by_hand(x, y, kernel, unbiased):
  x, y = x.astype(float), y.astype(float)
  within = []
  for rows in (x, y):
    matrix = kernel(rows, rows)
    off = matrix.sum() - np.trace(matrix)
    within.append(off / (len(rows) * (len(rows) - 1)) if unbiased else matrix.mean())
  return sum(within) - 2 * kernel(x, y).mean()


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(300, 16)) + 0.3
  y = rng.normal(size=(230, 16)) * 1.2
  return x.astype(np.float32), y.astype(np.float32)


def test_agrees_with_the_matrices(sets):
  expected = by_hand(*sets, polynomial, unbiased=True)
  assert kernel_distance(*sets) == pytest.approx(expected, rel=1e-5)
  expected = by_hand(*sets, gaussian, unbiased=True)
  assert kernel_distance(*sets, kernel="gaussian") == pytest.approx(expected, rel=1e-5)
  assert cmmd(*sets) == pytest.approx(1000 * by_hand(*sets, gaussian, unbiased=False), rel=1e-5)


def test_unit_features_whose_kernel_values_are_all_near_one(sets):
  """As with CLIP: a distance of 1e-6 between kernel values of 1.03."""
  x, y = ((rows + 2) / np.linalg.norm(rows + 2, axis=1, keepdims=True) for rows in sets)
  expected = by_hand(x, y, polynomial, unbiased=True)
  assert abs(expected) < 1e-2
  assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_devices_blocks_and_order_do_not_matter(sets, one_device_mesh, monkeypatch):
  x, y = sets
  for distance in (kernel_distance, cmmd):
    whole = distance(x, y)
    assert distance(y, x) == pytest.approx(whole, rel=1e-5)
    assert distance(x[::-1], y, mesh=one_device_mesh) == pytest.approx(whole, rel=1e-5)
  whole = kernel_distance(x, y)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 100)
  assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-5)


def test_known_values(sets):
  x, _ = sets
  assert cmmd(x, x) == pytest.approx(0, abs=1e-5)
  one_way = np.tile(np.eye(16)[:1], (5, 1))
  assert cmmd(one_way, -one_way) == pytest.approx(2000 * (1 - np.exp(-4 / 200)), rel=1e-5)
  halves = kernel_distance(x[:150], x[150:], kernel="gaussian")
  assert abs(halves) < abs(kernel_distance(*sets, kernel="gaussian")) / 10


def drawn_again(matrices, unbiased, sides, repeats=500):
  """Return distances of resampled images, without pairs of an image with itself if `unbiased`."""
  xx, yy, xy = (matrix.copy() for matrix in matrices)
  rng = np.random.default_rng(0)
  samples = []
  for _ in range(repeats):
    weights = [
      np.bincount(rng.integers(0, n, n), minlength=n) if side in sides else np.ones(n)
      for side, n in zip("xy", xy.shape, strict=True)
    ]
    value = -2 * weights[0] @ xy @ weights[1] / xy.size
    for own, matrix in zip(weights, (xx, yy), strict=True):
      pairs = len(own) ** 2 - (own**2).sum() if unbiased else len(own) ** 2
      value += (own @ matrix @ own - unbiased * own**2 @ np.diag(matrix)) / pairs
    samples.append(value)
  return np.ptp(np.quantile(samples, [0.025, 0.975]))


def matrices_of(kernel, x, y):
  return kernel(x, x), kernel(y, y), kernel(x, y)


@pytest.mark.parametrize("kernel", [polynomial, gaussian])
def test_the_intervals_agree_with_a_full_bootstrap(sets, kernel):
  x, y = (rows[:, :4].astype(float) for rows in sets)
  found = measure_kernel_distance(x, y, kernel=kernel.__name__)
  matrices = matrices_of(kernel, x, y)
  of_test, of_both = drawn_again(matrices, True, "y"), drawn_again(matrices, True, "xy")
  assert found.ci_high - found.ci_low == pytest.approx(of_test, rel=0.15)
  assert found.generator_high - found.generator_low == pytest.approx(of_both, rel=0.15)
  assert found.generator_low < found.ci_low < found.value < found.ci_high < found.generator_high


def test_undefined_values_are_usage_errors(sets):
  x, y = sets
  with pytest.raises(UsageError, match="at least 2 images"):
    kernel_distance(x, y[:1])
  with pytest.raises(UsageError, match="Did you mean 'gaussian'"):
    kernel_distance(x, y, kernel="gauss")
  with pytest.raises(UsageError, match="NaN"):
    cmmd(x * np.nan, y)


def test_the_intervals_of_cmmd_agree_with_a_full_bootstrap(sets):
  """To first order, the pair of an image with itself contributes."""
  x, y = (rows[:, :4].astype(float) for rows in sets)
  found = measure_cmmd(x, y)
  matrices = matrices_of(gaussian, x, y)
  of_test, of_both = drawn_again(matrices, False, "y"), drawn_again(matrices, False, "xy")
  assert found.ci_high - found.ci_low == pytest.approx(1000 * of_test, rel=0.2)
  assert found.generator_high - found.generator_low == pytest.approx(1000 * of_both, rel=0.2)
  assert 0 <= found.ci_low < found.value < found.ci_high


def stratified_by_hand(x, y, labels, kernel):
  """sum_c w_c^2 mean_{i != j in c} + sum_{c != c'} w_c w_c' mean, set by set, written out."""
  total = -2 * kernel(x, y).mean()
  for rows, own in zip((x, y), labels, strict=True):
    matrix, classes = kernel(rows, rows), np.unique(own)
    for a in classes:
      for b in classes:
        block = matrix[np.ix_(own == a, own == b)]
        if a == b:
          block = block[~np.eye(len(block), dtype=bool)]
        total += block.mean() * np.mean(own == a) * np.mean(own == b)
  return total


@pytest.mark.parametrize("kernel", [polynomial, gaussian])
def test_stratified_sets_weight_pairs_within_a_class_correctly(sets, kernel, monkeypatch):
  x, y = (rows.astype(float) for rows in sets)
  labels = np.arange(300) % 10, np.arange(230) % 10
  expected = stratified_by_hand(x, y, labels, kernel)
  found = kernel_distance(x, y, kernel=kernel.__name__, labels=labels)
  assert found == pytest.approx(expected, rel=1e-5)
  monkeypatch.setattr("genbench_jax.metrics.kernels.HOST_ROWS", 5)
  on_device = kernel_distance(x, y, kernel=kernel.__name__, labels=labels)
  assert on_device == pytest.approx(expected, rel=1e-5)


def test_images_of_the_test_distribution_have_zero_distance_at_any_budget():
  """The unstratified estimator is -3.9e-3 at one image per class, which is rejected."""
  random = np.random.default_rng(0)
  centers = random.normal(size=(10, 32))

  def draw(labels):
    rows = centers[labels] + 0.5 * random.normal(size=(len(labels), 32))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  tests = np.repeat(np.arange(10), 20)
  for shots in (2, 8):
    labels = np.tile(np.arange(10), shots)
    values = [
      kernel_distance(draw(labels), draw(tests), labels=(labels, tests), standardize=True)
      for _ in range(30)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
  with pytest.raises(UsageError, match="2 images of most classes"):
    kernel_distance(draw(np.arange(10)), draw(tests), labels=(np.arange(10), tests))


def test_the_standardized_distance_detects_collapse_blur_and_copies():
  """All sets have about equal means, so only the square and the cube can detect the flaws."""
  random = np.random.default_rng(0)
  center = 2 * random.normal(size=64)

  def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  def real(n):
    return center + random.normal(size=(n, 64))

  modes = random.normal(size=(5, 64))
  collapsed = modes[np.arange(400) % 5] + 0.3 * random.normal(size=(400, 64))
  copies = real(50)[np.arange(400) % 50]
  spoiled = {
    "collapsed": collapsed - collapsed.mean(0) + center,
    "blurred": 1.118 * center + 0.56 * random.normal(size=(400, 64)),
    "copies": copies - copies.mean(0) + center,
  }
  tests = unit(real(500))
  null = [kernel_distance(unit(real(400)), tests, standardize=True) for _ in range(8)]
  for name, rows in spoiled.items():
    distance = kernel_distance(unit(rows), tests, standardize=True)
    assert (distance - np.mean(null)) / np.std(null) > 8, name


@pytest.mark.parametrize("offset", [0, 10, 1000])
def test_features_far_from_zero_keep_their_precision(offset):
  rng = np.random.default_rng(0)
  x = (offset + rng.normal(size=(200, 32))).astype(np.float32)
  y = (offset + 0.1 + 1.1 * rng.normal(size=(150, 32))).astype(np.float32)
  expected = by_hand(x, y, polynomial, unbiased=True)
  assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e13, 1e25])
def test_features_of_any_scale_give_finite_values(sets, scale):
  x, y = (rows * np.float32(scale) for rows in sets)
  raw = kernel_distance(x, y)
  assert np.isfinite(raw)
  if scale > 1:
    assert raw == pytest.approx(by_hand(x, y, polynomial, True), rel=1e-4)
  standard = kernel_distance(*sets, standardize=True)
  assert kernel_distance(x, y, standardize=True) == pytest.approx(standard, rel=1e-4)


def test_two_images_per_set_are_enough(sets):
  x, y = (rows[:2] for rows in sets)
  assert kernel_distance(x, y) == pytest.approx(by_hand(x, y, polynomial, True), rel=1e-4)
  assert cmmd(x, y) == pytest.approx(1000 * by_hand(x, y, gaussian, False), rel=1e-4)


@pytest.mark.parametrize(
  ("counts", "expected"),
  [
    ([4], 64 / 3 * (4 / 3 - 1) / 16),
    ([2, 2], (16 - 8 - 2 * 8) / 16),
    ([3, 1], (16 - 9 + 27 / 2 * (2 / 2 - 1)) / 16),  # a single image has no pairs
  ],
)
def test_the_first_order_excess_of_strata(counts, expected):
  assert kernels._excess(np.repeat(np.arange(len(counts)), counts)) == pytest.approx(expected)


@pytest.mark.parametrize(
  ("whole", "excess", "share"),
  [(4.0, 1.0, 0.75), (4.0, 3.0, 0.5), (4.0, -4.0, 2.0), (0.0, 1.0, 1.0)],
)
def test_at_least_half_of_the_variance_is_left(whole, excess, share):
  assert kernels._root_share(whole, excess) == pytest.approx(share**0.5)


def test_means_within_strata_are_subtracted_without_bias():
  values = np.array([[1.0, 5], [3, 9], [7, 7]])
  found = kernels._less_means(values, np.array([0, 0, 1]))
  np.testing.assert_allclose(found, np.sqrt(2) * np.array([[-1, -2], [1, 2], [0, 0]]))


def test_whole_classes_stand_for_a_large_set(monkeypatch):
  monkeypatch.setattr(kernels, "SPREAD_ROWS", 3)
  rows = np.arange(5.0)[:, None]
  some, strata = kernels._some(rows, np.array([2, 0, 2, 1, 0]))
  assert some.ravel().tolist() == [1, 4, 3] and strata.tolist() == [0, 0, 1]


def sides_of(x, y, labels, mesh, standardize=False):
  return kernels._sides(x, y, "polynomial", labels, standardize, mesh)


@pytest.mark.parametrize("labels", [None, (np.arange(12) % 3, np.arange(9) % 3)])
def test_deviations_are_shrunk_by_the_second_order_terms(labels, one_device_mesh):
  """By hand: the mean squares of k less its means, and twice the variance that they cause."""
  random = np.random.default_rng(0)
  x, y = random.normal(size=(12, 4)), random.normal(size=(9, 4))
  sides = sides_of(x, y, labels, one_device_mesh)
  of_x, of_y = random.normal(size=12), random.normal(size=9)
  strata = labels or (np.zeros(12, int), np.zeros(9, int))
  squares = []
  for (a, own), (b, others) in (
    ((x, strata[0]),) * 2, ((y, strata[1]),) * 2, ((x, strata[0]), (y, strata[1]))
  ):  # fmt: skip
    k = sides.frame.host_values(a, b)
    for axis, classes in ((0, own), (1, others)):
      k = np.moveaxis(k, axis, 0).copy()
      for c in np.unique(classes):
        rows = classes == c
        k[rows] = (k[rows] - k[rows].mean(0)) * np.sqrt(rows.sum() / (rows.sum() - 1))
      k = np.moveaxis(k, 0, axis)
    if a is b:
      np.fill_diagonal(k, 0)
    squares.append(np.mean(k**2))
  np.testing.assert_allclose(kernels._spreads(sides), squares)
  xx, yy, xy = squares
  test, external = np.sum(of_y**2) / 81, np.sum(of_x**2) / 144
  alone = 2 * yy * kernels._excess(strata[1]) / 81
  both = alone + 2 * xx * kernels._excess(strata[0]) / 144 + 4 * xy / (12 * 9)
  expected = [
    np.sqrt(max(whole - excess, whole / 2) / whole)
    for whole, excess in ((test, alone), (test + external, both))
  ]
  np.testing.assert_allclose(kernels._shrink(sides, of_x, of_y), expected)


@pytest.mark.parametrize("host_rows", [512, 1])
def test_an_image_alone_in_its_class_takes_the_mean_of_the_others(host_rows, mesh, monkeypatch):
  monkeypatch.setattr(kernels, "HOST_ROWS", host_rows)
  random = np.random.default_rng(0)
  x = random.normal(size=(6, 3))
  strata = np.array([0, 1, 0, 1, 1, 2])
  sides = sides_of(x, random.normal(size=(5, 3)), None, mesh)
  k = sides.frame.host_values(x, x)
  np.fill_diagonal(k, 0)
  pairs = np.array([
    k[i, strata == strata[i]].sum() / max(np.sum(strata == strata[i]) - 1, 1) for i in range(6)
  ])  # fmt: skip
  pairs[5] = (pairs[strata == 0].mean() + pairs[strata == 1].mean()) / 2
  expected = (k.sum(axis=1) + pairs) / 6
  np.testing.assert_allclose(kernels._within(x, strata, sides.frame, mesh), expected, atol=1e-4)
  one = kernels._within(x, np.zeros(6, int), sides.frame, mesh)
  np.testing.assert_allclose(one, k.sum(axis=1) / 5, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_two_images_on_either_side_are_enough(size):
  random = np.random.default_rng(0)
  few, many = random.normal(size=(size, 3)), random.normal(size=(6, 3))
  for x, y in ((few, many), (many, few)):
    labels = np.zeros(len(x), int), np.zeros(len(y), int)
    sets = Sets(x, y, *labels, num_classes=1, resamples=4)
    names = [result.name for _, result in measured(sets, ("kid", "cmmd"))]
    assert names == (["kid", "cmmd"] if size == 2 else [])


def test_one_image_a_class_has_cmmd_only_and_only_wanted_distances_are_measured():
  random = np.random.default_rng(0)
  x, y = random.normal(size=(4, 3)), random.normal(size=(8, 3))
  sets = Sets(x, y, np.arange(4), np.arange(8) % 4, num_classes=4, resamples=4)
  assert [result.name for _, result in measured(sets, ("kid", "cmmd"))] == ["cmmd"]
  several = Sets(x, y, np.arange(4) % 2, np.arange(8) % 4, num_classes=4, resamples=4)
  assert [result.name for _, result in measured(several, ("kid",))] == ["kid"]


def test_labels_that_do_not_fit_are_rejected(sets):
  x, y = sets
  for labels in ((np.zeros(3, int), None), (None, np.zeros(3, int))):
    with pytest.raises(UsageError, match="every image needs its label: got 3 for"):
      kernel_distance(x, y, labels=labels)
