"""Mean and covariance of features, computed block by block without cancellation."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from genbench_jax.metrics.inputs import HIGHEST, blocks, fetch, place, unit_rows
from genbench_jax.metrics.ring import tiles
from genbench_jax.runtime.mesh import DATA_AXIS, replicated

TILE_ROWS = 2048
# Columns of a strip of the Gram matrix. Narrower products leave the matrix unit idle.
SMALLEST_BLOCK = 128


class Moments(NamedTuple):
  """Mergeable state: row count, mean, and scatter (sum of (x - mean)(x - mean)').

  The methods work on device arrays in float32 and on host arrays in float64.
  """

  count: Float[Any, ""]
  mean: Float[Any, "d"]
  scatter: Float[Any, "d d"]

  @classmethod
  def from_batch(
    cls,
    features: Float[Array | np.ndarray, "n d"],
    mask: Bool[Array | np.ndarray, "n"],
    origin: Float[Array | np.ndarray, "d"] | float = 0.0,
  ) -> "Moments":
    """Return the moments of `features - origin` over the rows where the mask is True.

    Shifting by a row near the mean keeps the squares small: without it, float32 cancels when |mean|
    >> spread. One pass, tile by tile, so that a tile is still in a CPU's cache when it is used the
    second time.

    Args:
      features: rows, [n, d].
      mask: True for real rows.
      origin: a point near the mean.
    """
    rows, masks = tiles(features, TILE_ROWS), tiles(mask, TILE_ROWS)
    shift = _mean(rows[0] - origin, masks[0])

    def add(sums: tuple[Array, Array], tile: tuple[Array, Array]) -> tuple[Any, None]:
      deviations = jnp.where(tile[1][:, None], tile[0] - origin - shift, 0)
      return (sums[0] + jnp.sum(deviations, 0), sums[1] + _upper_gram(deviations)), None

    # Only the upper triangle of the scatter is accumulated.
    nothing = jnp.zeros_like(shift), jnp.zeros_like(shift, shape=(len(shift),) * 2)
    (total, upper), _ = jax.lax.scan(add, nothing, (rows, masks))
    count = jnp.sum(mask, dtype=features.dtype)
    # sum (x - s)(x - s)' = scatter + n (m - s)(m - s)', with s the shift and m the mean.
    step = total / jnp.maximum(count, 1)
    scatter = jnp.triu(upper) + jnp.triu(upper, 1).T - step[:, None] * step * count
    return cls(count, shift + step, scatter)

  def merge(self, other: "Moments") -> "Moments":
    """Return the moments of the union (Chan, Golub & LeVeque 1979, eq. 2.1)."""
    count = self.count + other.count
    share = other.count / (count + (count == 0))  # two empty states give 0, not NaN
    step = other.mean - self.mean
    spread = step[:, None] * step * (self.count * share)
    return Moments(count, self.mean + step * share, self.scatter + other.scatter + spread)

  def over_devices(self) -> "Moments":
    """Return the moments over all devices, inside shard_map, in all-reduces of d + 1 and d x d."""
    total = jax.lax.psum(jnp.append(self.count * self.mean, self.count), DATA_AXIS)
    mean = total[:-1] / jnp.maximum(total[-1], 1)
    step = self.mean - mean
    spread = step[:, None] * step * self.count
    return Moments(total[-1], mean, jax.lax.psum(self.scatter + spread, DATA_AXIS))

  def compute(self) -> tuple[Float[Any, "d"], Float[Any, "d d"]]:
    """Return the mean and the unbiased covariance; needs at least two rows."""
    return self.mean, self.scatter / (self.count - 1)


def moments(
  name: str, features: Float[np.ndarray, "n d"], mesh: Mesh, normalize: bool = False
) -> Moments:
  """Compute the moments of checked features in float64.

  Args:
    name: name of the features for error messages.
    features: checked features on the host.
    mesh: devices to compute on.
    normalize: scale each row to unit length first.
  """
  program = _moments_program(mesh, normalize)
  total = None
  for cut in blocks(len(features)):
    block, mask = place(name, mesh, features[cut])
    # Blocks are summed in float32 on the devices and merged in float64 on the host.
    part, shift = fetch(mesh, program(block, mask))
    count, mean, scatter = (np.asarray(array, np.float64) for array in part)
    part = Moments(count, mean + shift.astype(np.float64), scatter)
    total = part if total is None else total.merge(part)
  assert total is not None
  return total


def _mean(rows: Float[Array, "n d"], mask: Bool[Array, "n"]) -> Float[Array, "d"]:
  """Return the masked mean; zeros if no row is real."""
  weights = mask.astype(rows.dtype)
  return jnp.matmul(weights, rows, precision=HIGHEST) / jnp.maximum(jnp.sum(weights), 1)


def _upper_gram(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
  """Return rows' rows on and above the diagonal: 5/8 of the products of the full Gram matrix."""
  width = rows.shape[1]
  size = max(-(-width // 4), SMALLEST_BLOCK)
  strips = [
    jnp.matmul(rows[:, start : start + size].T, rows[:, start:], precision=HIGHEST)
    for start in range(0, width, size)
  ]
  return jnp.concatenate(
    [jnp.pad(strip, ((0, 0), (width - strip.shape[1], 0))) for strip in strips]
  )


@functools.cache
def _moments_program(mesh: Mesh, normalize: bool) -> jax.stages.Wrapped:
  """Return a program for the moments of `features - shift` and the shift, the block's first row."""

  def local(
    features: Float[Array, "n d"], mask: Bool[Array, "n"], shift: Float[Array, "d"]
  ) -> Moments:
    features = unit_rows(features) if normalize else features
    return Moments.from_batch(features, mask, shift).over_devices()

  def program(
    features: Float[Array, "n d"], mask: Bool[Array, "n"]
  ) -> tuple[Moments, Float[Array, "d"]]:
    shift = unit_rows(features[:1])[0] if normalize else features[0]
    rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    of_all = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows, whole), out_specs=whole)
    return of_all(features, mask, shift), shift

  return jax.jit(program, out_shardings=replicated(mesh))
