"""Bootstrap intervals: seeded, and the same whatever the devices and the padding.

A resample is a vector of weights: how often each image was drawn. Weights depend on the number of images and the
seed alone, so that all quantities of a cell, and all cells of a dataset, see the same resamples: differences
between them are paired. (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13.)
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from genbench_jax.metrics.inputs import HIGHEST, bucket_rows, or_default
from genbench_jax.metrics.strata import are_paired, centered_within
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding, pad_rows, padded_size, replicated

RESAMPLES = 1000
LEVEL = 0.95
# Weights are made in slabs of at most this many bytes.
SLAB_BYTES = 2**24
RESAMPLES_AT_ONCE = 16
ONE_A_CLASS = "one image a class does not tell how images of a class vary"


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A number and its two 95 % intervals, in the unit of the quantity.

  Attributes:
    ci_low, ci_high: for *these images*: how the value varies with the test images.
    generator_low, generator_high: for *this generator* at this budget: external images drawn anew, too. None where it
      can't be told, and then `note` says why.
    note: why an interval is missing or should not be taken at its word.
  """

  value: float
  ci_low: float
  ci_high: float
  generator_low: float | None = None
  generator_high: float | None = None
  note: str = ""


def interval(value: float, samples: Float[np.ndarray, "r"]) -> Measurement:
  """The percentile interval of the resampled values; NaN marks a resample where there is none."""
  defined = samples[~np.isnan(samples)]
  low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Measurement(value, float(low), float(high))


def weight_slabs(
  count: int, size: int, resamples: int, seed: int, mesh: Mesh
) -> Iterator[UInt8[Array, "r n"]]:
  """Weights of `count` images, padded to `size`, in slabs of resamples split over the devices."""
  in_slab = max(mesh.size, SLAB_BYTES // size // mesh.size * mesh.size)
  rows = min(in_slab, padded_size(resamples, mesh.size))
  for start in range(0, resamples, rows):
    yield _weight_slab(start, rows, count, size, seed, mesh)


@functools.lru_cache(maxsize=32)
def _weight_slab(
  start: int, rows: int, count: int, size: int, seed: int, mesh: Mesh
) -> UInt8[Array, "r n"]:
  """Kept between calls: the cells of a dataset have the same test images."""
  draw = _draw_program(mesh)
  numbers = jax.device_put(np.arange(start, start + rows, dtype=np.int32), batch_sharding(mesh))
  return draw(numbers, np.int32(count), np.uint32(seed % 2**32), size=size)


@functools.cache
def _draw_program(mesh: Mesh) -> jax.stages.Wrapped:
  def draw(
    numbers: Int[Array, "r"], count: Int[Array, ""], seed: Array, size: int
  ) -> UInt8[Array, "r n"]:
    def local(numbers: Int[Array, "r"], count: Int[Array, ""], seed: Array) -> UInt8[Array, "r n"]:
      def one(number: Int[Array, ""]) -> UInt8[Array, "n"]:
        return resample(jax.random.fold_in(jax.random.key(seed), number), count, size)

      return jax.lax.map(one, numbers, batch_size=RESAMPLES_AT_ONCE)

    specs = (PartitionSpec(DATA_AXIS), PartitionSpec(), PartitionSpec())
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA_AXIS))(
      numbers, count, seed
    )

  return jax.jit(draw, static_argnames="size")


def resample(key: Array, count: Int[Array, ""], size: int) -> UInt8[Array, "n"]:
  """How often each of `count` images is drawn in `count` draws; zero for the padding.

  Draw j depends on the key and j alone (partitionable random bits), not on the padded size.
  """
  drawn = jax.random.randint(key, (size,), 0, count)
  drawn = jnp.where(jnp.arange(size) < count, drawn, size)
  return jnp.zeros(size, jnp.uint8).at[drawn].add(jnp.uint8(1), mode="drop")


@functools.cache
def _sums_program(mesh: Mesh) -> jax.stages.Wrapped:
  def local(weights: UInt8[Array, "r n"], values: Float[Array, "n v"]) -> Float[Array, "r v"]:
    def one(row: UInt8[Array, "n"]) -> Float[Array, "v"]:
      return jnp.matmul(row.astype(jnp.float32), values, precision=HIGHEST)

    return jax.lax.map(one, weights, batch_size=RESAMPLES_AT_ONCE)

  specs = (PartitionSpec(DATA_AXIS), PartitionSpec())
  sums = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA_AXIS))
  return jax.jit(sums, out_shardings=replicated(mesh))


def resampled_means(
  values: Float[np.ndarray, "n v"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  mesh: Mesh | None = None,
) -> Float[np.ndarray, "r v"]:
  """The mean of each column in each resample of the rows."""
  mesh = or_default(mesh)
  count, size = len(values), bucket_rows(len(values), mesh.size)
  center = values.mean(0)  # float32 sums of deviations keep the digits that matter
  deviations = jax.device_put(
    pad_rows((values - center).astype(np.float32), size), replicated(mesh)
  )
  slabs = weight_slabs(count, size, resamples, seed, mesh)
  sums = [np.asarray(_sums_program(mesh)(weights, deviations)) for weights in slabs]
  return center + np.concatenate(sums)[:resamples].astype(np.float64) / count


def own_interval(
  value: float,
  influences: Float[np.ndarray, "n"],
  strata: Int[np.ndarray, "n"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  mesh: Mesh | None = None,
  lowest: float = -np.inf,
) -> Measurement:
  """The interval of a statistic of the external images alone, linear to first order in their weights.

  In a resample it moves by the mean influence of the images drawn less that of all images (Efron & Tibshirani, chapter
  21). No test image is in it, so that there is one interval only, that for this generator.

  Args:
    influences: what each image adds; for a mean, the values themselves.
    strata: images are drawn anew within these; with one image in most of them, among all, and the note says so.
    lowest: the least value the statistic can take.
  """
  paired = are_paired(strata)
  moved = centered_within(influences, strata if paired else np.zeros_like(strata))
  samples = resampled_means(moved[:, None], resamples, seed, mesh)[:, 0] - moved.mean()
  found = interval(value, np.maximum(value + samples, lowest))
  if not paired:
    return dataclasses.replace(found, note=ONE_A_CLASS)
  return dataclasses.replace(found, generator_low=found.ci_low, generator_high=found.ci_high)


def two_sided_interval(
  value: float,
  external: Float[np.ndarray, "n"] | None,
  test: Float[np.ndarray, "m"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  mesh: Mesh | None = None,
  lowest: float = -np.inf,
  shrink: tuple[float, float] = (1.0, 1.0),
) -> Measurement:
  """Both intervals of a statistic of two sets that is linear, to first order, in the weights of their images.

  Args:
    external, test: what each image adds to the statistic to first order, centered within what was drawn
      (`strata.centered_within`). No `external` where nothing is known about how it varies.
    lowest: the least value the statistic can take.
    shrink: factors on the deviations of the first and the second interval, where influences overstate them.
  """
  moved = resampled_means(test[:, None], resamples, seed, mesh)[:, 0] - test.mean()
  both = interval(value, np.maximum(value + shrink[0] * moved, lowest))
  if external is None:
    return dataclasses.replace(both, note=ONE_A_CLASS)
  drawn = resampled_means(external[:, None], resamples, seed + 1, mesh)[:, 0] - external.mean()
  wide = interval(value, np.maximum(value + shrink[1] * (moved + drawn), lowest))
  return dataclasses.replace(both, generator_low=wide.ci_low, generator_high=wide.ci_high)
