"""Training batches: gathered on the host ahead of their use, and put on the mesh."""

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

# Steps to gather ahead, and threads that gather.
BATCHES_AHEAD, THREADS = 2, 2


def batches_from(
  sets: Sequence[TrainingSet], curricula: Sequence[Curriculum], first: int, mesh: Mesh
) -> Iterator[Batch]:
  """Yield the batches from step `first` on, gathered ahead of their use.

  Args:
    sets: training data of each cell.
    curricula: order of each cell; all have the same length.
    first: first step.
    mesh: devices.
  """
  import grain

  options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BATCHES_AHEAD)
  numbers = range(first, curricula[0].num_steps)
  gather = functools.partial(_gathered, sets, curricula)
  dataset = grain.MapDataset.source(numbers).map(gather).to_iter_dataset(options)
  for batch in dataset:
    yield on_mesh(batch, mesh)


def _gathered(sets: Sequence[TrainingSet], curricula: Sequence[Curriculum], number: int) -> Batch:
  """Return the batch of a step on the host; several cells are stacked."""
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
    np.asarray(curriculum.seed, np.uint32),
    np.asarray(curriculum.rate(number), np.float32),
  )


def on_mesh(batch: Batch, mesh: Mesh) -> Batch:
  """Put a batch on the mesh; images are split over the devices if their number is divisible."""
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
  # On several hosts, each host provides the shards of its own devices.
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
