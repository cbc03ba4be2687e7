"""Fréchet distance between Gaussians fitted to two sets of features: FID on any features."""

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
  """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2), 0 for equal sets (Heusel et al. 2017, eq. 6).

  The covariances have rank n - 1 at most: with few images the distance is defined, and biased upward. Compare
  only distances from equally many images.

  Args:
    x: features of the external images; y: of the images to compare with. Float32 on the device, moments
      finished in float64.
    protocol: `strict`: each covariance divided by its own n - 1. `reference`, as published: both by that of x.
    normalize: take unit-norm rows, as the published code does with CLIP features.

  Raises:
    UsageError: shapes or values that do not fit, or a set with a single image, which has no covariance.
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
  """`frechet_distance` with its intervals.

  The bootstrap is of first order: the distance is linearized in the weights of the images of both sets, at the cost of one
  more pass over each. It says how the distance varies with the images drawn, and leaves its bias at small n where it is.

  Args:
    labels: classes of x and of y: images are drawn anew within what was drawn class by class (`strata`). See
      `frechet_distance` for the rest.
  """
  mesh = or_default(mesh)
  scaled, scale = _scaled(x, y)
  first, second = _gaussians(*scaled, protocol, normalize, mesh)
  value = distance_of_gaussians(first, second)
  of_x = _influences(scaled[0], first, second, normalize, mesh)
  of_y = _influences(scaled[1], second, first, normalize, mesh)
  labels_x, labels_y = labels or (None, None)
  strata_x, strata_y = strata_of(labels_x, len(of_x)), sampled_strata(labels_y, len(of_y))
  square = 1.0 if normalize else scale**2
  return two_sided_interval(
    square * value,
    square * centered_within(of_x, strata_x) if are_paired(strata_x) else None,
    square * centered_within(of_y, strata_y),
    resamples,
    seed,
    mesh,
    lowest=0.0,
  )


def distance_of_gaussians(first: Gaussian, second: Gaussian) -> float:
  """The distance from means and covariances in float64.

  tr (S_x S_y)^1/2 is the sum of the square roots of the eigenvalues of S_x^1/2 S_y S_x^1/2, which is symmetric.
  """
  (mean_x, cov_x), (mean_y, cov_y) = first, second
  root = _square_root(cov_x)
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
  """Checked features divided by a power of two where their squares would leave float32, and that number."""
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
    cov_y = cov_y * ((len(y) - 1) / (len(x) - 1))
  return (mean_x, cov_x), (mean_y, cov_y)


def _influences(
  x: Float[np.ndarray, "n d"], first: Gaussian, second: Gaussian, normalize: bool, mesh: Mesh
) -> Float[np.ndarray, "n"]:
  """What each image of x adds to the distance, to first order in its weight.

  With z = x_i - mu_x: 2 (mu_x - mu_y) . z + n / (n - 1) z' (1 - A) z, where A = S_y^1/2 (S_y^1/2 S_x S_y^1/2)^-1/2 S_y^1/2
  is the derivative of 2 tr (S_x S_y)^1/2 by S_x.
  """
  (mean_x, cov_x), (mean_y, cov_y) = first, second
  root = _square_root(cov_y)
  eigenvalues, vectors = np.linalg.eigh(root @ cov_x @ root)
  # What float32 features cannot tell from zero is zero, and has no inverse.
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
  """For the registry: of unit-norm features, where both sets have a covariance."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) > 1:
    labels = (sets.labels, sets.test_labels)
    value = measure_frechet_distance(
      x, y, sets.protocol, False, sets.seed, sets.resamples, sets.mesh, labels
    )
    yield Result("fid", value)
