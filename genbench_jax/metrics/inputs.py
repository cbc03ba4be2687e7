"""What all metrics do with their inputs: check them, cut them into blocks, lay them on the mesh."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Shaped

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.runtime.mesh import data_mesh, padded_size, replicated, shard_rows

# Rows go to the device in blocks of a few sizes, so that few programs are compiled and memory is
# bounded by the block and not by the data.
BUCKETS = (256, 1024, 4096)
BLOCK_ROWS = 65_536
# Features of this size have squares, and sums of a million of them, within float32.
SAFE_SIZES = (1e-9, 1e13)
HIGHEST = jax.lax.Precision.HIGHEST
Tree = TypeVar("Tree")


def or_default(mesh: Mesh | None) -> Mesh:
  """The mesh that was given, or all devices."""
  return data_mesh() if mesh is None else mesh


def bucket_rows(size: int, devices: int) -> int:
  """Rows to pad to: 256, 1,024, or a multiple of 4,096, and in any case a multiple of the devices."""
  rows = next((bucket for bucket in BUCKETS if size <= bucket), padded_size(size, BUCKETS[-1]))
  return padded_size(rows, devices)


def feature_rows(name: str, features: Any, width: int | None = None) -> Float[np.ndarray, "n d"]:
  """The features as they are on the host (a memory map stays one), checked for their shape.

  Raises:
    UsageError: not a non-empty matrix of real numbers, or not `width` wide.
  """
  array = features if isinstance(features, np.ndarray) else np.asarray(features)
  if array.ndim != 2 or 0 in array.shape:
    raise UsageError(f"{name} must be a matrix with at least one row and column, got {array.shape}")
  if not (array.dtype.kind in "fiu" or array.dtype == jnp.bfloat16):
    raise UsageError(f"{name} must be real numbers, got {array.dtype}")
  if width is not None and array.shape[1] != width:
    raise UsageError(f"{name} must be {width} wide like the other features, got {array.shape}")
  return array


def check_finite(name: str, array: np.ndarray) -> None:
  """Raises UsageError where a value is NaN or infinite: no metric is defined there."""
  if not np.isfinite(array).all():
    raise UsageError(f"{name} hold NaN or infinite values")


def common_scale(*sets: Float[np.ndarray, "n d"]) -> float:
  """A power of two to divide features by, so that squares of their differences stay in float32; 1 where they do.

  Of distances the division takes nothing: it is exact, and is undone by a multiplication.

  Raises:
    UsageError: NaN or infinite values.
  """
  largest = max(
    float(np.abs(rows[start : start + BLOCK_ROWS]).max())
    for rows in sets
    for start in range(0, len(rows), BLOCK_ROWS)
  )
  if not np.isfinite(largest):
    raise UsageError("features hold NaN or infinite values")
  if largest == 0 or SAFE_SIZES[0] < largest < SAFE_SIZES[1]:
    return 1.0
  return float(2.0 ** np.floor(np.log2(largest)))


def named_labels(name: str, labels: Any, class_names: Sequence[str]) -> Any:
  """Labels as class indices where they are given as names; other labels as they are.

  Args:
    name: what the labels are called in errors.
    labels: one a row.
    class_names: one a class, in label order; may be empty where labels are no names.

  Raises:
    UsageError: labels are names and no class names are given, or one is none of them.
  """
  array = np.asarray(labels)
  if array.dtype.kind not in "USO" or not array.size:
    return labels
  if not len(class_names):
    raise UsageError(
      f"{name} are names such as {str(array.flat[0])!r}: give class_names, one a class."
    )
  index = {str(each): place for place, each in enumerate(class_names)}
  if len(index) < len(class_names):
    raise UsageError("class_names names a class twice: labels must be indices then.")
  if unknown := next((str(each) for each in array.flat if str(each) not in index), None):
    raise unknown_name(f"class in {name}", unknown, index)
  return np.array([index[str(each)] for each in array.flat], np.int32).reshape(array.shape)


def label_rows(name: str, labels: Any, rows: int, num_classes: int) -> Int[np.ndarray, "n *k"]:
  """Class indices [n] as int32, or multi-hot labels [n, k] as bool, checked.

  Raises:
    UsageError: not one label a row, not whole numbers, or a class that does not exist.
  """
  array = np.asarray(labels)
  if array.ndim not in (1, 2) or len(array) != rows:
    raise UsageError(f"{name} must be [{rows}] or [{rows}, {num_classes}], got {array.shape}")
  if array.ndim == 2:
    if array.shape[1] != num_classes or not np.isin(array, (0, 1)).all():
      raise UsageError(
        f"multi-hot {name} must be 0 or 1 of shape [{rows}, {num_classes}], got {array.shape}"
      )
    return array.astype(bool)
  if array.dtype.kind not in "iu":
    raise UsageError(f"{name} must be whole numbers, got {array.dtype}")
  if rows and not 0 <= array.min() <= array.max() < num_classes:
    raise UsageError(f"{name} must lie in 0..{num_classes - 1}, got {array.min()}..{array.max()}")
  return array.astype(np.int32)


def rows_of_classes(labels: Any) -> dict[int, Int[np.ndarray, "m"]]:
  """The row numbers of each class that occurs, of class indices or multi-hot labels.

  Raises:
    UsageError: neither of the two.
  """
  labels = np.asarray(labels)
  if labels.ndim == 2:
    return {int(c): np.flatnonzero(labels[:, c]) for c in np.flatnonzero(labels.any(0))}
  if labels.ndim != 1 or labels.dtype.kind not in "iu":
    raise UsageError(
      f"labels must be class indices or multi-hot, got {labels.dtype} {labels.shape}"
    )
  return {int(c): np.flatnonzero(labels == c) for c in np.unique(labels)}


def by_block(
  function: Callable[..., Array],
  name: str,
  mesh: Mesh,
  features: Float[np.ndarray, "n d"],
  *others: np.ndarray,
) -> Shaped[np.ndarray, "n ..."]:
  """A value a row: `function(features, *others, mask)` of each block on the device, joined on the host."""
  found = []
  for start in range(0, len(features), BLOCK_ROWS):
    arrays = [array[start : start + BLOCK_ROWS] for array in (features, *others)]
    values = function(*place(name, mesh, *arrays))
    found.append(fetch(mesh, values)[: len(arrays[0])])
  return np.concatenate(found)


def place(
  name: str, mesh: Mesh, features: Float[np.ndarray, "n d"], *others: np.ndarray
) -> tuple[Array, ...]:
  """One block on the mesh, padded to its bucket: features as float32, the others, and the mask."""
  block = np.asarray(features, np.float32)
  check_finite(name, block)
  multiple = bucket_rows(len(block), mesh.size) // mesh.size
  return shard_rows(mesh, block, *others, multiple=multiple)


def fetch(mesh: Mesh, tree: Tree) -> Tree:
  """The arrays on the host, whole, also where other hosts hold parts of them.

  Devices of one process need no collective for that, and do without: on CPU several at once can block all threads that
  would finish them.
  """
  if not replicated(mesh).is_fully_addressable:
    tree = _gather_program(mesh)(tree)
  return jax.tree.map(np.asarray, tree)


@functools.cache
def _gather_program(mesh: Mesh) -> jax.stages.Wrapped:
  return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def unit_rows(features: Float[Array, "n d"]) -> Float[Array, "n d"]:
  """Rows of length one; a row of zeros stays zero."""
  largest = jnp.max(jnp.abs(features), axis=-1, keepdims=True)
  scaled = features / jnp.where(largest > 0, largest, 1)  # no overflow in the squares
  length = jnp.sqrt(jnp.sum(scaled**2, axis=-1, keepdims=True))
  return scaled / jnp.where(length > 0, length, 1)


def host_unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Rows of length one on the host, in float32; a row of zeros stays zero."""
  rows = np.asarray(features, np.float32)
  largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
  scaled = rows / np.where(largest > 0, largest, 1)
  length = np.linalg.norm(scaled, axis=1, keepdims=True)
  return scaled / np.where(length > 0, length, 1)


def masked_rows(features: Float[Array, "n d"], mask: Bool[Array, "n"]) -> Float[Array, "n d"]:
  """The features with the padded rows set to zero."""
  return jnp.where(mask[:, None], features, 0)
