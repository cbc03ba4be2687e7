"""Precision, recall, density and coverage: fidelity and diversity of generated images.

The manifold of a set is the union of balls around its images; the radius is the distance to the
k-th nearest other image of the set. A point lies in a ball if its distance to the center is smaller
than the radius by more than float32 rounding.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import ONE_A_CLASS, RESAMPLES, Measurement
from genbench_jax.metrics.class_distances import means_by_class
from genbench_jax.metrics.half_samples import REPEATS
from genbench_jax.metrics.inputs import (
  BLOCK_ROWS,
  blocks,
  check_finite,
  common_scale,
  feature_rows,
  fetch,
  host_unit_rows,
  or_default,
  place,
  placed_once,
  rows_of_classes,
)
from genbench_jax.metrics.intervals import wilson
from genbench_jax.metrics.manifold_spread import Spread, spread_of, squared_distances
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.ring import COLUMN_TILE, ROW_TILE, products, ring, tiles, untiled
from genbench_jax.metrics.strata import are_paired, sampled_strata, strata_of
from genbench_jax.runtime.mesh import DATA_AXIS
from genbench_jax.runtime.protocol import NORMAL

# Neighbors that define a radius in the benchmark.
NEIGHBORS = 5
# A squared distance |a|^2 + |b|^2 - 2 a . b inherits a few units in the last place from the squared
# lengths.
ROUNDING = 16 * np.finfo(np.float32).eps
# Up to this many pairs per class are computed on the host: there are many classes, and each is
# small.
HOST_PAIRS = 2**20


@dataclasses.dataclass(frozen=True)
class ManifoldResult:
  """The four metrics with their intervals, and the coverage of each class.

  Attributes:
    scores: `precision` and `density` are means over generated images, `recall` and `coverage` over
      real ones. The first interval redraws the real images, the second both sets.
    per_class: coverage of the real images of each class by generated images of that class, with
      radii within the class; 0 for a class without generated images. A class with one real image
      has no radius and is left out.
  """

  scores: dict[str, Measurement]
  per_class: dict[int, float]
  means_by_class: dict[str, dict[int, float]] = dataclasses.field(default_factory=dict)


class Balls(NamedTuple):
  """Centers, and squared radii (negative for padding)."""

  centers: Float[Any, "n d"]
  radii: Float[Any, "n"]


def precision_recall_density_coverage(
  real: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  k: int = 5,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Compute the four metrics (Kynkäänniemi et al. 2019; Naeem et al. 2020, eqs. 3, 4, 8 and 9).

    precision  share of generated images in the real manifold
    recall     share of real images in the generated manifold
    density    mean number of real balls that hold a generated image, over k; may exceed 1
    coverage   share of real images whose ball holds a generated image

  Args:
    real, generated: features, not normalized; distances are Euclidean.
    k: neighbors that define a radius.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or a set has at most k images.
  """
  inside = _inside(*_checked(real, generated, k), k, or_default(mesh))
  return {name: float(values.mean()) for name, values in inside.items()}


def measure_manifold(
  real: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  k: int = 5,
  labels: tuple[Any, Any] | None = None,
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
) -> ManifoldResult:
  """Measure the four metrics with intervals and, given labels, coverage by class.

  Args:
    real, generated, k, mesh: see `precision_recall_density_coverage`.
    labels: classes of the real and of the generated images, indices or multi-hot.
    seed: of the halves behind the intervals.
    resamples: number of halves, at most `REPEATS`.

  Raises:
    UsageError: as `precision_recall_density_coverage`.
  """
  mesh = or_default(mesh)
  real, generated = _checked(real, generated, k)
  inside = _inside(real, generated, k, mesh)
  real_labels, generated_labels = labels or (None, None)
  strata = sampled_strata(real_labels, len(real)), strata_of(generated_labels, len(generated))
  found = spread_of(real, generated, *strata, k, seed, min(resamples, REPEATS))
  known = are_paired(strata[1])
  scores = {name: _measurement(name, values, found, known) for name, values in inside.items()}
  if labels is None:
    return ManifoldResult(scores, {})
  per_class = _coverage_by_class(real, generated, *labels, k, mesh)
  means = {
    name: means_by_class(values, real_labels if name == "recall" else generated_labels)
    for name, values in inside.items()
    if name != "coverage"
  }
  return ManifoldResult(scores, per_class, means)


def _measurement(
  name: str, values: Float[np.ndarray, "images"], spread: Spread | None, known: bool
) -> Measurement:
  """Return Wilson's interval for fractions and the normal one for density."""
  value, alone = float(values.mean()), float(values.var()) / len(values)
  both = alone * spread.both[name] if spread else alone
  test = both * spread.test[name] if spread else alone

  def around(variance: float) -> tuple[float, float]:
    if name != "density":
      return wilson(value, variance, len(values))
    half = NORMAL * float(np.sqrt(variance))
    return max(value - half, 0.0), value + half

  found = Measurement(value, *around(test))
  if spread is None:
    return dataclasses.replace(found, note="too few images to estimate how the balls vary")
  if not known:
    return dataclasses.replace(found, note=ONE_A_CLASS)
  low, high = around(both)
  return dataclasses.replace(found, generator_low=low, generator_high=high)


