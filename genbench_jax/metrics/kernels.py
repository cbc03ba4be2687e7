"""Kernel distances (maximum mean discrepancy, MMD) between two sets of features: KID and CMMD.

No kernel matrix is stored: `kernel_sums` accumulates, for each image, the sum of its kernel values
with the other set, tile by tile. External images are drawn class by class, so pairs within a class
are rarer than among independent images; the estimators here reweight them.
"""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any, get_args

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement, two_sided_interval
from genbench_jax.metrics.class_distances import distances_by_class
from genbench_jax.metrics.inputs import feature_rows, host_unit_rows, or_default
from genbench_jax.metrics.kernel_sums import Frame, Kernel, frame_of, kernel_sums
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import are_paired, centered_within, sampled_strata, strata_of

KERNELS = get_args(Kernel)
CMMD_SCALE = 1000.0  # the published unit
# Classes up to this size are summed on the host: there are many of them, and each is small.
HOST_ROWS = 512
# Images per set from which the variance of the kernel values is estimated.
SPREAD_ROWS = 512
Labels = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class _Sides:
  """Two checked sets, their strata, and the frame that evaluates the kernel."""

  x: Float[np.ndarray, "n d"]
  y: Float[np.ndarray, "m d"]
  strata_x: Int[np.ndarray, "n"]
  strata_y: Int[np.ndarray, "m"]
  frame: Frame
  mesh: Mesh


def kernel_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  kernel: Kernel = "polynomial",
  mesh: Mesh | None = None,
  labels: Labels | None = None,
  standardize: bool = False,
) -> float:
  """Compute the unbiased squared MMD: about 0, of either sign, for equal distributions.

  With labels the estimator is stratified. With w_c the share of class c among n images, the mean of
  k within a set is sum_c w_c^2 mean_{i != j in c} k + sum_{c != c'} w_c w_c' mean k. The plain mean
  over i != j has too few pairs within a class; it is biased downward by the spread between classes
  over n.

  Args:
    x: features of the external images; at least two.
    y: features of the images to compare with; at least two.
    kernel: `polynomial`, (a . b / d + 1)^3 on the features as given: KID, over all pairs instead of
      random subsets (Binkowski et al. 2018, eq. 4). `gaussian`, exp(-|a - b|^2 / 200) on unit-norm
      features.
    mesh: devices to compute on; None for all.
    labels: classes of x and of y, as indices or multi-hot. x is treated as drawn class by class; y
      only if its classes are more even than chance. Images with several labels are treated as
      independent.
    standardize: for `polynomial`: subtract y's mean from the features and divide by the root mean
      square of y's deviations, a single number, so that |z|^2 / d is about 1. At this scale the
      square and the cube matter. On unit-norm features (|a|^2 / d = 1 / d) the kernel sees only the
      means.

  Returns:
    The squared MMD, in units of the kernel.

  Raises:
    UsageError: the kernel is unknown, shapes or values do not fit, a set has fewer than two images,
      or too few classes have two images.
  """
  sides = _sides(x, y, kernel, labels, standardize, mesh)
  return sides.frame.factor * _unbiased(sides)[0]


def cmmd(x: Float[Any, "n d"], y: Float[Any, "m d"], mesh: Mesh | None = None) -> float:
  """Compute CMMD: 1,000 times the squared MMD of unit-norm CLIP features, Gaussian kernel.

  As published (Jayasumana et al. 2024, section 4), the mean runs over all pairs, including each
  image with itself. The value is never negative, 0 for equal sets, and biased upward for few
  images. The bandwidth is so wide that the squared MMD is, within 1 %, the squared distance of the
  means over 100. Arguments and errors: see `kernel_distance`.

  Args:
    x, y: features of both sets.
    mesh: devices; None for all.
  """
  return CMMD_SCALE * _biased(_sides(x, y, "gaussian", None, False, mesh))[0]


