"""One index space of generated images for every machine.

Image j of class c has the index j * K + c, so that the first s * K images are the s-shot set, and a key
folded from (seed, dataset, strategy, c, j), so that it is the same image on any number of devices.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, UInt32

from genbench_jax.store.image_set import ImageSetLayout


class ClassShot(NamedTuple):
  """Which image: the `shot`-th, from 0, of a class."""

  label: int
  shot: int


class Part(NamedTuple):
  """Images of one shard that share a device's batch."""

  shard: int
  indices: range


def class_shot(index: int, num_classes: int) -> ClassShot:
  """The class and shot of an index."""
  shot, label = divmod(index, num_classes)
  return ClassShot(label, shot)


def image_keys(
  seed: int, dataset: str, strategy: str, class_shots: Sequence[ClassShot]
) -> UInt32[np.ndarray, "n 2"]:
  """The random key of each image, as key data."""
  key = jax.random.key(seed)
  for word in (dataset, strategy):
    key = jax.random.fold_in(key, zlib.crc32(word.encode()))
  labels, shots = np.asarray(class_shots, np.uint32).reshape(-1, 2).T
  return np.asarray(_fold(key, labels, shots))


@jax.jit
def _fold(key: Array, labels: Int[Array, "n"], shots: Int[Array, "n"]) -> UInt32[Array, "n 2"]:
  def fold(label: Array, shot: Array) -> Array:
    return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, label), shot))

  return jax.vmap(fold)(labels, shots)


def parts_of(layout: ImageSetLayout, shards: Sequence[int], size: int) -> list[Part]:
  """The shards cut into parts of at most `size` images: always the same, whichever shards are left to make."""
  return [
    Part(shard, indices[begin : begin + size])
    for shard in shards
    for indices in [layout.shard_range(shard)]
    for begin in range(0, len(indices), size)
  ]
