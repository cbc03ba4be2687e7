"""Input handling shared by all metrics: validation, blocks of rows, placement on the mesh."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Shaped

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.runtime.mesh import data_mesh, padded_size, replicated, shard_rows

# Row counts are padded to a few sizes, so that few programs are compiled: a program takes about half
# a second to compile, and padded rows are skipped tile by tile.
BUCKETS = (1024, 4096)
# Larger sets are processed in blocks, so that device memory is bounded by the block and not by the
# data. Up to `SMALL_SET` rows the block is the largest bucket, so that a run on many numbers of
# images needs the programs of two shapes.
BLOCK_ROWS = 65_536
SMALL_SET = 8 * BUCKETS[-1]
# Between these magnitudes, squares and sums of a million squares stay within the normal range of
# float32.
SAFE_SIZES = (1e-9, 1e13)
HIGHEST = jax.lax.Precision.HIGHEST
Tree = TypeVar("Tree")


def or_default(mesh: Mesh | None) -> Mesh:
  """Return the given mesh, or one over all devices."""
  return data_mesh() if mesh is None else mesh


def bucket_rows(size: int, devices: int) -> int:
  """Return the row count to pad to: 1,024 or a multiple of 4,096, divisible by `devices`."""
  rows = next((bucket for bucket in BUCKETS if size <= bucket), padded_size(size, BUCKETS[-1]))
  return padded_size(rows, devices)


def blocks(size: int) -> list[slice]:
  """Return the blocks in which a set of `size` rows is processed."""
  rows = min(BUCKETS[-1] if size <= SMALL_SET else BLOCK_ROWS, BLOCK_ROWS)
  return [slice(start, min(start + rows, size)) for start in range(0, size, rows)]


def placed_once(placed: Callable[[slice], Tree], size: int) -> Callable[[], Iterable[Tree]]:
  """Return a function that iterates over the placed blocks of a set, for every block of another.

  The blocks of a set of up to `BLOCK_ROWS` rows are placed once and stay on the devices.
  """
  if size <= BLOCK_ROWS:
    every = [placed(cut) for cut in blocks(size)]
    return lambda: every
  return lambda: map(placed, blocks(size))


def feature_rows(name: str, features: Any, width: int | None = None) -> Float[np.ndarray, "n d"]:
  """Return the checked features as a host array; a memory map stays a memory map.

  Args:
    name: name of the argument for error messages.
    features: matrix of features, [n, d].
    width: required d; None accepts any.

  Raises:
    UsageError: `features` is not a non-empty matrix of real numbers, or is not `width` wide.
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
  """Check that no value is NaN or infinite, because no metric is defined there.

  Raises:
    UsageError: a value is.
  """
  if not np.isfinite(array).all():
    raise UsageError(f"{name} hold NaN or infinite values")


def common_scale(*sets: Float[np.ndarray, "_ d"]) -> float:
  """Return a power of two to divide features by so that their squares fit float32; often 1.

  Dividing by a power of two is exact, so a distance is recovered exactly by multiplying it back.

  Raises:
    UsageError: the features hold NaN or infinite values.
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
  """Return labels as class indices if they are class names; return other labels unchanged.

  Args:
    name: name of the argument for error messages.
    labels: one label per row.
    class_names: class names in label order; may be empty if labels are not names.

  Raises:
    UsageError: labels are names but `class_names` is empty, has duplicates or lacks one of them.
  """
  array = np.asarray(labels)
  if array.dtype.kind not in "USO" or not array.size:
    return labels
  if not len(class_names):
    raise UsageError(
      f"{name} are names such as {str(array.flat[0])!r}: give class_names, one per class."
    )
  index = {str(class_name): label for label, class_name in enumerate(class_names)}
  if len(index) < len(class_names):
    raise UsageError(
      "class_names lists a class twice: make the names unique, or give labels as indices."
    )
  if unknown := next((str(label) for label in array.flat if str(label) not in index), None):
    raise unknown_name(f"class in {name}", unknown, index)
  return np.array([index[str(label)] for label in array.flat], np.int32).reshape(array.shape)


def label_rows(
  name: str, labels: Any, rows: int, num_classes: int
) -> Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]:
  """Return checked labels: class indices [n] as int32, or multi-hot labels [n, k] as bool.

  Args:
    name: name of the argument for error messages.
    labels: class indices or a 0/1 matrix.
    rows: required n.
    num_classes: required k.

  Raises:
    UsageError: the shape does not fit, indices are not whole numbers, or an index is out of range.
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
  """Return the row numbers of each class that occurs, from class indices or multi-hot labels.

  Raises:
    UsageError: the labels are neither of the two.
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
  """Apply `function(features, *others, mask)` block by block; return its per-row values.

  Args:
    function: maps sharded, padded arrays and their mask to one value (or row of values) per row.
    name: name of the features for error messages.
    mesh: devices to compute on.
    features: checked features.
    others: further arrays with one row per feature row.
  """
  found = []
  for cut in blocks(len(features)):
    arrays = [array[cut] for array in (features, *others)]
    values = function(*place(name, mesh, *arrays))
    found.append(fetch(mesh, values)[: len(arrays[0])])
  return np.concatenate(found)


def place(
  name: str, mesh: Mesh, features: Float[np.ndarray, "n d"], *others: np.ndarray
) -> tuple[Array, ...]:
  """Put one block on the mesh, padded: features as float32, the others, and the mask.

  Args:
    name: what the features are, for messages.
    mesh: devices.
    features: rows of the block.
    *others: arrays with one row for each row of the features.
  """
  block = np.asarray(features, np.float32)
  check_finite(name, block)
  multiple = bucket_rows(len(block), mesh.size) // mesh.size
  return shard_rows(mesh, block, *others, multiple=multiple)


def fetch(mesh: Mesh, tree: Tree) -> Tree:
  """Return whole arrays on the host, including shards that other processes hold.

  Arrays that this process can address are copied without a collective: on CPU, several concurrent
  collectives can deadlock by occupying all threads of the pool.
  """
  if not replicated(mesh).is_fully_addressable:
    tree = _gather_program(mesh)(tree)
  return jax.tree.map(np.asarray, tree)


@functools.cache
def _gather_program(mesh: Mesh) -> jax.stages.Wrapped:
  return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


# Well below 2^126, the largest number whose reciprocal is a normal float32.
REACH = 1e37


def unit_rows(features: Float[Array | np.ndarray, "*n d"]) -> Float[Array, "*n d"]:
  """Return rows scaled to unit length; a zero row stays zero."""
  features = jnp.asarray(features)
  largest = jnp.max(jnp.abs(features), axis=-1, keepdims=True)
  # XLA may multiply by the reciprocal, which beyond 2^126 is subnormal and flushed to zero.
  down = jnp.where(largest > REACH, 0.125, 1.0)
  # Dividing by the largest entry first keeps the squares from overflowing.
  scaled = (features * down) / jnp.where(largest > 0, largest * down, 1)
  length = jnp.sqrt(jnp.sum(scaled**2, axis=-1, keepdims=True))
  return scaled / jnp.where(length > 0, length, 1)


def host_unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  """Return rows scaled to unit length in float32, on the host; a zero row stays zero."""
  rows = np.asarray(features, np.float32)
  largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
  scaled = rows / np.where(largest > 0, largest, 1)
  length = np.linalg.norm(scaled, axis=1, keepdims=True)
  return scaled / np.where(length > 0, length, 1)


def masked_rows(features: Float[Array, "n d"], mask: Bool[Array, "n"]) -> Float[Array, "n d"]:
  """Return the features with padded rows set to zero."""
  return jnp.where(mask[:, None], features, 0)