def measure_kernel_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  kernel: Kernel = "polynomial",
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
  labels: Labels | None = None,
  standardize: bool = False,
) -> Measurement:
  """Measure `kernel_distance` with its intervals, by a first-order bootstrap within strata.

  For equal distributions the first-order term vanishes and the second-order term remains. The
  first-order estimate contains twice that term's variance, so it is subtracted once (`_shrink`).
  Arguments and errors: see `kernel_distance`.

  Args:
    x, y: features of the external and of the test images.
    kernel: `polynomial` or `gaussian`.
    seed: of the resamples.
    resamples: number of resamples.
    mesh: devices; None for all.
    labels: labels of both sets; None if unknown.
    standardize: see `kernel_distance`.
  """
  sides = _sides(x, y, kernel, labels, standardize, mesh)
  value, of_x, of_y = _unbiased(sides)
  shrink = _shrink(sides, of_x, of_y)
  factor = sides.frame.factor
  return two_sided_interval(
    factor * value, factor * of_x, factor * of_y, resamples, seed, shrink=shrink
  )


def measure_cmmd(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
  labels: Labels | None = None,
) -> Measurement:
  """Measure `cmmd` with its intervals, by a first-order bootstrap within strata.

  Args:
    x, y, mesh: see `kernel_distance`.
    seed, resamples: of the bootstrap.
    labels: classes of x and of y. They affect the intervals only.
  """
  sides = _sides(x, y, "gaussian", None, False, mesh)
  value, of_x, of_y = _biased(sides)
  strata_x, strata_y = _strata(sides.x, sides.y, labels)
  return two_sided_interval(
    CMMD_SCALE * value,
    CMMD_SCALE * centered_within(of_x, strata_x) if are_paired(strata_x) else None,
    CMMD_SCALE * centered_within(of_y, strata_y),
    resamples,
    seed,
    lowest=0.0,
  )


def _sides(
  x: Any, y: Any, kernel: str, labels: Labels | None, standardize: bool, mesh: Mesh | None
) -> _Sides:
  if kernel not in KERNELS:
    raise unknown_name("kernel", kernel, KERNELS)
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  if min(len(x), len(y)) < 2:
    raise UsageError(f"a kernel distance needs at least 2 images, got {len(x)} and {len(y)}")
  strata = _strata(x, y, labels)
  if not all(are_paired(side) for side in strata):
    raise UsageError(
      "a kernel distance of sets drawn class by class needs 2 images of most classes: a class with one image has no "
      "pairs"
    )
  frame = frame_of(x, y, kernel, standardize)  # type: ignore[arg-type]
  return _Sides(x, y, *strata, frame, or_default(mesh))


def _strata(
  x: np.ndarray, y: np.ndarray, labels: Labels | None
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m"]]:
  of_x, of_y = labels or (None, None)
  for name, given, rows in (("x", of_x, x), ("y", of_y, y)):
    if given is not None and len(given) != len(rows):
      raise UsageError(f"every image needs its label: got {len(given)} for {len(rows)} of {name}")
  return strata_of(of_x, len(x)), sampled_strata(of_y, len(y))


def _biased(sides: _Sides) -> tuple[float, Float[np.ndarray, "n"], Float[np.ndarray, "m"]]:
  """Return the MMD over all pairs (never negative) and the influence of each image."""
  x, y = sides.x, sides.y
  within_x, within_y = (
    kernel_sums(rows, rows, sides.frame, False, sides.mesh).compute(len(rows)) for rows in (x, y)
  )
  to_y, to_x = _across(sides)
  value = within_x.mean() + within_y.mean() - 2 * to_y.mean()
  return max(float(value), 0.0), 2 * (within_x - to_y), 2 * (within_y - to_x)


def _unbiased(sides: _Sides) -> tuple[float, Float[np.ndarray, "n"], Float[np.ndarray, "m"]]:
  """Return the unbiased MMD, in the frame's unit, and the influence of each image.

  The influence is 2 (mean of k with the images of its own set - mean of k with the images of the
  other set).
  """
  within_x = _within(sides.x, sides.strata_x, sides.frame, sides.mesh)
  within_y = _within(sides.y, sides.strata_y, sides.frame, sides.mesh)
  to_y, to_x = _across(sides)
  value = float(within_x.mean() + within_y.mean() - 2 * to_y.mean())
  of_x = centered_within(2 * (within_x - to_y), sides.strata_x)
  of_y = centered_within(2 * (within_y - to_x), sides.strata_y)
  return value, of_x, of_y


def _across(sides: _Sides) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "m"]]:
  """Return the mean of k of each image with the other set, for both sets."""
  to_y = kernel_sums(sides.x, sides.y, sides.frame, False, sides.mesh).compute(len(sides.y))
  to_x = kernel_sums(sides.y, sides.x, sides.frame, False, sides.mesh).compute(len(sides.x))
  return to_y, to_x


