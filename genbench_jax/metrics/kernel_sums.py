"""Sums of kernel values over pairs of images, without cancellation far from the origin.

The cubic kernel k(a, b) = (a . b / d + 1)^3 of features of magnitude 1,000 is about 1e18, and a
distance between two sets is a small difference of such numbers. Write a = c + u, b = c + v, A = c .
c / d + 1, p = c . u / d, q = c . v / d and r = u . v / d. Then k = (A + p + q + r)^3, and terms
that depend on a alone or on b alone cancel in every distance. The rest,

  3 p q (A + B) + r (3 B^2 + r (3 B + r)),   B = A + p + q,

has no large terms that cancel; it is what this module sums. Everything is divided by a scale T^3,
so that float32 neither overflows nor underflows. The Gaussian kernel uses unit-norm features, and k
- 1 is summed.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import BLOCK_ROWS, blocks, check_finite, fetch, place, placed_once
from genbench_jax.metrics.ring import COLUMN_TILE, ROW_TILE, products, ring, tiles, untiled
from genbench_jax.runtime.mesh import DATA_AXIS

Kernel = Literal["polynomial", "gaussian"]
# CMMD's bandwidth, for unit-norm features.
BANDWIDTH = 10.0
# Rows per set from which the typical summand is estimated.
TYPICAL_ROWS = 256
# Added to the row numbers of a set so that they differ from those of any other set.
APART = 2**30


class KernelRows(NamedTuple):
  """Rows of one set in the coordinates of a `Frame`.

  Attributes:
    features: u / sqrt(d T); unit-norm rows for the Gaussian kernel.
    offset: p / T; 0 for the Gaussian kernel.
    number: index of the row in its set; -1 is padding.
  """

  features: Float[Any, "n d"]
  offset: Float[Any, "n"]
  number: Int[Any, "n"]


class KernelSums(NamedTuple):
  """Mergeable state: for each row, the sum of its kernel values with the rows seen so far.

  The state grows by blocks of the other set only: all pairs count, so the rows of its own set must
  be known up front.
  """

  sums: Float[Any, "n"]

  @classmethod
  def from_batch(
    cls,
    x: KernelRows,
    y: KernelRows,
    level: Float[Array, "2"],
    kernel: Kernel,
    devices: int,
  ) -> "KernelSums":
    """Sum over all rows of y for the rows of x on this device (inside shard_map).

    Args:
      x: rows that stay on this device.
      y: rows that travel; each device starts with its shard.
      level: `Frame.constant` and `Frame.typical`.
      kernel: kernel to evaluate. Pairs of equal row numbers are left out.
      devices: number of devices in the ring.
    """

    def visit(state: "KernelSums", y: KernelRows) -> tuple["KernelSums", KernelRows]:
      return state.merge(cls(_over_tiles(x, y, level, kernel))), y

    nothing = cls(jax.lax.pcast(jnp.zeros(len(x.number)), DATA_AXIS, to="varying"))
    return ring(visit, nothing, y, devices)[0]

  def merge(self, other: "KernelSums") -> "KernelSums":
    """Return the sums over the union of both other sets, for the same rows."""
    return KernelSums(self.sums + other.sums)

  def compute(self, pairs: int) -> Float[Any, "n"]:
    """Return the mean kernel value of each row over `pairs` pairs."""
    return self.sums / pairs


@dataclasses.dataclass(frozen=True)
class Frame:
  """Coordinates in which a kernel is evaluated without cancellation (see the module docstring).

  Attributes:
    kernel: `polynomial` or `gaussian`.
    center: c; for standardized features, the mean that is subtracted.
    scale: sqrt(d T), by which u is divided.
    constant: A / T.
    has_offset: whether p and q are nonzero; False for standardized features, whose origin is the
      center.
    factor: T^3, by which sums are multiplied in the end.
    typical: a typical summand, subtracted from each. It cancels in a distance and keeps float32
      sums small.
  """

  kernel: Kernel
  center: Float[np.ndarray, "d"]
  scale: float
  constant: float
  has_offset: bool
  factor: float
  typical: float = 0.0

  def host_rows(
    self, features: Float[np.ndarray, "n d"]
  ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n"]]:
    """Return the features and offsets of `KernelRows` in float64."""
    rows = np.asarray(features, np.float64)
    check_finite("features", rows)
    if self.kernel == "gaussian":
      return _unit(rows), np.zeros(len(rows))
    moved = (rows - self.center) / self.scale
    if not self.has_offset:
      return moved, np.zeros(len(rows))
    return moved, moved @ (self.center / self.scale)

  def host_values(
    self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
  ) -> Float[np.ndarray, "n m"]:
    """Return the matrix of summands of a few rows, in float64."""
    (first, p), (second, q) = self.host_rows(x), self.host_rows(y)
    inner = first @ second.T
    if self.kernel == "gaussian":
      return np.expm1((inner - 1) / BANDWIDTH**2) - self.typical
    return _cubic(inner, p[:, None], q, self.constant) - self.typical


def frame_of(
  x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], kernel: Kernel, standardize: bool
) -> Frame:
  """Return the frame for two sets: centered at the mean of both, or standardized by y.

  Args:
    x: checked features of the external images.
    y: checked features of the images to compare with.
    kernel: kernel to evaluate.
    standardize: for the cubic kernel: subtract y's mean and divide by y's root mean square
      deviation.

  Raises:
    UsageError: values are not finite, or y has no spread to standardize by.
  """
  width = x.shape[1]
  if kernel == "gaussian":
    frame = Frame(kernel, np.zeros(width), 1.0, 1.0, False, 1.0)
    return _with_typical(frame, x, y)
  if standardize:
    center = _mean(y)
    spread = _root_mean_square(y, center)
    if spread == 0:
      raise UsageError(
        "all images to compare with have the same features: cannot standardize by their spread"
      )
    # Mean |z|^2 / d is 1 for the test images; T keeps the cube of distant external images within
    # float32.
    size = (_root_mean_square(x, center) / spread) ** 2 + 1
    scale = spread * np.sqrt(width * size)
    frame = Frame(kernel, center, float(scale), 1 / size, False, size**3)
    return _with_typical(frame, x, y)
  center = (_mean(x) + _mean(y)) / 2
  square = np.sum(center**2) / width
  spread = (_root_mean_square(x, center) ** 2 + _root_mean_square(y, center) ** 2) / 2
  size = float(1 + square + spread)
  scale = np.sqrt(width * size)
  frame = Frame(kernel, center, float(scale), float((1 + square) / size), True, size**3)
  return _with_typical(frame, x, y)


def kernel_sums(
  x: Float[np.ndarray, "n d"],
  y: Float[np.ndarray, "m d"],
  frame: Frame,
  skip_self: bool,
  mesh: Mesh,
) -> KernelSums:
  """Return, for each row of x, the sum over y, merged over blocks in float64.

  Multiply by `frame.factor` for the unit of the kernel.

  Args:
    x: checked features; one sum per row.
    y: checked features to sum over.
    frame: coordinates of the kernel.
    skip_self: x and y are the same set; leave out the pair of a row with itself.
    mesh: devices to compute on.
  """
  program = _sums_program(mesh, frame.kernel)
  level = np.array([frame.constant, frame.typical], np.float32)
  found = []
  # Numbering y apart, not a second program, keeps the pairs of a row with itself.
  first = 0 if skip_self else APART
  others = placed_once(lambda cut: _placed(y, cut, frame, mesh, first), len(y))
  for cut in blocks(len(x)):
    rows = _placed(x, cut, frame, mesh)
    state = KernelSums(np.zeros(cut.stop - cut.start))
    for other in others():
      part = fetch(mesh, program(rows, other, level))
      state = state.merge(KernelSums(part.sums[: len(state.sums)].astype(np.float64)))
    found.append(state.sums)
  return KernelSums(np.concatenate(found))


def _placed(
  x: Float[np.ndarray, "n d"], cut: slice, frame: Frame, mesh: Mesh, first: int = 0
) -> KernelRows:
  features, offset = frame.host_rows(x[cut])
  # Padding is zero; numbering from 1 on the way in turns it into -1 below.
  number = np.arange(first + cut.start + 1, first + cut.stop + 1, dtype=np.int32)
  rows, offsets, numbers, _ = place("features", mesh, features, offset.astype(np.float32), number)
  return KernelRows(rows, offsets, numbers - 1)


def _with_typical(frame: Frame, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Frame:
  """Set `typical` to the mean summand over the first rows of both sets."""
  values = frame.host_values(x[:TYPICAL_ROWS], y[:TYPICAL_ROWS])
  return dataclasses.replace(frame, typical=float(values.mean()))


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  largest = np.abs(rows).max(axis=1, keepdims=True)
  # Dividing by the largest entry first keeps the squares from overflowing.
  scaled = rows / np.where(largest > 0, largest, 1)
  length = np.linalg.norm(scaled, axis=1, keepdims=True)
  return scaled / np.where(length > 0, length, 1)


def _mean(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d"]:
  starts = range(0, len(rows), BLOCK_ROWS)
  total = sum(np.asarray(rows[s : s + BLOCK_ROWS], np.float64).sum(axis=0) for s in starts)
  mean = np.asarray(total) / len(rows)
  check_finite("features", mean)
  return mean


def _root_mean_square(rows: Float[np.ndarray, "n d"], center: Float[np.ndarray, "d"]) -> float:
  """Return the root mean square over all entries of `rows - center`."""
  starts = range(0, len(rows), BLOCK_ROWS)
  blocks = (np.asarray(rows[s : s + BLOCK_ROWS], np.float64) - center for s in starts)
  return float(np.sqrt(sum(float(np.sum(block**2)) for block in blocks) / rows.size))


def _cubic(inner: Any, p: Any, q: Any, constant: Any) -> Any:
  """Return the cubic kernel less the terms of a single image; see the module docstring."""
  together = constant + p + q
  return 3 * p * q * (constant + together) + inner * (
    3 * together**2 + inner * (3 * together + inner)
  )


@functools.cache
def _sums_program(mesh: Mesh, kernel: Kernel) -> jax.stages.Wrapped:
  def local(x: KernelRows, y: KernelRows, level: Float[Array, "2"]) -> KernelSums:
    return KernelSums.from_batch(x, y, level, kernel, mesh.size)

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, rows, whole), out_specs=rows))


def _over_tiles(
  x: KernelRows, y: KernelRows, level: Float[Array, "2"], kernel: Kernel
) -> Float[Array, "n"]:
  """Return, for each row of x, the sum over y, holding one tile of kernel values at a time."""
  y_tiles = _row_tiles(y, COLUMN_TILE)

  def of_tiles(x: KernelRows, y: KernelRows) -> Float[Array, "t"]:
    inner = products(x.features, y.features)
    if kernel == "gaussian":
      # |a - b|^2 = 2 - 2 a . b for unit-norm rows; expm1 keeps the digits that exp(.) - 1 would
      # lose.
      values = jnp.expm1((inner - 1) / BANDWIDTH**2)
    else:
      values = _cubic(inner, x.offset[:, None], y.offset, level[0])
    real = (y.number >= 0) & (y.number != x.number[:, None])
    return jnp.sum(jnp.where(real, values - level[1], 0), axis=1)

  def of_tiles_if_any(x: KernelRows, y: KernelRows) -> Float[Array, "t"]:
    # Padding comes last, so a tile that begins with padding holds nothing else.
    has_rows = (x.number[0] >= 0) & (y.number[0] >= 0)
    return jax.lax.cond(has_rows, of_tiles, lambda x, _: jnp.zeros_like(x.offset), x, y)

  def of_row_tile(x: KernelRows) -> Float[Array, "t"]:
    return jnp.sum(jax.lax.map(lambda y: of_tiles_if_any(x, y), y_tiles), axis=0)

  return untiled(jax.lax.map(of_row_tile, _row_tiles(x, ROW_TILE)), len(x.number))


def _row_tiles(rows: KernelRows, size: int) -> KernelRows:
  """Return the rows in tiles; fill rows get number -1."""
  return KernelRows(
    tiles(rows.features, size), tiles(rows.offset, size), tiles(rows.number, size, fill=-1)
  )
