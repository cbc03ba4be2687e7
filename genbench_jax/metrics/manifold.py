"""Precision, recall, density and coverage: do the generated images lie among the real ones, and reach all of them?

The manifold of a set is the union of balls, one around each image, that reach to its k-th nearest other image of the set.
An image lies in a ball if its distance from the center is smaller than the radius, beyond the rounding of float32.
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
from genbench_jax.metrics.half_samples import REPEATS
from genbench_jax.metrics.inputs import (
  BLOCK_ROWS,
  check_finite,
  common_scale,
  feature_rows,
  fetch,
  host_unit_rows,
  or_default,
  place,
  rows_of_classes,
)
from genbench_jax.metrics.intervals import NORMAL, wilson
from genbench_jax.metrics.manifold_spread import Spread, spread_of, squared_distances
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.ring import COLUMN_TILE, ROW_TILE, products, ring, tiles, untiled
from genbench_jax.metrics.strata import are_paired, sampled_strata, strata_of
from genbench_jax.runtime.mesh import DATA_AXIS

NAMES = ("precision", "recall", "density", "coverage")
# That make a radius in the benchmark.
NEIGHBORS = 5
# A squared distance comes from squared lengths, each with a rounding error of a few units in the last place.
ROUNDING = 16 * np.finfo(np.float32).eps
# Up to this many pairs of images of a class are measured on the host: a class is small, and classes are many.
HOST_PAIRS = 2**20


@dataclasses.dataclass(frozen=True)
class ManifoldResult:
  """The four numbers with their intervals, and the coverage of each class.

  Attributes:
    scores: `precision` and `density` are means over the generated images, `recall` and `coverage` over the real ones.
      The first interval has the real images drawn anew, the second both sets.
    per_class: class -> coverage of its real images by generated images of the class, radii within the class; 0 where
      nothing was generated; classes with a single real image have no radius and are left out.
  """

  scores: dict[str, Measurement]
  per_class: dict[int, float]


class Balls(NamedTuple):
  """Centers, squared radii less their rounding (negative for padding)."""

  centers: Float[Any, "n d"]
  radii: Float[Any, "n"]


def precision_recall_density_coverage(
  real: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  k: int = 5,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """The four numbers by name (Kynkäänniemi et al. 2019; Naeem et al. 2020, eqs. 3, 4, 8 and 9).

    precision  share of generated images in the real manifold
    recall     share of real images in the generated manifold
    density    mean number of real balls a generated image lies in, over k; may exceed 1
    coverage   share of real images whose ball holds a generated image

  Args:
    real, generated: features as they are; distances are Euclidean.
    k: neighbors that make a radius.

  Raises:
    UsageError: shapes or values that do not fit, or not more than k images in a set.
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
  """The same with intervals and, given labels, coverage by class.

  Args:
    real, generated, k: see `precision_recall_density_coverage`.
    labels: of the real and of the generated images, class indices or multi-hot.
    seed: draws halves of both sets, whose spread the intervals need; resamples: at most so many, 60 are enough.
  """
  mesh = or_default(mesh)
  real, generated = _checked(real, generated, k)
  inside = _inside(real, generated, k, mesh)
  real_labels, generated_labels = labels or (None, None)
  strata = sampled_strata(real_labels, len(real)), strata_of(generated_labels, len(generated))
  found = spread_of(real, generated, *strata, k, seed, min(resamples, REPEATS))
  known = are_paired(strata[1])
  scores = {name: _measurement(name, each, found, known) for name, each in inside.items()}
  per_class = {} if labels is None else _coverage_by_class(real, generated, *labels, k, mesh)
  return ManifoldResult(scores, per_class)


def _measurement(
  name: str, values: Float[np.ndarray, "images"], spread: Spread | None, known: bool
) -> Measurement:
  """Wilson's interval for fractions, the normal one for density; see `manifold_spread` for the variances."""
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
    return dataclasses.replace(found, note="too few images to tell how the balls vary")
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
      f"k={k} neighbors need k + 1 images or more in each set, got {len(real)} and {len(generated)}"
    )
  scale = common_scale(real, generated)
  return (real, generated) if scale == 1 else (real / scale, generated / scale)


def _inside(
  real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "m d"], k: int, mesh: Mesh
) -> dict[str, Float[np.ndarray, "images"]]:
  """What each of the four numbers is the mean of."""
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
  """Both sets moved to where distances are most exact."""
  shift = np.asarray(real[:BLOCK_ROWS], np.float64).mean(0).astype(np.float32)
  return np.asarray(real, np.float32) - shift, np.asarray(generated, np.float32) - shift


