"""Clipped density and clipped coverage (Salvy, Talbot & Thirion 2025, arXiv 2507.01761).

No image counts more than once and no ball exceeds the median radius, so outliers in either set
cannot dominate the mean.
Both metrics are calibrated: if a share p of the images is good and the rest is useless, the value
is about p.
"""

import functools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.class_distances import distances_by_class
from genbench_jax.metrics.inputs import common_scale, feature_rows, host_unit_rows, or_default
from genbench_jax.metrics.manifold import HOST_PAIRS, NEIGHBORS, balls_held
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import OnParts, set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of

NAMES = ("clipped_density", "clipped_coverage")


def clipped_density_coverage(
  real: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  k: int = NEIGHBORS,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Compute clipped density and clipped coverage, from 0 to 1, by name.

    clipped_density   mean over generated images of min(1, number of real balls that hold it / k),
                      divided by the same mean over real images; the radius is the distance to the
                      k-th neighbor, at most the median radius clipped_coverage  m' / m, with m' the
                      number of independent real images that would cover as much as the m generated
                      images: the mean over real images of min(k, generated images in its unclipped
                        ball) / k

  Args:
    real, generated: features, not normalized; distances are Euclidean.
    k: neighbors that define a radius.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or a set has at most k images.
  """
  real = feature_rows("real", real)
  generated = feature_rows("generated", generated, real.shape[1])
  if not 1 <= k < min(len(real), len(generated)):
    raise UsageError(
      f"k={k} neighbors need at least k + 1 images per set, got {len(real)} and {len(generated)}"
    )
  mesh, scale = or_default(mesh), common_scale(real, generated)
  # Squared distances from |a|^2 + |b|^2 - 2 a . b cancel far from the origin: move the set there
  # first.
  shift = np.asarray(real[:4096], np.float64).mean(axis=0)
  real, generated = (
    ((np.asarray(rows, np.float64) - shift) / scale).astype(np.float32)
    for rows in (real, generated)
  )
  within = -nearest(real, real, k, "euclidean", skip_self=True, mesh=mesh)[0]
  radii = np.minimum(within[:, -1], np.median(within[:, -1]))
  held = balls_held(real, radii, generated, mesh)
  to_generated = -nearest(real, generated, k, "euclidean", mesh=mesh)[0]
  near = (to_generated < within[:, -1:]).mean(axis=1)
  numbers = nearest(real, real, k, "euclidean", skip_self=True, mesh=mesh)[1]
  # Real image j lies in the ball of i only if it is among the k nearest of i, because radii are
  # clipped from above.
  held_real = np.bincount(numbers[within <= radii[:, None]], minlength=len(real))
  values = _both(held / k, held_real / k, near, len(real), len(generated), k)
  return dict(zip(NAMES, values.tolist(), strict=True))


def _both(
  held: Float[np.ndarray, "m"],
  held_real: Float[np.ndarray, "n"],
  near: Float[np.ndarray, "n"],
  n: int,
  m: int,
  k: int,
) -> Float[np.ndarray, "2"]:
  """Clip and calibrate: return density and coverage from the three per-image statistics."""
  ideal = np.minimum(held_real, 1).mean()
  density = min(float(np.minimum(held, 1).mean() / ideal), 1.0) if ideal > 0 else 0.0
  expected = expected_coverage(n, m, k)
  # The expected coverage increases with m': find the m' that reaches the observed one.
  coverage = np.searchsorted(expected, near.mean()) / len(expected)
  return np.array([density, min(float(coverage), 1.0)])


@functools.lru_cache(maxsize=64)
def expected_coverage(n: int, m: int, k: int) -> Float[np.ndarray, "{m}+1"]:
  """Return the mean of min(k, J) / k for 0, 1, ..., m generated images from the real distribution.

  J is the number of m' generated images within the k-th of n - 1 real neighbors. It is
  beta-binomial, J ~ BB(m', k, n - k). Below k images the published curve is 0.

  Args:
    n: number of real images.
    m: largest number of generated images.
    k: number of neighbors.
  """
  from scipy.special import betaln, gammaln

  sizes = np.arange(k, m + 1)[:, None]
  j = np.arange(k)
  log_chance = (
    gammaln(sizes + 1)
    - gammaln(j + 1)
    - gammaln(sizes - j + 1)
    + betaln(k + j, n + sizes - k - j)
    - betaln(k, n - k)
  )
  # E min(k, J) = k - sum_{j < k} (k - j) P(J = j) needs k terms instead of m'.
  missing = np.sum((k - j) * np.exp(log_chance), axis=1)
  return np.concatenate([np.zeros(k), 1 - missing / k])


def on_parts(external: Float[np.ndarray, "m d"], tests: Float[np.ndarray, "n d"]) -> OnParts:
  """Return the function that computes both metrics of parts of small sets, on the host in float64.

  With k neighbors, half of the test images have balls that hold twice the share, which hides the
  effect of other test images. With k / 2 neighbors the balls are as large as for all images, but
  their
  counts are noisier. The true variance lies between: both are returned, and `set_measurements`
  averages their variances (benchmarks/intervals.py).
  """
  within, across = squared_distances(tests, tests), squared_distances(tests, external)
  np.fill_diagonal(within, np.inf)

  def of(
    external_part: Bool[np.ndarray, "m"], test_part: Bool[np.ndarray, "n"]
  ) -> Float[np.ndarray, "4"]:
    real = within[np.ix_(test_part, test_part)]
    generated = across[np.ix_(test_part, external_part)]
    fewer = NEIGHBORS if test_part.all() else (NEIGHBORS + 1) // 2
    return np.concatenate([of_distances(real, generated, k) for k in (NEIGHBORS, fewer)])

  return of


def of_distances(
  within: Float[np.ndarray, "n n"], across: Float[np.ndarray, "n m"], k: int
) -> Float[np.ndarray, "2"]:
  """Compute both metrics from squared distances; those within the real set are inf on the
  diagonal.

  Args:
    within: squared distances of the real images.
    across: squared distances of real and generated images.
    k: number of neighbors.
  """
  k = min(k, len(within) - 1, across.shape[1])
  radius = np.partition(within, k - 1, axis=1)[:, k - 1]
  radii = np.minimum(radius, np.median(radius))
  held = (across <= radii[:, None]).sum(axis=0)
  held_real = (within <= radii[:, None]).sum(axis=0)
  near = np.minimum((across < radius[:, None]).sum(axis=1), k) / k
  return _both(held / k, held_real / k, near, len(within), across.shape[1], k)


def _of_class(
  external: Float[np.ndarray, "m d"], tests: Float[np.ndarray, "n d"], mesh: Mesh | None
) -> Float[np.ndarray, "2"]:
  """Compute both metrics of one class, small ones on the host."""
  if len(tests) * max(len(tests), len(external)) > HOST_PAIRS:
    found = clipped_density_coverage(tests, external, NEIGHBORS, mesh)
    return np.array([found[name] for name in NAMES])
  within = squared_distances(tests, tests)
  np.fill_diagonal(within, np.inf)
  return of_distances(within, squared_distances(tests, external), NEIGHBORS)


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield both metrics on unit-norm features."""
  generated, real = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(real), len(generated)) <= NEIGHBORS:
    return
  values = clipped_density_coverage(real, generated, NEIGHBORS, sets.mesh)
  strata = strata_of(sets.labels, len(generated)), sampled_strata(sets.test_labels, len(real))
  found = set_measurements(
    np.array([values[name] for name in NAMES]), on_parts, generated, real, strata, sets.seed,
    sets.resamples, joint=True, bounded=True,
  )  # fmt: skip
  by_class = distances_by_class(
    generated, real, sets.labels, sets.test_labels, lambda x, y: _of_class(x, y, sets.mesh), NEIGHBORS + 1
  )  # fmt: skip
  for place, (name, value) in enumerate(zip(NAMES, found, strict=True)):
    yield Result(name, value, {c: float(both[place]) for c, both in by_class.items()})
