"""Device programs of CLER: one reduction over sharded features, with two all-reduces."""

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
  """Return a program that adds a block of external images to the state, without communication."""

  def local(
    state: ClassSums, features: Float[Array, "n d"], labels: Array, mask: Bool[Array, "n"]
  ) -> ClassSums:
    return state.merge(ClassSums.from_batch(features, labels, mask, state.sums.shape[1]))

  rows = PartitionSpec(DATA_AXIS)
  return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows), donate_argnums=0)


@functools.cache
def reduce_program(mesh: Mesh, from_predictions: bool, reference: bool) -> jax.stages.Wrapped:
  """Return the program that finishes CLER: last external block, class centers, test images.

  Its outputs, with v scores and k classes:
    judged: per test image, whether each score predicts its class; without `from_predictions`, the
      inputs of `softmax_scores`.
    hits: [k, v + 1], correct predictions by class and score; the last column counts the test
      images.
    counts: [k], external images of each class.

  It communicates twice: all-reduces of the class sums, k x (d + 1), and of the hits, k x (v + 1).

  Args:
    mesh: devices.
    from_predictions: whether the metric needs predicted classes only.
    reference: whether to follow the published code.
  """

  def local(
    state: ClassSums,
    external: tuple[Array, ...],
    text: Float[Array, "k d"],
    tests: tuple[Array, ...],
    neighbors: Neighbors | None,
  ) -> tuple[Array, Int[Array, "k bins"], Int[Array, "k"]]:
    image_features, image_labels, image_mask = external
    batch = ClassSums.from_batch(image_features, image_labels, image_mask, len(text))
    state = state.merge(batch)
    # The first all-reduce. From here on every device has all class centers.
    centers, counts = ClassSums(jax.lax.psum(state.sums, DATA_AXIS)).compute()
    prototypes = class_prototypes(centers, counts, text)
    features, labels, mask = tests

    def judge_image(row: tuple[Float[Array, "d"], Neighbors | None]) -> Array:
      feature, voters = row
      cosines = class_cosines(feature, prototypes, counts, reference)
      if from_predictions:
        return predicted_classes(cosines, voters, reference)
      shares = [] if voters is None else [votes(voters, len(text))[0]]
      return jnp.stack([*cosines, *shares])

    judged = jax.lax.map(judge_image, (features, neighbors), batch_size=TEST_ROWS_AT_ONCE)
    if not from_predictions:
      return judged, jnp.zeros((len(text), 1), jnp.int32), counts
    correct = judged == labels[:, None]
    columns = jnp.concatenate([correct, jnp.ones_like(correct[:, :1])], 1) & mask[:, None]
    # Integer counts, so that the sum over devices is exact in any order.
    hits = jax.ops.segment_sum(columns.astype(jnp.int32), labels, len(text))
    return correct, jax.lax.psum(hits, DATA_AXIS), counts

  rows, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
  reduce = jax.shard_map(
    local, mesh=mesh, in_specs=(rows, rows, whole, rows, rows), out_specs=(rows, whole, whole)
  )
  return jax.jit(reduce)