def _checked(real: Any, generated: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
  real = feature_rows("real", real)
  generated = feature_rows("generated", generated, real.shape[1])
  fewest = min(len(real), len(generated))
  if not 1 <= k < fewest:
    raise UsageError(
      f"k={k} neighbors need at least k + 1 images per set, got {len(real)} and {len(generated)}"
    )
  scale = common_scale(real, generated)
  return (real, generated) if scale == 1 else (real / scale, generated / scale)


def _inside(
  real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"], k: int, mesh: Mesh
) -> dict[str, Float[np.ndarray, "images"]]:
  """Return the per-image values whose means are the four metrics."""
  real, generated = _near_zero(real, generated)
  real_balls = Balls(real, _radii(real, k, mesh))
  generated_balls = Balls(generated, _radii(generated, k, mesh))
  in_real, in_generated, covered = _cross(real_balls, generated_balls, mesh)
  return {
    "precision": (in_real > 0).astype(np.float64),
    "recall": in_generated.astype(np.float64),
    "density": in_real / k,
    "coverage": covered.astype(np.float64),
  }


def _near_zero(
  real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
  """Shift both sets by the mean of the first real block, where squared distances cancel least."""
  shift = np.asarray(real[:BLOCK_ROWS], np.float64).mean(0).astype(np.float32)
  return np.asarray(real, np.float32) - shift, np.asarray(generated, np.float32) - shift


def _radii(features: Float[np.ndarray, "n d"], k: int, mesh: Mesh) -> Float[np.ndarray, "n"]:
  """Return the squared distance to the k-th nearest other row."""
  similarity, _ = nearest(features, features, k, "euclidean", skip_self=True, mesh=mesh)
  return -similarity[:, -1]


def _cross(
  real: Balls, generated: Balls, mesh: Mesh
) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
  """Compare all pairs of images and balls.

  Returns:
    For each generated image, the number of real balls that hold it; for each real image, whether a
    generated ball holds it, and whether its own ball holds a generated image.
  """
  program = _cross_program(mesh)
  # Counts add over the blocks of real images; memberships are joined by "or".
  counts = np.zeros(len(generated.radii), np.int64)
  in_generated, covered = np.zeros((2, len(real.radii)), bool)
  others = placed_once(lambda cut: _placed(generated, cut, mesh), len(generated.radii))
  for cut in blocks(len(real.radii)):
    block, rows = _placed(real, cut, mesh)
    for other, other_rows in others():
      count, inside, holds = fetch(mesh, program(block, other))
      counts[other_rows] += count[: len(counts[other_rows])]
      in_generated[rows] |= inside[: len(in_generated[rows])]
      covered[rows] |= holds[: len(covered[rows])]
  return counts, in_generated, covered


def balls_held(
  centers: Float[np.ndarray, "n d"],
  radii: Float[np.ndarray, "n"],
  points: Float[np.ndarray, "m d"],
  mesh: Mesh,
) -> Int[np.ndarray, "m"]:
  """Return the number of balls that hold each point.

  Args:
    centers: centers of the balls.
    radii: squared radii.
    points: points to test.
    mesh: devices to compute on.
  """
  nothing = np.zeros(len(points), np.float32)
  # A point is a ball of radius zero.
  balls = Balls(centers, np.asarray(radii, np.float32))
  return _cross(balls, Balls(points, nothing), mesh)[0]


def _placed(balls: Balls, rows: slice, mesh: Mesh) -> tuple[Balls, slice]:
  centers, radii, mask = place("features", mesh, balls.centers[rows], balls.radii[rows])
  return Balls(centers, jnp.where(mask, radii, -1)), rows


@functools.cache
def _cross_program(mesh: Mesh) -> jax.stages.Wrapped:
  """Return the program for one pass over all pairs of balls."""

  def local(real: Balls, generated: Balls) -> tuple[Array, Array, Array]:
    def visit(state: tuple[Array, Array], block: tuple[Balls, Array]) -> Any:
      balls, count = block
      added, inside, holds = cross_block(real, balls)
      return (state[0] | inside, state[1] | holds), (balls, count + added)

    nothing = jax.lax.pcast(jnp.zeros(len(real.radii), bool), DATA_AXIS, to="varying")
    none = jax.lax.pcast(jnp.zeros(len(generated.radii), jnp.int32), DATA_AXIS, to="varying")
    state, (_, count) = ring(visit, (nothing, nothing), (generated, none), mesh.size)
    return count, *state

  rows = PartitionSpec(DATA_AXIS)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows))