def _within(
  rows: Float[np.ndarray, "n d"], strata: Int[np.ndarray, "n"], frame: Frame, mesh: Mesh
) -> Float[np.ndarray, "n"]:
  """Return, for each image, the mean of k with the other images of its set.

  Pairs within class c are weighted n_c / (n_c - 1), which makes up for the missing pair of an image
  with itself. An image that is alone in its class has no such pair; the mean over the other classes
  replaces it.
  """
  sums = kernel_sums(rows, rows, frame, True, mesh).sums
  counts = np.bincount(strata)
  own = counts[strata]
  if len(counts) == 1:
    return sums / (len(rows) - 1)
  same = _sums_by_class(rows, strata, frame, mesh)
  # A class of size n_c counts as n_c pair means: the n_c - 1 pairs in `sums`, and one more.
  pair_means = same / np.maximum(own - 1, 1)
  missing = own == 1
  if missing.any():
    by_class = np.bincount(strata, pair_means) / np.maximum(counts, 1)
    pair_means[missing] = by_class[counts > 1].mean()
  return (sums + pair_means) / len(rows)


def _sums_by_class(
  rows: Float[np.ndarray, "n d"], strata: Int[np.ndarray, "n"], frame: Frame, mesh: Mesh
) -> Float[np.ndarray, "n"]:
  """Return, for each row, the sum of k over the other rows of its stratum."""
  sums = np.zeros(len(rows))
  order = np.argsort(strata, kind="stable")
  for members in np.split(order, np.cumsum(np.bincount(strata))[:-1]):
    own = rows[members]
    if len(members) <= HOST_ROWS:
      values = frame.host_values(own, own)
      sums[members] = values.sum(axis=1) - np.diag(values)
    else:
      sums[members] = kernel_sums(own, own, frame, True, mesh).sums
  return sums


def kernel_distances_by_class(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  labels: Labels,
  kernel: Kernel = "polynomial",
  standardize: bool = False,
  unbiased: bool = True,
  mesh: Mesh | None = None,
) -> dict[int, float]:
  """Return the squared MMD between the images of each class with enough of them on both sides.

  The frame is that of the whole sets, so that classes are measured on one scale. Below a hundred
  images the values vary widely; those that are not unbiased are too large, too.

  Args:
    x, y, kernel, standardize, mesh: see `kernel_distance`.
    labels: classes of x and of y.
    unbiased: whether pairs of an image with itself are left out, as in KID and not in CMMD.

  Raises:
    UsageError: as `kernel_distance`.
  """
  sides = _sides(x, y, kernel, None, standardize, mesh)

  def mean(rows: Float[np.ndarray, "r d"], columns: Float[np.ndarray, "c d"], same: bool) -> float:
    pairs = len(rows) * (len(columns) - (same and unbiased))
    if len(rows) * len(columns) > HOST_ROWS**2:
      sums = kernel_sums(rows, columns, sides.frame, same and unbiased, sides.mesh).sums
      return float(sums.sum()) / pairs
    values = sides.frame.host_values(rows, columns)
    return float(values.sum() - (np.trace(values) if same and unbiased else 0.0)) / pairs

  def distance(own: Float[np.ndarray, "r d"], others: Float[np.ndarray, "c d"]) -> float:
    value = mean(own, own, True) + mean(others, others, True) - 2 * mean(own, others, False)
    return sides.frame.factor * (value if unbiased else max(value, 0.0))

  return distances_by_class(sides.x, sides.y, *labels, distance)


