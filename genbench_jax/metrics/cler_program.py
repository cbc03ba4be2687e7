"""The device programs of CLER: one reduction over the sharded features, and what crosses devices in it."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.class_scores import (
  ClassSums,
  Neighbors,
  class_cosines,
  class_prototypes,
  predicted_classes,
  votes,
)
from genbench_jax.runtime.mesh import DATA_AXIS

TEST_ROWS_AT_ONCE = 256


@functools.cache
def fold_program(mesh: Mesh) -> jax.stages.Wrapped:
  """Adds a block of external images to the state; no device speaks to another."""

  def local(
    state: ClassSums, features: Float[Array, "n d"], labels: Array, mask: Bool[Array, "n"]
  ) -> ClassSums:
    return state.merge(ClassSums.from_batch(features, labels, mask, state.sums.shape[1]))

  rows = PartitionSpec(DATA_AXIS)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows), donate_argnums=0)


@functools.cache
def reduce_program(mesh: Mesh, from_predictions: bool, reference: bool) -> jax.stages.Wrapped:
  """The last block of external images, the class centers, and the test side, as one reduction.

  Gives for each test image right or wrong by each way, or what `softmax_scores` takes; the counts of right predictions by
  way and class and, last, of test images; and how many external images each class has. Two all-reduces: k x (d + 1) class sums, and k x (v + 1) counts of the test side.
  """

  def local(
    state: ClassSums,
    external: tuple[Array, ...],
    text: Float[Array, "k d"],
    tests: tuple[Array, ...],
    neighbors: Neighbors | None,
  ) -> tuple[Array, Int[Array, "k v+1"], Int[Array, "k"]]:
    image_features, image_labels, image_mask = external
    batch = ClassSums.from_batch(image_features, image_labels, image_mask, len(text))
    state = state.merge(batch)
    centers, counts = ClassSums(jax.lax.psum(state.sums, DATA_AXIS)).compute()
    prototypes = class_prototypes(centers, counts, text)
    features, labels, mask = tests

    def one(row: tuple[Float[Array, "d"], Neighbors | None]) -> Array:
      feature, voters = row
      cosines = class_cosines(feature, prototypes, counts, reference)
      if from_predictions:
        return predicted_classes(cosines, voters, reference)
      shares = [] if voters is None else [votes(voters, len(text))[0]]
      return jnp.stack([*cosines, *shares])

    judged = jax.lax.map(one, (features, neighbors), batch_size=TEST_ROWS_AT_ONCE)
    if not from_predictions:
      return judged, jnp.zeros((len(text), 1), jnp.int32), counts
    correct = judged == labels[:, None]
    columns = jnp.concatenate([correct, jnp.ones_like(correct[:, :1])], 1) & mask[:, None]
    hits = jax.ops.segment_sum(columns.astype(jnp.int32), labels, len(text))
    return correct, jax.lax.psum(hits, DATA_AXIS), counts

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  reduce = jax.shard_map(
    local, mesh=mesh, in_specs=(rows, rows, whole, rows, rows), out_specs=(rows, whole, whole)
  )
  return jax.jit(reduce)
