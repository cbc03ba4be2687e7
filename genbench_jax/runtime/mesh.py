"""The mesh with its axis `data`, and the layout of arrays on it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Shaped

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Return a mesh with the axis `data` over the given devices, by default all of them."""
  return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA_AXIS,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Return the sharding that splits rows over the devices."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Return the sharding that replicates the array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def padded_size(size: int, multiple: int) -> int:
  """Return the smallest positive multiple of `multiple` that is at least `size`."""
  return max(1, -(-size // multiple)) * multiple


def pad_rows(array: Shaped[np.ndarray, "n ..."], size: int) -> Shaped[np.ndarray, "m ..."]:
  """Append zero rows up to `size` rows; return the array itself if none is missing."""
  array = np.asarray(array)
  if len(array) == size:
    return array
  return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def shard_rows(
  mesh: Mesh, *arrays: Shaped[np.ndarray, "n ..."], multiple: int = 1
) -> tuple[Shaped[Array, "m ..."], ...]:
  """Split arrays of equal length by rows, zero-padded to a multiple of devices x `multiple`.

  Return the sharded arrays and, last, the Bool mask [m] that is True for real rows.
  """
  size = len(arrays[0])
  total = padded_size(size, mesh.size * multiple)
  mask: Bool[np.ndarray, "m"] = np.arange(total) < size
  return tuple(_split(mesh, array) for array in (*(pad_rows(a, total) for a in arrays), mask))


def _split(mesh: Mesh, array: Shaped[np.ndarray, "m ..."]) -> Shaped[Array, "m ..."]:
  """Split the rows over all devices; each process sends only its own rows."""
  sharding = batch_sharding(mesh)
  if sharding.is_fully_addressable:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