def _shrink(
  sides: _Sides, of_x: Float[np.ndarray, "n"], of_y: Float[np.ndarray, "m"]
) -> tuple[float, float]:
  """Return the factors that shrink first-order deviations: of y alone, and of both sets.

  Let s_xx, s_yy and s_xy be the mean squares of k after subtracting row and column means. The
  second-order term has variance 2 s_xx / n^2 + 2 s_yy / m^2 + 4 s_xy / (n m). The first-order
  estimate contains twice that, as noise of its means over finitely many images. If the images of x
  are fixed, means over them carry no noise.
  """
  n, m = len(sides.x), len(sides.y)
  xx, yy, xy = _spreads(sides)
  test, external = np.sum(of_y**2) / m**2, np.sum(of_x**2) / n**2
  of_y_alone = 2 * yy * _excess(sides.strata_y) / m**2
  of_both = of_y_alone + 2 * xx * _excess(sides.strata_x) / n**2 + 4 * xy / (n * m)
  return _root_share(test, of_y_alone), _root_share(test + external, of_both)


def _excess(strata: Int[np.ndarray, "n"]) -> float:
  """Return by how much the first-order estimate exceeds the second-order variance.

  Pairs of different classes are counted once too often. In a class with two images, both share the
  only value between
  them, so their difference does not show it: that is once too few.
  """
  counts = np.bincount(strata).astype(float)
  counts = counts[counts > 1]
  apart = len(strata) ** 2 - np.sum(counts**2)
  together = counts**3 / (counts - 1) * (2 * (counts - 2) / (counts - 1) - 1)
  return float((apart + together.sum()) / len(strata) ** 2)


def _root_share(whole: float, excess: float) -> float:
  """Return sqrt((whole - excess) / whole), but at least sqrt(1/2): all of it second-order."""
  return float(np.sqrt(max(whole - excess, whole / 2) / whole)) if whole > 0 else 1.0


def _spreads(sides: _Sides) -> tuple[float, float, float]:
  """Return the mean squares of k within x, within y and across, less stratum means."""
  x, strata_x = _some(sides.x, sides.strata_x)
  y, strata_y = _some(sides.y, sides.strata_y)
  pairs = ((x, strata_x, x, strata_x), (y, strata_y, y, strata_y), (x, strata_x, y, strata_y))
  found = []
  for rows, own, columns, others in pairs:
    values = sides.frame.host_values(rows, columns)
    residual = _less_means(_less_means(values, own).T, others).T
    if rows is columns:
      # k(a, a) is not a pair of distinct images.
      np.fill_diagonal(residual, 0)
    found.append(float(np.mean(residual**2)))
  return found[0], found[1], found[2]


def _some(
  rows: Float[np.ndarray, "n d"], strata: Int[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "r d"], Int[np.ndarray, "r"]]:
  """Return at most `SPREAD_ROWS` rows: whole classes, or the first images of a single stratum."""
  # Sorting by stratum keeps classes whole, which the means within strata need.
  order = np.argsort(strata, kind="stable")[:SPREAD_ROWS]
  return rows[order], np.unique(strata[order], return_inverse=True)[1]


def _less_means(
  values: Float[np.ndarray, "n m"], strata: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n m"]:
  """Subtract the mean over the rows of each stratum; scale so that mean squares are unbiased."""
  counts = np.bincount(strata)
  sums = np.zeros((len(counts), values.shape[1]))
  np.add.at(sums, strata, values)
  own = counts[strata][:, None]
  return (values - sums[strata] / own) * np.sqrt(own / np.maximum(own - 1, 1))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield KID, if most classes have pairs, and CMMD, on unit-norm features."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) < 2:
    return
  labels, rest = (sets.labels, sets.test_labels), (sets.seed, sets.resamples, sets.mesh)
  if "kid" in wanted and all(are_paired(side) for side in _strata(x, y, labels)):
    value = measure_kernel_distance(x, y, "polynomial", *rest, labels=labels, standardize=True)
    own = kernel_distances_by_class(x, y, labels, standardize=True, mesh=sets.mesh)
    yield Result("kid", value, own)
  if "cmmd" in wanted:
    own = kernel_distances_by_class(x, y, labels, "gaussian", unbiased=False, mesh=sets.mesh)
    by_class = {c: CMMD_SCALE * distance for c, distance in own.items()}
    yield Result("cmmd", measure_cmmd(x, y, *rest, labels=labels), by_class)