def cross_block(
  real: Balls, generated: Balls
) -> tuple[Int[Array, "m"], Bool[Array, "n"], Bool[Array, "n"]]:
  """Compute `_cross` for the rows of one device and one visiting block."""
  visiting = _ball_tiles(generated, COLUMN_TILE)

  def visit_real_tile(count: Int[Array, "t c"], real: Balls) -> tuple[Array, tuple[Array, Array]]:
    def compare(generated: Balls) -> tuple[Array, Array, Array]:
      in_real, in_generated = memberships(real, generated)
      return in_real.sum(0, dtype=jnp.int32), in_generated.any(1), in_real.any(1)

    def nothing(generated: Balls) -> tuple[Array, Array, Array]:
      nowhere = jnp.zeros_like(real.radii, bool)
      return jnp.zeros_like(generated.radii, jnp.int32), nowhere, nowhere

    def compare_if_any(generated: Balls) -> tuple[Array, Array, Array]:
      # Padding comes last, so a tile that begins with padding holds nothing else.
      has_rows = (real.radii[0] >= 0) & (generated.radii[0] >= 0)
      return jax.lax.cond(has_rows, compare, nothing, generated)

    added, inside, holds = jax.lax.map(compare_if_any, visiting)
    return count + added, (inside.any(0), holds.any(0))

  start = jax.lax.pcast(jnp.zeros(visiting.radii.shape, jnp.int32), DATA_AXIS, to="varying")
  count, (inside, holds) = jax.lax.scan(visit_real_tile, start, _ball_tiles(real, ROW_TILE))
  size = len(real.radii)
  return untiled(count, len(generated.radii)), untiled(inside, size), untiled(holds, size)


def _ball_tiles(balls: Balls, size: int) -> Balls:
  return Balls(tiles(balls.centers, size), tiles(balls.radii, size, fill=-1))


def memberships(real: Balls, generated: Balls) -> tuple[Bool[Array, "r g"], Bool[Array, "r g"]]:
  """Return which generated images lie in which real balls, and vice versa."""
  real_lengths, generated_lengths = (jnp.sum(balls.centers**2, 1) for balls in (real, generated))
  lengths = real_lengths[:, None] + generated_lengths
  # Overestimating the distance by its rounding error keeps points on the boundary outside, on every
  # device.
  distance = lengths * (1 + ROUNDING) - 2 * products(real.centers, generated.centers)
  both = (real.radii >= 0)[:, None] & (generated.radii >= 0)
  return both & (distance < real.radii[:, None]), both & (distance < generated.radii)


def _coverage_by_class(
  real: Float[np.ndarray, "n d"],
  generated: Float[np.ndarray, "m d"],
  real_labels: Any,
  generated_labels: Any,
  k: int,
  mesh: Mesh,
) -> dict[int, float]:
  real_rows, generated_rows = rows_of_classes(real_labels), rows_of_classes(generated_labels)
  for rows, images in ((real_labels, real), (generated_labels, generated)):
    if len(rows) != len(images):
      raise UsageError(f"every image needs its label: got {len(rows)} for {len(images)}")
  return {
    c: _coverage(real[own], generated[generated_rows.get(c, [])], k, mesh)
    for c, own in real_rows.items()
    if len(own) > 1
  }


def _coverage(
  real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"], k: int, mesh: Mesh
) -> float:
  """Return the coverage of one class; up to k real images, the farthest defines the radius."""
  if not len(generated):
    return 0.0
  real, generated = _near_zero(real, generated)
  k = min(k, len(real) - 1)
  if len(real) * max(len(real), len(generated)) <= HOST_PAIRS:
    return _coverage_of_few(real, generated, k)
  closest, _ = nearest(real, generated, 1, "euclidean", mesh=mesh)
  return float(np.mean(-closest[:, 0] < _radii(real, k, mesh)))


def _coverage_of_few(
  real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"], k: int
) -> float:
  check_finite("features", real)
  check_finite("features", generated)
  within = squared_distances(real, real)
  np.fill_diagonal(within, np.inf)
  radii = np.partition(within, k - 1, axis=1)[:, k - 1]
  return float(np.mean(squared_distances(real, generated).min(1) < radii))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield the four metrics on unit-norm features, if both sets have enough images."""
  generated, real = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(real), len(generated)) > NEIGHBORS:
    labels = (sets.test_labels, sets.labels)
    found = measure_manifold(
      real, generated, NEIGHBORS, labels, sets.seed, sets.resamples, sets.mesh
    )
    for name, value in found.scores.items():
      by_class = found.per_class if name == "coverage" else found.means_by_class[name]
      yield Result(name, value, by_class)
