"""Seeded bootstrap intervals that do not depend on the number of devices or on padding.

A resample is a vector of weights: how often each image was drawn. The weights depend only on the
number of images and the seed. All quantities of a cell, and all cells of a dataset, therefore share
their resamples, and differences between them are paired (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 6 and 13).
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
# Weights are generated in slabs of at most this many bytes.
SLAB_BYTES = 2**24
RESAMPLES_AT_ONCE = 16
ONE_A_CLASS = "with one image per class, the variation within classes is unknown"


@dataclasses.dataclass(frozen=True)
class Measurement:
  """A value and its two 95 % intervals, in the unit of the quantity.

  Attributes:
    value: the point estimate.
    ci_low, ci_high: interval for *these images*: only the test images vary.
    generator_low, generator_high: interval for *this generator* at this budget: external images
      vary, too. None if unknown; `note` then says why.
    note: why an interval is missing or should be read with care.
  """

  value: float
  ci_low: float
  ci_high: float
  generator_low: float | None = None
  generator_high: float | None = None
  note: str = ""


def interval(value: float, samples: Float[np.ndarray, "r"]) -> Measurement:
  """Return the percentile interval of resampled values; NaN marks an undefined resample."""
  defined = samples[~np.isnan(samples)]
  # Percentile interval (Efron & Tibshirani, chapter 13).
  low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Measurement(value, float(low), float(high))


def weight_slabs(
  count: int, size: int, resamples: int, seed: int, mesh: Mesh
) -> Iterator[UInt8[Array, "r n"]]:
  """Yield weights of `count` images, padded to `size`, in slabs of resamples.

  Args:
    count: number of images.
    size: padded number of images.
    resamples: number of resamples; the last slab may exceed it.
    seed: of the draws.
    mesh: devices to generate on.
  """
  in_slab = max(mesh.size, SLAB_BYTES // size // mesh.size * mesh.size)
  rows = min(in_slab, padded_size(resamples, mesh.size))
  for start in range(0, resamples, rows):
    yield _weight_slab(start, rows, count, size, seed, mesh)


@functools.lru_cache(maxsize=32)
def _weight_slab(
  start: int, rows: int, count: int, size: int, seed: int, mesh: Mesh
) -> UInt8[Array, "r n"]:
  # Cached because the cells of a dataset share their test images.
  draw = _draw_program(mesh)
  numbers = jax.device_put(np.arange(start, start + rows, dtype=np.int32), batch_sharding(mesh))
  return draw(numbers, np.int32(count), np.uint32(seed % 2**32), size=size)


@functools.cache
def _draw_program(mesh: Mesh) -> jax.stages.Wrapped:
  def draw(
    numbers: Int[Array, "r"], count: Int[Array, ""], seed: Array, size: int
  ) -> UInt8[Array, "r n"]:
    def local(numbers: Int[Array, "r"], count: Int[Array, ""], seed: Array) -> UInt8[Array, "r n"]:
      def draw_resample(number: Int[Array, ""]) -> UInt8[Array, "n"]:
        return resample(jax.random.fold_in(jax.random.key(seed), number), count, size)

      return jax.lax.map(draw_resample, numbers, batch_size=RESAMPLES_AT_ONCE)

    specs = (PartitionSpec(DATA_AXIS), PartitionSpec(), PartitionSpec())
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA_AXIS))(
      numbers, count, seed
    )

  return jax.jit(draw, static_argnames="size")


def resample(key: Array, count: Int[Array, ""], size: int) -> UInt8[Array, "n"]:
  """Return how often each of `count` images occurs in `count` draws; padding has zero.

  Draw j depends only on the key and j, not on the padded size (`jax_threefry_partitionable`).

  Args:
    key: random key of the resample.
    count: number of images.
    size: padded number of images.
  """
  drawn = jax.random.randint(key, (size,), 0, count)
  drawn = jnp.where(jnp.arange(size) < count, drawn, size)
  # uint8 is enough: the chance that an image is drawn 256 times among n is below 1e-500.
  return jnp.zeros(size, jnp.uint8).at[drawn].add(jnp.uint8(1), mode="drop")


@functools.cache
def _sums_program(mesh: Mesh) -> jax.stages.Wrapped:
  def local(weights: UInt8[Array, "r n"], values: Float[Array, "n v"]) -> Float[Array, "r v"]:
    def weighted_sums(row: UInt8[Array, "n"]) -> Float[Array, "v"]:
      return jnp.matmul(row.astype(jnp.float32), values, precision=HIGHEST)

    return jax.lax.map(weighted_sums, weights, batch_size=RESAMPLES_AT_ONCE)

  specs = (PartitionSpec(DATA_AXIS), PartitionSpec())
  sums = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA_AXIS))
  return jax.jit(sums, out_shardings=replicated(mesh))


def resampled_means(
  values: Float[np.ndarray, "n v"],
  resamples: int = RESAMPLES,
  seed: int = 0,
  mesh: Mesh | None = None,
) -> Float[np.ndarray, "r v"]:
  """Return the mean of each column in each resample of the rows.

  Args:
    values: one row per image.
    resamples: number of resamples.
    seed: of the draws.
    mesh: devices to compute on; None for all.
  """
  mesh = or_default(mesh)
  count, size = len(values), bucket_rows(len(values), mesh.size)
  # Sums run in float32; centering first keeps the digits that vary between resamples.
  center = values.mean(0)
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
  """Return the interval of a statistic of the external images alone, linearized in their weights.

  In a resample the statistic moves by the mean influence of the drawn images minus the mean
  influence of all images (Efron & Tibshirani, chapter 21). No test image is involved, so both
  intervals are the same.

  Args:
    value: the statistic of all images.
    influences: influence of each image; for a mean, the values themselves.
    strata: images are resampled within strata. If most strata have one image, all are resampled
      together, the generator interval is missing, and the note says so.
    resamples: number of resamples.
    seed: of the draws.
    mesh: devices to compute on; None for all.
    lowest: smallest possible value of the statistic.
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
  """Return both intervals of a statistic of two sets, linearized in the weights of their images.

  Args:
    value: the statistic of all images.
    external: influence of each external image, centered within strata (`strata.centered_within`);
      None if the variation of external images is unknown.
    test: influence of each test image, centered within strata.
    resamples: number of resamples.
    seed: of the draws.
    mesh: devices to compute on; None for all.
    lowest: smallest possible value of the statistic.
    shrink: factors on the deviations of the first and of the second interval, for influences that
      overstate them.
  """
  moved = resampled_means(test[:, None], resamples, seed, mesh)[:, 0] - test.mean()
  both = interval(value, np.maximum(value + shrink[0] * moved, lowest))
  if external is None:
    return dataclasses.replace(both, note=ONE_A_CLASS)
  # Another seed: external and test images are drawn independently.
  drawn = resampled_means(external[:, None], resamples, seed + 1, mesh)[:, 0] - external.mean()
  wide = interval(value, np.maximum(value + shrink[1] * (moved + drawn), lowest))
  return dataclasses.replace(both, generator_low=wide.ci_low, generator_high=wide.ci_high)
