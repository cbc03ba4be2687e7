"""Mean and covariance of features, block by block, without losing digits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from genbench_jax.metrics.inputs import BLOCK_ROWS, HIGHEST, fetch, place, unit_rows
from genbench_jax.metrics.ring import tiles
from genbench_jax.runtime.mesh import DATA_AXIS, replicated

TILE_ROWS = 2048
SMALLEST_BLOCK = 128  # columns: below, a matrix unit isn't filled


class Moments(NamedTuple):
  """State: number of rows, their mean, and the sum of outer products of the deviations from it.

  Works on device arrays in float32 and on host arrays in float64 alike.
  """

  count: Float[Any, ""]
  mean: Float[Any, "d"]
  scatter: Float[Any, "d d"]

  @classmethod
  def from_batch(
    cls,
    features: Float[Array, "n d"],
    mask: Bool[Array, "n"],
    origin: Float[Array, "d"] | float = 0.0,
  ) -> "Moments":
    """Of features - origin, where the mask is True; give an origin near the mean.

    In one pass about the mean of the first rows, tile by tile, so that a CPU meets a row again in its cache.
    """
    rows, masks = tiles(features, TILE_ROWS), tiles(mask, TILE_ROWS)
    shift = _mean(rows[0] - origin, masks[0])

    def add(sums: tuple[Array, Array], tile: tuple[Array, Array]) -> tuple[Any, None]:
      deviations = jnp.where(tile[1][:, None], tile[0] - origin - shift, 0)
      return (sums[0] + jnp.sum(deviations, 0), sums[1] + _upper_gram(deviations)), None

    nothing = jnp.zeros_like(shift), jnp.zeros_like(shift, shape=(len(shift),) * 2)
    (total, upper), _ = jax.lax.scan(add, nothing, (rows, masks))
    count = jnp.sum(mask, dtype=features.dtype)
    step = total / jnp.maximum(count, 1)
    scatter = jnp.triu(upper) + jnp.triu(upper, 1).T - step[:, None] * step * count
    return cls(count, shift + step, scatter)

  def merge(self, other: "Moments") -> "Moments":
    """Of the rows of both (Chan, Golub & LeVeque 1979, eq. 2.1)."""
    count = self.count + other.count
    share = other.count / (count + (count == 0))
    step = other.mean - self.mean
    spread = step[:, None] * step * (self.count * share)
    return Moments(count, self.mean + step * share, self.scatter + other.scatter + spread)

  def over_devices(self) -> "Moments":
    """Inside shard_map: of the rows of all devices, in two all-reduces of d + 1 and d x d."""
    total = jax.lax.psum(jnp.append(self.count * self.mean, self.count), DATA_AXIS)
    mean = total[:-1] / jnp.maximum(total[-1], 1)
    step = self.mean - mean
    spread = step[:, None] * step * self.count
    return Moments(total[-1], mean, jax.lax.psum(self.scatter + spread, DATA_AXIS))

  def compute(self) -> tuple[Float[Any, "d"], Float[Any, "d d"]]:
    """Mean and unbiased covariance; needs two rows."""
    return self.mean, self.scatter / (self.count - 1)


def moments(
  name: str, features: Float[np.ndarray, "n d"], mesh: Mesh, normalize: bool = False
) -> Moments:
  """The moments of checked features in float64; of their unit-norm rows if `normalize`."""
  program = _moments_program(mesh, normalize)
  total = None
  for start in range(0, len(features), BLOCK_ROWS):
    block, mask = place(name, mesh, features[start : start + BLOCK_ROWS])
    part, shift = fetch(mesh, program(block, mask))
    count, mean, scatter = (np.asarray(array, np.float64) for array in part)
    part = Moments(count, mean + shift.astype(np.float64), scatter)
    total = part if total is None else total.merge(part)
  assert total is not None
  return total


def _mean(rows: Float[Array, "n d"], mask: Bool[Array, "n"]) -> Float[Array, "d"]:
  """Of the rows where the mask is True; zeros if there is none."""
  weights = mask.astype(rows.dtype)
  return jnp.matmul(weights, rows, precision=HIGHEST) / jnp.maximum(jnp.sum(weights), 1)


def _upper_gram(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
  """rows' rows on and above the diagonal: a little more than half of the products."""
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
  """Moments of the features less a shift, and the shift: the block's first row."""

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
