"""Mean and covariance of features, block by block, without losing digits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from genbench_jax.metrics.inputs import BLOCK_ROWS, HIGHEST, fetch, place, unit_rows
from genbench_jax.parallel.mesh import DATA_AXIS, replicated

SMALLEST_BLOCK = 128  # columns: below, a matrix unit isn't filled


class Moments(NamedTuple):
  """State: number of rows, their mean, and the sum of outer products of the deviations from it.

  Works on device arrays in float32 and on host arrays in float64 alike.
  """

  count: Float[Any, ""]
  mean: Float[Any, "d"]
  scatter: Float[Any, "d d"]

  @classmethod
  def from_batch(cls, features: Float[Array, "n d"], mask: Bool[Array, "n"]) -> "Moments":
    """Of the rows where the mask is True. Give features less a shift near their mean."""
    weights = mask.astype(features.dtype)
    count = jnp.sum(weights)
    mean = jnp.matmul(weights, features, precision=HIGHEST) / jnp.maximum(count, 1)
    deviations = jnp.where(mask[:, None], features - mean, 0)
    return cls(count, mean, _gram(deviations))

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


def _gram(rows: Float[Array, "n d"]) -> Float[Array, "d d"]:
  """rows' rows, of which the blocks below the diagonal are mirrored, not computed."""
  width = rows.shape[1]
  size = max(-(-width // 4), SMALLEST_BLOCK)
  strips = [
    jnp.matmul(rows[:, start : start + size].T, rows[:, start:], precision=HIGHEST)
    for start in range(0, width, size)
  ]
  padded = [jnp.pad(strip, ((0, 0), (width - strip.shape[1], 0))) for strip in strips]
  upper = jnp.triu(jnp.concatenate(padded))
  return upper + jnp.triu(upper, 1).T


@functools.cache
def _moments_program(mesh: Mesh, normalize: bool) -> jax.stages.Wrapped:
  """Moments of the features less a shift, and the shift: the block's first row."""

  def local(
    features: Float[Array, "n d"], mask: Bool[Array, "n"], shift: Float[Array, "d"]
  ) -> Moments:
    features = unit_rows(features) if normalize else features
    return Moments.from_batch(features - shift, mask).over_devices()

  def program(
    features: Float[Array, "n d"], mask: Bool[Array, "n"]
  ) -> tuple[Moments, Float[Array, "d"]]:
    shift = unit_rows(features[:1])[0] if normalize else features[0]
    rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    of_all = jax.shard_map(local, mesh=mesh, in_specs=(rows, rows, whole), out_specs=whole)
    return of_all(features, mask, shift), shift

  return jax.jit(program, out_shardings=replicated(mesh))
