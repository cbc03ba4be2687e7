"""Fréchet distance extrapolated to infinitely many external images.

Chong & Forsyth 2020 (arXiv 1911.07023): to first order, the distance at n images is the distance at
infinitely many plus a bias proportional to 1 / n. The distance is measured on subsets of the
external images of several sizes, drawn class by class, and a line in 1 / n is extrapolated to 0.
The number of test images is fixed, so their own bias remains; it is the same for every source.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement
from genbench_jax.metrics.frechet import distance_of_gaussians, measure_frechet_distance
from genbench_jax.metrics.inputs import common_scale, feature_rows, host_unit_rows, or_default
from genbench_jax.metrics.moments import moments
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import strata_of
from genbench_jax.runtime.protocol import NORMAL

PARTS = 15  # subsets, with evenly spaced sizes
# Size of the smallest subset, as a share of all images.
SMALLEST = 0.25
# The 97.5 % quantile of the standard normal distribution.


def fd_infinity(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  labels: Any | None = None,
  seed: int = 0,
  mesh: Mesh | None = None,
) -> float:
  """Estimate the distance to y of infinitely many images from the distribution of x.

  Args:
    x: features of the external images; more than four times as many images as dimensions.
    y: features of the test images.
    labels: classes of x; subsets are then drawn class by class.
    seed: of the subsets.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or there are too few images: the bias of a covariance
      from fewer images than dimensions is not proportional to 1 / n.
  """
  return _extrapolated(x, y, labels, seed, mesh)[0]


def measure_fd_infinity(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  labels: tuple[Any, Any] | None = None,
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
) -> Measurement:
  """Measure `fd_infinity` with its intervals.

  The interval is that of the Fréchet distance at n, centered at the extrapolated value and widened
  by the standard
  error of the intercept. Arguments and errors: see `fd_infinity` and `measure_frechet_distance`.

  Args:
    x, y: features of the external and of the test images.
    labels: labels of both; None if unknown.
    seed: of subsets and resamples.
    resamples: number of resamples.
    mesh: devices; None for all.
  """
  own = labels[0] if labels else None
  value, error = _extrapolated(x, y, own, seed, mesh)
  at_n = measure_frechet_distance(x, y, "strict", False, seed, resamples, mesh, labels)
  low, high = _widened(value, at_n.value, at_n.ci_low, at_n.ci_high, error)
  if at_n.generator_low is None or at_n.generator_high is None:
    return Measurement(value, low, high, note=at_n.note)
  wide = _widened(value, at_n.value, at_n.generator_low, at_n.generator_high, error)
  return Measurement(value, low, high, *wide)


def _widened(
  value: float, at_n: float, low: float, high: float, error: float
) -> tuple[float, float]:
  """Center an interval around `at_n` at `value` and add the extrapolation error in quadrature."""
  below, above = (float(np.hypot(end - at_n, NORMAL * error)) for end in (low, high))
  return value - below, value + above


def _extrapolated(
  x: Any, y: Any, labels: Any | None, seed: int, mesh: Mesh | None
) -> tuple[float, float]:
  """Return the intercept of the line at 1 / n = 0 and its standard error."""
  mesh = or_default(mesh)
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  if len(x) * SMALLEST <= x.shape[1] or len(y) < 2:
    raise UsageError(
      f"fd_infinity needs more than {x.shape[1] / SMALLEST:.0f} images of {x.shape[1]} dimensions, got {len(x)}"
    )
  scale = common_scale(x, y)
  x, y = x / scale, y / scale
  target = moments("y", y, mesh).compute()
  random = np.random.default_rng([seed, 0xFD])
  order = _evenly(strata_of(labels, len(x)), random)
  sizes = np.linspace(SMALLEST * len(x), len(x), PARTS).astype(int)
  # Each subset starts at its own place in the order, so that the small subsets do not share their
  # images.
  starts = random.integers(0, len(x), PARTS)
  parts = [np.take(order, np.arange(start, start + size), mode="wrap")
           for start, size in zip(starts, sizes, strict=True)]  # fmt: skip
  distances = [
    distance_of_gaussians(moments("x", x[rows], mesh).compute(), target) for rows in parts
  ]
  at_zero, error = _intercept(1 / sizes, np.array(distances))
  return at_zero * scale**2, error * scale**2


def _evenly(strata: Int[np.ndarray, "n"], random: np.random.Generator) -> Int[np.ndarray, "n"]:
  """Return an order in which every stretch has about the class proportions of the whole."""
  place = np.empty(len(strata))
  # Images of a class are spread over [0, 1) at equal steps with a random phase, then sorted.
  for stratum in np.unique(strata):
    own = random.permutation(np.flatnonzero(strata == stratum))
    place[own] = (np.arange(len(own)) + random.random()) / len(own)
  return np.argsort(place, kind="stable")


def _intercept(x: Float[np.ndarray, "p"], y: Float[np.ndarray, "p"]) -> tuple[float, float]:
  """Fit a least-squares line; return its intercept and the standard error of the intercept."""
  design = np.stack([np.ones_like(x), x], axis=1)
  solution, *_ = np.linalg.lstsq(design, y, rcond=None)
  # s^2 (X'X)^-1, with s^2 the residual variance over p - 2 degrees of freedom.
  residual = float(np.sum((y - design @ solution) ** 2)) / (len(x) - 2)
  return float(solution[0]), float(np.sqrt(residual * np.linalg.inv(design.T @ design)[0, 0]))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield `fd_infinity` on unit-norm features, like `fid`, if there are enough images."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if len(x) * SMALLEST > x.shape[1]:
    labels = (sets.labels, sets.test_labels)
    yield Result(
      "fd_infinity", measure_fd_infinity(x, y, labels, sets.seed, sets.resamples, sets.mesh)
    )
