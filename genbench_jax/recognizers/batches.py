"""The batches of a training: gathered on the host by Grain's threads ahead of their use, and put on the mesh."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from genbench_jax.recognizers.problem import Batch
from genbench_jax.recognizers.training_set import Curriculum, TrainingSet
from genbench_jax.runtime.mesh import DATA_AXIS, replicated

# Steps whose images are gathered ahead, and threads that gather them.
BATCHES_AHEAD, THREADS = 2, 2


def batches_from(
  sets: Sequence[TrainingSet], curricula: Sequence[Curriculum], first: int, mesh: Mesh
) -> Iterator[Batch]:
  """The batches from a step on, gathered by Grain's threads ahead of their use."""
  import grain

  options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BATCHES_AHEAD)
  numbers = range(first, curricula[0].num_steps)
  gather = functools.partial(_gathered, sets, curricula)
  dataset = grain.MapDataset.source(numbers).map(gather).to_iter_dataset(options)
  for batch in dataset:
    yield on_mesh(batch, mesh)


def _gathered(sets: Sequence[TrainingSet], curricula: Sequence[Curriculum], number: int) -> Batch:
  """The batch of a step on the host; of several cells, one on another."""
  parts = [
    _gathered_one(data, curriculum, number)
    for data, curriculum in zip(sets, curricula, strict=True)
  ]
  if len(parts) == 1:
    return parts[0]
  stacked = Batch(*(np.stack(values) for values in zip(*parts, strict=True)))
  return stacked._replace(number=parts[0].number)


def _gathered_one(data: TrainingSet, curriculum: Curriculum, number: int) -> Batch:
  rows, parts = curriculum.rows(number), curriculum.recipe.accumulate
  fold = lambda array: array.reshape(parts, -1, *array.shape[1:])  # noqa: E731
  return Batch(
    fold(np.asarray(data.images[rows])),
    fold(data.targets[rows]),
    fold(data.weights[rows]),
    np.asarray(number, np.int32),
    np.asarray(curriculum.seed, np.int32),
    np.asarray(curriculum.rate(number), np.float32),
  )


def on_mesh(batch: Batch, mesh: Mesh) -> Batch:
  """The batch with the images of each part split over the devices, where they divide; else every device has all."""
  axis = batch.weights.ndim - 1
  divides = batch.weights.shape[-1] % mesh.size == 0
  split = NamedSharding(
    mesh, PartitionSpec(*[None] * axis, DATA_AXIS) if divides else PartitionSpec()
  )
  whole = replicated(mesh)
  return Batch(*(
    put(array, split if array.ndim > axis else whole) for array in batch
  ))  # fmt: skip


def put(array: Any, sharding: NamedSharding) -> Array:
  if sharding.is_fully_addressable:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
