"""Fréchet distance between Gaussians fitted to two sets of features (FID, for any encoder)."""

import functools
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement, two_sided_interval
from genbench_jax.metrics.class_distances import distances_by_class, frechet_of_few
from genbench_jax.metrics.inputs import (
  HIGHEST,
  by_block,
  common_scale,
  feature_rows,
  host_unit_rows,
  or_default,
  unit_rows,
)
from genbench_jax.metrics.moments import moments
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import are_paired, centered_within, sampled_strata, strata_of
from genbench_jax.runtime.mesh import DATA_AXIS
from genbench_jax.runtime.protocol import PROTOCOLS, Protocol

Gaussian = tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d d"]]


def frechet_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  protocol: Protocol = "strict",
  normalize: bool = False,
  mesh: Mesh | None = None,
) -> float:
  """Compute |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2) (Heusel et al. 2017, eq. 6).

  A covariance of n images has at most rank n - 1. With few images the distance is defined but
  biased upward: compare only distances between equally many images.

  Args:
    x: features of the external images.
    y: features of the images to compare with. Blocks are reduced in float32 on the mesh and merged
      in float64.
    protocol: `strict` divides each covariance by its own n - 1. `reference` divides both by that of
      x, as published.
    normalize: scale rows to unit length, as the published code does with CLIP features.
    mesh: devices to compute on; None for all.

  Returns:
    The distance, in squared units of the features.

  Raises:
    UsageError: shapes or values do not fit, or a set has a single image and thus no covariance.
  """
  scaled, scale = _scaled(x, y)
  first, second = _gaussians(*scaled, protocol, normalize, or_default(mesh))
  return distance_of_gaussians(first, second) * (1.0 if normalize else scale**2)


def measure_frechet_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  protocol: Protocol = "strict",
  normalize: bool = False,
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
  labels: tuple[Any, Any] | None = None,
) -> Measurement:
  """Measure `frechet_distance` with its intervals.

  The bootstrap is first-order: the distance is linearized in the weights of the images of both
  sets, which costs one more pass over each. The interval covers the sampling of images; it does not
  correct the bias at small n.

  Args:
    x, y, protocol, normalize, mesh: see `frechet_distance`.
    seed, resamples: of the bootstrap.
    labels: classes of x and of y; sets drawn class by class are resampled within classes (see
      `strata`).

  Raises:
    UsageError: as `frechet_distance`.
  """
  mesh = or_default(mesh)
  scaled, scale = _scaled(x, y)
  first, second = _gaussians(*scaled, protocol, normalize, mesh)
  value = distance_of_gaussians(first, second)
  of_x = _influences(scaled[0], first, second, normalize, mesh)
  of_y = _influences(scaled[1], second, first, normalize, mesh)
  labels_x, labels_y = labels or (None, None)
  strata_x, strata_y = strata_of(labels_x, len(of_x)), sampled_strata(labels_y, len(of_y))
  square = 1.0 if normalize else scale**2  # the distance is quadratic in the features
  return two_sided_interval(
    square * value,
    square * centered_within(of_x, strata_x) if are_paired(strata_x) else None,
    square * centered_within(of_y, strata_y),
    resamples,
    seed,
    lowest=0.0,
  )


def distance_of_gaussians(first: Gaussian, second: Gaussian) -> float:
  """Compute the distance from means and covariances in float64.

  tr (S_x S_y)^1/2 is the sum of the square roots of the eigenvalues of S_x^1/2 S_y S_x^1/2. That
  matrix is symmetric, so `eigvalsh` applies; S_x S_y is not, and its matrix square root can come
  out complex.
  """
  (mean_x, cov_x), (mean_y, cov_y) = first, second
  root = _square_root(cov_x)
  # Rounding leaves tiny negative eigenvalues where a covariance is rank-deficient.
  eigenvalues = np.linalg.eigvalsh(root @ cov_y @ root)
  cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
  distance = np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * cross
  return max(float(distance), 0.0)


def _square_root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
  eigenvalues, vectors = np.linalg.eigh(covariance)
  return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def _scaled(
  x: Any, y: Any
) -> tuple[tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], float]:
  """Return checked features, divided by `common_scale`, and that scale."""
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  if min(len(x), len(y)) < 2:
    raise UsageError(f"a covariance needs at least 2 images, got {len(x)} and {len(y)}")
  scale = common_scale(x, y)
  return ((x, y) if scale == 1 else (x / scale, y / scale)), scale


def _gaussians(
  x: Float[np.ndarray, "n d"],
  y: Float[np.ndarray, "m d"],
  protocol: str,
  normalize: bool,
  mesh: Mesh,
) -> tuple[Gaussian, Gaussian]:
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)
  mean_x, cov_x = moments("x", x, mesh, normalize).compute()
  mean_y, cov_y = moments("y", y, mesh, normalize).compute()
  if protocol == "reference":
    # Undo the division by m - 1 and divide by n - 1 instead. The published code divides both
    # scatters by the size of x.
    cov_y = cov_y * ((len(y) - 1) / (len(x) - 1))
  return (mean_x, cov_x), (mean_y, cov_y)


def _influences(
  x: Float[np.ndarray, "n d"], first: Gaussian, second: Gaussian, normalize: bool, mesh: Mesh
) -> Float[np.ndarray, "n"]:
  """Return the influence of each image of x: the derivative of the distance by its weight.

  With z = x_i - mu_x, it is 2 (mu_x - mu_y) . z + n / (n - 1) z' (1 - A) z, where A = S_y^1/2
  (S_y^1/2 S_x S_y^1/2)^-1/2 S_y^1/2 is the derivative of 2 tr (S_x S_y)^1/2 by S_x.
  """
  (mean_x, cov_x), (mean_y, cov_y) = first, second
  root = _square_root(cov_y)
  eigenvalues, vectors = np.linalg.eigh(root @ cov_x @ root)
  # Float32 features do not resolve eigenvalues below this share of the largest; inverting them
  # would amplify noise.
  kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float32).eps
  inverse = np.where(kept, 1 / np.sqrt(np.where(kept, eigenvalues, 1)), 0)
  half = root @ vectors
  form = np.eye(len(root)) - (half * inverse) @ half.T
  size = len(x)
  host = (mean_x, form * size / (size - 1), 2 * (mean_x - mean_y))
  arguments = [np.asarray(array, np.float32) for array in host]
  program = _influence_program(mesh, normalize)
  return by_block(lambda features, _: program(features, *arguments), "x", mesh, x).astype(
    np.float64
  )


@functools.cache
def _influence_program(mesh: Mesh, normalize: bool) -> jax.stages.Wrapped:
  def local(
    features: Float[Array, "n d"],
    mean: Float[Array, "d"],
    form: Float[Array, "d d"],
    slope: Float[Array, "d"],
  ) -> Float[Array, "n"]:
    deviations = (unit_rows(features) if normalize else features) - mean
    curved = jnp.sum(jnp.matmul(deviations, form, precision=HIGHEST) * deviations, axis=1)
    return curved + jnp.matmul(deviations, slope, precision=HIGHEST)

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  specs = (rows, whole, whole, whole)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield `fid` on unit-norm features if both sets have a covariance, with values by class."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) > 1:
    labels = (sets.labels, sets.test_labels)
    value = measure_frechet_distance(
      x, y, sets.protocol, False, sets.seed, sets.resamples, sets.mesh, labels
    )
    by_class = distances_by_class(x, y, *labels, frechet_of_few)
    yield Result("fid", value, by_class)
