"""The Fréchet distance extrapolated to infinitely many external images (Chong & Forsyth 2020, arXiv 1911.07023).

The distance of n images is, to first order, the distance of infinitely many and a bias that goes as 1 / n. It is measured on
random parts of the external images, drawn class by class, and a straight line in 1 / n is followed to 0. The test images are
as many as there are: their own bias stays, and is the same for every source.
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

PARTS = 15
# The smallest part, of all images.
SMALLEST = 0.25
NORMAL = 1.959964


def fd_infinity(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  labels: Any | None = None,
  seed: int = 0,
  mesh: Mesh | None = None,
) -> float:
  """The distance that infinitely many images of x's distribution would have to y.

  Args:
    x: features of the external images, more than four times as many as dimensions; y: of the test images.
    labels: of x: parts are then drawn class by class.
    seed: draws the parts.

  Raises:
    UsageError: shapes or values that do not fit, or too few images: a covariance of fewer images than dimensions has
      a bias that does not go as 1 / n.
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
  """`fd_infinity` with its intervals: those of the distance itself, widened by the error of the extrapolated line."""
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
  """The interval around the distance, moved to its limit, and the error of that added."""
  below, above = (float(np.hypot(end - at_n, NORMAL * error)) for end in (low, high))
  return value - below, value + above


def _extrapolated(
  x: Any, y: Any, labels: Any | None, seed: int, mesh: Mesh | None
) -> tuple[float, float]:
  """The line at 1 / n = 0, and its standard error."""
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
  # Each part begins elsewhere in the order, so that the small ones are not the same images.
  starts = random.integers(0, len(x), PARTS)
  parts = [np.take(order, np.arange(start, start + size), mode="wrap")
           for start, size in zip(starts, sizes, strict=True)]  # fmt: skip
  distances = [
    distance_of_gaussians(moments("x", x[rows], mesh).compute(), target) for rows in parts
  ]
  at_zero, error = _intercept(1 / sizes, np.array(distances))
  return at_zero * scale**2, error * scale**2


def _evenly(strata: Int[np.ndarray, "n"], random: np.random.Generator) -> Int[np.ndarray, "n"]:
  """The images in an order of which every stretch holds the classes in their proportions."""
  place = np.empty(len(strata))
  for stratum in np.unique(strata):
    own = random.permutation(np.flatnonzero(strata == stratum))
    place[own] = (np.arange(len(own)) + random.random()) / len(own)
  return np.argsort(place, kind="stable")


def _intercept(x: Float[np.ndarray, "p"], y: Float[np.ndarray, "p"]) -> tuple[float, float]:
  """Of the least-squares line, and its standard error."""
  design = np.stack([np.ones_like(x), x], axis=1)
  solution, *_ = np.linalg.lstsq(design, y, rcond=None)
  residual = float(np.sum((y - design @ solution) ** 2)) / (len(x) - 2)
  return float(solution[0]), float(np.sqrt(residual * np.linalg.inv(design.T @ design)[0, 0]))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """For the registry: of unit-norm features, as `fid`."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if len(x) * SMALLEST > x.shape[1]:
    labels = (sets.labels, sets.test_labels)
    yield Result(
      "fd_infinity", measure_fd_infinity(x, y, labels, sets.seed, sets.resamples, sets.mesh)
    )
