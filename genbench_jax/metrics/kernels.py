"""Kernel distances (maximum mean discrepancy) between two sets of features: KID and CMMD.

No kernel matrix is held: each image has the sum of its kernel values with the images of a set seen so far, tile by tile.
From every kernel value the constant k(0) and then a typical value are taken away, which cancels in the distance: what is
summed in float32 is as small as the differences that matter.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement, shifted_interval
from genbench_jax.metrics.inputs import (
  BLOCK_ROWS,
  check_finite,
  feature_rows,
  fetch,
  or_default,
  unit_rows,
)
from genbench_jax.metrics.ring import (
  COLUMN_TILE,
  ROW_TILE,
  Rows,
  placed_rows,
  products,
  ring,
  row_tiles,
  untiled,
)
from genbench_jax.runtime.mesh import DATA_AXIS

Kernel = Literal["polynomial", "gaussian"]
KERNELS = ("polynomial", "gaussian")
# CMMD's bandwidth, for unit-norm features, and the factor that makes its values readable.
BANDWIDTH = 10.0
CMMD_SCALE = 1000.0
TYPICAL_ROWS = 256


class KernelSums(NamedTuple):
  """State: for each row of one set, the sum of its kernel values with the rows of another set seen so far.

  All pairs count, so that the rows themselves must be there: the state grows by blocks of the other set, not of its own.
  """

  sums: Float[Any, "n"]

  @classmethod
  def from_batch(
    cls, x: Rows, y: Rows, typical: Float[Array, ""], kernel: Kernel, skip_self: bool, devices: int
  ) -> "KernelSums":
    """Inside shard_map: of all rows of y, which travel round the ring, with the rows of x this device holds."""
    if kernel == "gaussian":
      x, y = (rows._replace(features=unit_rows(rows.features)) for rows in (x, y))

    def visit(state: "KernelSums", y: Rows) -> tuple["KernelSums", Rows]:
      return state.merge(cls(_over_tiles(x, y, typical, kernel, skip_self))), y

    nothing = cls(jax.lax.pcast(jnp.zeros(len(x.number)), DATA_AXIS, to="varying"))
    return ring(visit, nothing, y, devices)[0]

  def merge(self, other: "KernelSums") -> "KernelSums":
    """Of the same rows with the rows of both others."""
    return KernelSums(self.sums + other.sums)

  def compute(self, pairs: int) -> Float[Any, "n"]:
    """Mean kernel value of each row with `pairs` others."""
    return self.sums / pairs


def kernel_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  kernel: Kernel = "polynomial",
  mesh: Mesh | None = None,
) -> float:
  """The squared maximum mean discrepancy, without bias: about 0, of either sign, for equal distributions.

  Args:
    x: features of the external images; y: of the images to compare with; at least two each.
    kernel: `polynomial`, (a . b / d + 1)^3 on the features as they are: KID, over all pairs instead of random
      subsets (Binkowski et al. 2018, eq. 4). `gaussian`, exp(-|a - b|^2 / 200) on unit-norm features.

  Raises:
    UsageError: an unknown kernel, shapes or values that do not fit, or fewer than two images in a set.
  """
  return _distance(*_checked(x, y, kernel), kernel, False, or_default(mesh))[0]


def cmmd(x: Float[Any, "n d"], y: Float[Any, "m d"], mesh: Mesh | None = None) -> float:
  """1,000 times the squared discrepancy of unit-norm CLIP features under the Gaussian kernel of bandwidth 10.

  As published (Jayasumana et al. 2024, section 4) the mean runs over all pairs, an image with itself included: never
  negative, 0 for equal sets, and biased upward for few images. Arguments and errors as `kernel_distance`.
  """
  return CMMD_SCALE * _distance(*_checked(x, y, "gaussian"), "gaussian", True, or_default(mesh))[0]


def measure_kernel_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  kernel: Kernel = "polynomial",
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
) -> Measurement:
  """`kernel_distance` with its bootstrap interval, of first order, over the images of x."""
  mesh = or_default(mesh)
  value, influences = _distance(*_checked(x, y, kernel), kernel, False, mesh)
  return shifted_interval(value, influences, resamples, seed, mesh)


def measure_cmmd(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
) -> Measurement:
  """`cmmd` with its bootstrap interval, of first order, over the images of x."""
  mesh = or_default(mesh)
  value, influences = _distance(*_checked(x, y, "gaussian"), "gaussian", True, mesh)
  scaled = CMMD_SCALE * influences
  return shifted_interval(CMMD_SCALE * value, scaled, resamples, seed, mesh, lowest=0.0)


def _checked(x: Any, y: Any, kernel: str) -> tuple[np.ndarray, np.ndarray]:
  if kernel not in KERNELS:
    raise unknown_name("kernel", kernel, KERNELS)
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  if min(len(x), len(y)) < 2:
    raise UsageError(f"a kernel distance needs at least 2 images, got {len(x)} and {len(y)}")
  return x, y


def _distance(
  x: Float[np.ndarray, "n d"],
  y: Float[np.ndarray, "m d"],
  kernel: Kernel,
  with_self: bool,
  mesh: Mesh,
) -> tuple[float, Float[np.ndarray, "n"]]:
  """The squared discrepancy, and what each image of x adds to it to first order in its weight:
  2 (mean of k with the images of x - mean of k with the images of y)."""
  typical, less = _typical_value(x, y, kernel), 0 if with_self else 1
  within_x, within_y = (
    _kernel_sums(rows, rows, typical, kernel, not with_self, mesh).compute(len(rows) - less)
    for rows in (x, y)
  )
  across = _kernel_sums(x, y, typical, kernel, False, mesh).compute(len(y))
  value = within_x.mean() + within_y.mean() - 2 * across.mean()
  return float(max(value, 0.0) if with_self else value), 2 * (within_x - across)


def _typical_value(
  x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], kernel: Kernel
) -> float:
  """The mean kernel value, less k(0), of the first images of both sets."""
  first_x, first_y = (np.asarray(rows[:TYPICAL_ROWS], np.float32) for rows in (x, y))
  check_finite("features", first_x)
  check_finite("features", first_y)
  if kernel == "gaussian":
    first_x, first_y = (np.asarray(unit_rows(jnp.asarray(rows))) for rows in (first_x, first_y))
  inner = first_x.astype(np.float64) @ first_y.astype(np.float64).T
  return float(np.mean(_less_constant(inner, x.shape[1], kernel, np.expm1)))


def _less_constant(inner: Any, width: int, kernel: Kernel, expm1: Callable[[Any], Any]) -> Any:
  """k(a, b) - 1 from the inner product: (s + 1)^3 - 1, or exp(-|a - b|^2 / 2 sigma^2) - 1 of unit rows."""
  if kernel == "polynomial":
    s = inner / width
    return s * (3 + s * (3 + s))
  return expm1((inner - 1) / BANDWIDTH**2)


def _kernel_sums(
  x: Float[np.ndarray, "n d"],
  y: Float[np.ndarray, "m d"],
  typical: float,
  kernel: Kernel,
  skip_self: bool,
  mesh: Mesh,
) -> KernelSums:
  """For each row of x the sum over y of k - 1 - typical, merged over the blocks in float64."""
  program = _sums_program(mesh, kernel, skip_self)
  found = []
  for x_start in range(0, len(x), BLOCK_ROWS):
    rows = placed_rows(x, x_start, mesh)
    state = KernelSums(np.zeros(min(BLOCK_ROWS, len(x) - x_start)))
    for y_start in range(0, len(y), BLOCK_ROWS):
      part = fetch(mesh, program(rows, placed_rows(y, y_start, mesh), np.float32(typical)))
      state = state.merge(KernelSums(part.sums[: len(state.sums)].astype(np.float64)))
    found.append(state.sums)
  return KernelSums(np.concatenate(found))


@functools.cache
def _sums_program(mesh: Mesh, kernel: Kernel, skip_self: bool) -> jax.stages.Wrapped:
  def local(x: Rows, y: Rows, typical: Float[Array, ""]) -> KernelSums:
    return KernelSums.from_batch(x, y, typical, kernel, skip_self, mesh.size)

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, rows, whole), out_specs=rows))


def _over_tiles(
  x: Rows, y: Rows, typical: Float[Array, ""], kernel: Kernel, skip_self: bool
) -> Float[Array, "n"]:
  """For each row of x the sum over y: one tile of kernel values at a time."""
  width, y_tiles = x.features.shape[1], row_tiles(y, COLUMN_TILE)

  def of_tiles(x: Rows, y: Rows) -> Float[Array, "t"]:
    inner = products(x.features, y.features)
    values = _less_constant(inner, width, kernel, jnp.expm1) - typical
    real = y.number >= 0
    if skip_self:
      real = real & (y.number != x.number[:, None])
    return jnp.sum(jnp.where(real, values, 0), axis=1)

  def of_tiles_if_any(x: Rows, y: Rows) -> Float[Array, "t"]:
    # Padding comes last: a tile that begins with it holds nothing else.
    some = (x.number[0] >= 0) & (y.number[0] >= 0)
    return jax.lax.cond(some, of_tiles, lambda x, _: jnp.zeros_like(x.features[:, 0]), x, y)

  def of_row_tile(x: Rows) -> Float[Array, "t"]:
    return jnp.sum(jax.lax.map(lambda y: of_tiles_if_any(x, y), y_tiles), axis=0)

  return untiled(jax.lax.map(of_row_tile, row_tiles(x, ROW_TILE)), len(x.number))
