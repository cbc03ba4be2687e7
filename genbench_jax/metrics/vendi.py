"""Vendi score: the effective number of distinct images."""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement, own_interval
from genbench_jax.metrics.inputs import (
  HIGHEST,
  by_block,
  check_finite,
  common_scale,
  feature_rows,
  or_default,
  rows_of_classes,
  unit_rows,
)
from genbench_jax.metrics.moments import moments
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.strata import strata_of
from genbench_jax.runtime.mesh import DATA_AXIS

# Eigenvalues below this share of the largest are rounding errors of float32 features.
NOTHING = 1e-7


@dataclasses.dataclass(frozen=True)
class VendiResult:
  """Vendi score with its interval over the images, and the score of each class that has images."""

  score: Measurement
  per_class: dict[int, float]


def vendi(x: Float[Any, "n d"], mesh: Mesh | None = None, order: float = 1.0) -> float:
  """Compute exp of the entropy of the eigenvalues of K / n, with K the cosines of all pairs.

  Friedman & Dieng 2023, eq. 2. The score is 1 for copies of one image, n for n orthogonal images,
  and never more than n or d. K / n has the same nonzero eigenvalues as the d x d second moment of
  the unit-norm features, so no n x n matrix is needed. An image whose features are all zero has no
  direction and is ignored.

  Args:
    x: features, not necessarily unit-norm.
    mesh: devices to compute on; None for all.
    order: q of Rényi's entropy, (sum of l^q)^(1 / (1 - q)) for eigenvalues l (Pasarkar & Dieng
      2024). Orders above 1 weight common images more, orders below 1 rare ones; infinity gives 1 /
      max(l).

  Raises:
    UsageError: shapes or values do not fit, the order is negative, or all features are zero.
  """
  if not order >= 0:
    raise UsageError(f"order must be 0 or greater, got {order}")
  second = _second_moment(_in_range(x), or_default(mesh))
  return _of_eigenvalues(np.linalg.eigvalsh(second), order)


def measure_vendi(
  x: Float[Any, "n d"],
  labels: Any | None = None,
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
  order: float = 1.0,
) -> VendiResult:
  """Measure `vendi` with its first-order bootstrap interval, and by class if labels are given.

  Resampling can only repeat images and thus lowers the score, so the interval is centered at the
  value of this n.

  Args:
    x, mesh, order: see `vendi`.
    labels: class indices or multi-hot labels.
    seed, resamples: of the bootstrap.

  Raises:
    UsageError: as `vendi`, or `labels` and `x` differ in length.
  """
  mesh = or_default(mesh)
  x = _in_range(x)
  if labels is not None and len(labels) != len(x):
    raise UsageError(f"every image needs its label: got {len(labels)} for {len(x)}")
  eigenvalues, vectors = np.linalg.eigh(_second_moment(x, mesh))
  value = _of_eigenvalues(eigenvalues, order)
  influences = value * _surprises(x, eigenvalues, vectors, mesh, order)
  if order == 1:
    # An image's surprise is measured against moments that it is part of, and comes out too small:
    # about `value` directions are fitted to n images. Without the factor intervals hold .89 instead
    # of .95 at n = 64 (benchmarks/intervals.py).
    influences = influences * np.sqrt(1 + value / len(x))
  strata = strata_of(labels, len(x))
  score = own_interval(value, influences, strata, resamples, seed, lowest=1.0)
  return VendiResult(score, {} if labels is None else _by_class(x, labels, order))


def _in_range(x: Any) -> Float[np.ndarray, "n d"]:
  """Return checked features, scaled so that the reciprocals of their norms stay normal floats."""
  rows = feature_rows("x", x)
  scale = common_scale(rows)
  return rows if scale == 1 else rows / scale


def _second_moment(x: Float[np.ndarray, "n d"], mesh: Mesh) -> Float[np.ndarray, "d d"]:
  state = moments("x", x, mesh, normalize=True)
  # E[f f'] = covariance + mean mean'. Zero rows count in n, so the trace is normalized to 1 below.
  second = state.scatter / state.count + np.outer(state.mean, state.mean)
  trace = np.trace(second)
  if trace == 0:
    raise UsageError("features are all zero: no image has a direction")
  return second / trace


def _of_eigenvalues(eigenvalues: Float[np.ndarray, "d"], order: float = 1.0) -> float:
  kept = eigenvalues[eigenvalues > NOTHING * eigenvalues.max()]
  # Dropped eigenvalues must not leave the entropy of a distribution that sums to less than 1.
  kept = kept / kept.sum()
  if order == 1:
    return float(np.exp(-np.sum(kept * np.log(kept))))
  if np.isinf(order):
    return float(1 / kept.max())
  return float(np.sum(kept**order) ** (1 / (1 - order)))


def _surprises(
  x: Float[np.ndarray, "n d"],
  eigenvalues: Float[np.ndarray, "d"],
  vectors: Float[np.ndarray, "d d"],
  mesh: Mesh,
  order: float = 1.0,
) -> Float[np.ndarray, "n"]:
  """Return f' g(C) f for each unit-norm row f: d log(score) / d weight, up to a constant.

  g(l) is -log l for order 1, q / (1 - q) l^(q - 1) / (sum of l^q) for order q, and -1 / l at the
  largest eigenvalue (0 elsewhere) for infinite order.
  """
  kept = eigenvalues > NOTHING * eigenvalues.max()
  safe = np.where(kept, eigenvalues, 1)
  if order == 1:
    slopes = -np.log(safe)
  elif np.isinf(order):
    slopes = np.where(np.arange(len(safe)) == eigenvalues.argmax(), -1 / safe, 0)
  else:
    slopes = order / (1 - order) * safe ** (order - 1) / np.sum(safe[kept] ** order)
  # g(C) = V g(L) V'; dropped eigenvalues get slope 0, because log and negative powers diverge
  # there.
  form = (vectors * np.where(kept, slopes, 0)) @ vectors.T
  program = _form_program(mesh)
  values = by_block(lambda rows, _: program(rows, form.astype(np.float32)), "x", mesh, x)
  return values.astype(np.float64)


@functools.cache
def _form_program(mesh: Mesh) -> jax.stages.Wrapped:
  def local(features: Float[Array, "n d"], form: Float[Array, "d d"]) -> Float[Array, "n"]:
    unit = unit_rows(features)
    return jnp.sum(jnp.matmul(unit, form, precision=HIGHEST) * unit, axis=1)

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, whole), out_specs=rows))


def _by_class(x: Float[np.ndarray, "n d"], labels: Any, order: float = 1.0) -> dict[int, float]:
  """Return the score of each class, on the host, from the smaller of the two Gram matrices."""
  classes = rows_of_classes(labels).items()
  return {c: _of_few(np.asarray(x[rows], np.float64), order) for c, rows in classes}


def _of_few(x: Float[np.ndarray, "n d"], order: float = 1.0) -> float:
  check_finite("x", x)
  length = np.linalg.norm(x, axis=1, keepdims=True)
  unit = x[length[:, 0] > 0] / length[length[:, 0] > 0]
  if not len(unit):
    return 1.0
  # Both Gram matrices have the same nonzero eigenvalues.
  gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
  return _of_eigenvalues(np.linalg.eigvalsh(gram), order)


ORDERS = {"vendi": 1.0, "vendi_q2": 2.0, "vendi_inf": np.inf}


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield the Vendi scores of the requested orders."""
  for name in wanted:
    found = measure_vendi(
      sets.external, sets.labels, sets.seed, sets.resamples, sets.mesh, ORDERS[name]
    )
    yield Result(name, found.score, found.per_class)