def _radii(features: Float[np.ndarray, "n d"], k: int, mesh: Mesh) -> Float[np.ndarray, "n"]:
  """Squared distance to the k-th nearest other row."""
  similarity, _ = nearest(features, features, k, "euclidean", skip_self=True, mesh=mesh)
  return -similarity[:, -1]


def _cross(
  real: Balls, generated: Balls, mesh: Mesh
) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
  """Real balls each generated image lies in; real images in a generated ball; real balls that hold one."""
  program = _cross_program(mesh)
  counts = np.zeros(len(generated.radii), np.int64)
  in_generated, covered = np.zeros((2, len(real.radii)), bool)
  for start in range(0, len(real.radii), BLOCK_ROWS):
    block, rows = _placed(real, start, mesh)
    for other_start in range(0, len(generated.radii), BLOCK_ROWS):
      other, other_rows = _placed(generated, other_start, mesh)
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
  """In how many balls of these squared radii each point lies."""
  nothing = np.zeros(len(points), np.float32)
  balls = Balls(centers, np.asarray(radii, np.float32))
  return _cross(balls, Balls(points, nothing), mesh)[0]


def _placed(balls: Balls, start: int, mesh: Mesh) -> tuple[Balls, slice]:
  rows = slice(start, start + BLOCK_ROWS)
  centers, radii, mask = place("features", mesh, balls.centers[rows], balls.radii[rows])
  return Balls(centers, jnp.where(mask, radii, -1)), rows


@functools.cache
def _cross_program(mesh: Mesh) -> jax.stages.Wrapped:
  """One pass over all pairs. The counts of the generated images travel with them round the ring."""

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
  """`_cross` for the rows of one device and one visiting block."""
  visiting = _ball_tiles(generated, COLUMN_TILE)

  def one_real_tile(count: Int[Array, "t c"], real: Balls) -> tuple[Array, tuple[Array, Array]]:
    def one(generated: Balls) -> tuple[Array, Array, Array]:
      in_real, in_generated = memberships(real, generated)
      return in_real.sum(0, dtype=jnp.int32), in_generated.any(1), in_real.any(1)

    def nothing(generated: Balls) -> tuple[Array, Array, Array]:
      nowhere = jnp.zeros_like(real.radii, bool)
      return jnp.zeros_like(generated.radii, jnp.int32), nowhere, nowhere

    def one_if_any(generated: Balls) -> tuple[Array, Array, Array]:
      # Padding comes last: a tile that begins with it holds nothing else.
      some = (real.radii[0] >= 0) & (generated.radii[0] >= 0)
      return jax.lax.cond(some, one, nothing, generated)

    added, inside, holds = jax.lax.map(one_if_any, visiting)
    return count + added, (inside.any(0), holds.any(0))

  start = jax.lax.pcast(jnp.zeros(visiting.radii.shape, jnp.int32), DATA_AXIS, to="varying")
  count, (inside, holds) = jax.lax.scan(one_real_tile, start, _ball_tiles(real, ROW_TILE))
  size = len(real.radii)
  return untiled(count, len(generated.radii)), untiled(inside, size), untiled(holds, size)


def _ball_tiles(balls: Balls, size: int) -> Balls:
  return Balls(tiles(balls.centers, size), tiles(balls.radii, size, fill=-1))


def memberships(real: Balls, generated: Balls) -> tuple[Bool[Array, "r g"], Bool[Array, "r g"]]:
  """Whether the generated image lies in the real ball, and the real image in the generated ball."""
  real_lengths, generated_lengths = (jnp.sum(balls.centers**2, 1) for balls in (real, generated))
  lengths = real_lengths[:, None] + generated_lengths
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
  """Coverage of one class; in a class of k images or fewer the farthest makes the radius."""
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
  """For the registry: of unit-norm features, where both sets have more images than neighbors are asked for."""
  generated, real = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(real), len(generated)) > NEIGHBORS:
    labels = (sets.test_labels, sets.labels)
    found = measure_manifold(
      real, generated, NEIGHBORS, labels, sets.seed, sets.resamples, sets.mesh
    )
    for name, value in found.scores.items():
      yield Result(name, value, found.per_class if name == "coverage" else {})
