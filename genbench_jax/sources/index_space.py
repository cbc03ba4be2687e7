"""The index space of generated images, the same on every machine.

Image j of class c has index j * K + c for K classes, so that the first s * K images are the s-shot set. Its
random key is folded from (seed, dataset, strategy, c, j), so that it does not depend on the number of
devices.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Integer, UInt32

from genbench_jax.store.image_set import ImageSetLayout


class ClassShot(NamedTuple):
  """Image number `shot`, from 0, of a class."""

  label: int
  shot: int


class Part(NamedTuple):
  """Images of one shard that form a device's batch."""

  shard: int
  indices: range


def class_shot(index: int, num_classes: int) -> ClassShot:
  """Return the class and shot of an index."""
  shot, label = divmod(index, num_classes)
  return ClassShot(label, shot)


def image_keys(
  seed: int, dataset: str, strategy: str, class_shots: Sequence[ClassShot]
) -> UInt32[np.ndarray, "n 2"]:
  """Return the random key of each image, as key data.

  Args:
    seed: seed of the config.
    dataset: name of the dataset.
    strategy: name of the prompt strategy.
    class_shots: class and shot of each image.
  """
  key = jax.random.key(seed)
  # crc32, because `hash` of a string differs between processes.
  for word in (dataset, strategy):
    key = jax.random.fold_in(key, zlib.crc32(word.encode()))
  labels, shots = np.asarray(class_shots, np.uint32).reshape(-1, 2).T
  return np.asarray(_fold(key, labels, shots))


@jax.jit
def _fold(
  key: Array, labels: Integer[Array, "n"], shots: Integer[Array, "n"]
) -> UInt32[Array, "n 2"]:
  def fold(label: Array, shot: Array) -> Array:
    return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, label), shot))

  return jax.vmap(fold)(labels, shots)


def parts_of(layout: ImageSetLayout, shards: Sequence[int], size: int) -> list[Part]:
  """Split shards into parts of at most `size` images; the parts of a shard never depend on other shards.

  Args:
    layout: layout of the image set.
    shards: shards to split.
    size: maximum number of images per part.
  """
  return [
    Part(shard, indices[begin : begin + size])
    for shard in shards
    for indices in [layout.shard_range(shard)]
    for begin in range(0, len(indices), size)
  ]
