"""The one mesh, its one axis `data`, and how arrays are laid on it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Shaped

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh with the single axis `data` over the given devices, by default all of them."""
  return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA_AXIS,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows split over the devices."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def padded_size(size: int, multiple: int) -> int:
  """The least multiple of `multiple` that holds `size` rows, at least one multiple."""
  return max(1, -(-size // multiple)) * multiple


def pad_rows(array: Shaped[np.ndarray, "n ..."], size: int) -> Shaped[np.ndarray, "m ..."]:
  """The array with zero rows appended up to `size` rows; the array itself where none is missing."""
  array = np.asarray(array)
  if len(array) == size:
    return array
  return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])


def shard_rows(
  mesh: Mesh, *arrays: Shaped[np.ndarray, "n ..."], multiple: int = 1
) -> tuple[Shaped[Array, "m ..."], ...]:
  """Arrays of equal length, zero-padded to a multiple of devices x `multiple` and split by rows.

  Returns the sharded arrays and, last, the Bool mask [m] that is True where a row is real.
  """
  size = len(arrays[0])
  total = padded_size(size, mesh.size * multiple)
  mask: Bool[np.ndarray, "m"] = np.arange(total) < size
  return tuple(_split(mesh, array) for array in (*(pad_rows(a, total) for a in arrays), mask))


def _split(mesh: Mesh, array: Shaped[np.ndarray, "m ..."]) -> Shaped[Array, "m ..."]:
  """The rows over all devices; each process sends its own ones only, of the array that all of them have."""
  sharding = batch_sharding(mesh)
  if sharding.is_fully_addressable:
    return jax.device_put(array, sharding)
  return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
