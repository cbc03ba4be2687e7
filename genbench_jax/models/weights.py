"""Convert weights between PyTorch's names and layouts and ours.

A parameter's path joined by dots is the name of its PyTorch tensor. Layouts differ by rank: linear weights
are [out, in] in PyTorch and [in, out] here, convolution kernels [out, in, h, w] and [h, w, in, out].
Embedding tables have two axes as well but the same layout; they are recognized by the module's name.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Shaped

from genbench_jax.errors import RunError
from genbench_jax.models.flax_names import TO_TORCH

Params: TypeAlias = dict[str, Any]
Tensor: TypeAlias = Shaped[np.ndarray, "..."]

# Modules whose two-axis `weight` is a table of rows to look up, not a matrix to multiply with.
TABLES = re.compile(r"(embeddings?|embed_tokens|shared|relative_attention_bias)$")
# Permutation of PyTorch's axes to JAX's, by rank, and its inverse.
_TO_JAX = {2: (1, 0), 4: (2, 3, 1, 0)}


def is_table(module: str) -> bool:
  """Return whether a module of this name is an embedding table, whose weight keeps PyTorch's layout."""
  return bool(TABLES.search(module))


def _axes(name: str, rank: int, by_rank: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
  """Return the axis permutation of a tensor for the layouts in `by_rank`."""
  module, _, leaf = name.rpartition(".")
  same = leaf != "weight" or (rank == 2 and is_table(module))
  return tuple(range(rank)) if same else by_rank.get(rank, tuple(range(rank)))


def leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
  """Yield PyTorch name and value of every leaf of a parameter tree."""
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from leaves(value, (*above, name))
    else:
      yield ".".join((*above, name)), value


def tree_of(shapes: Mapping[str, Any], make: Callable[[str, Any], Any], above: str = "") -> Params:
  """Build a tree with the structure of `shapes` from `make(PyTorch name, shape)`. Names may contain dots.

  Args:
    shapes: nested dicts.
    make: function from a leaf's PyTorch name and value to the new leaf.
    above: prefix of the names, for the recursion.
  """
  return {
    name: tree_of(value, make, f"{above}{name}.")
    if isinstance(value, Mapping)
    else make(above + name, value)
    for name, value in shapes.items()
  }


def parameter_shapes(init: Callable[..., Any], *args: Any, **kwargs: Any) -> Params:
  """Return the shapes of the parameters that a module's `init(key, *args)` makes, without computing."""
  return jax.eval_shape(lambda *given: init(jax.random.key(0), *given, **kwargs), *args)["params"]


def torch_shapes(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Return PyTorch name -> PyTorch shape for every leaf of a tree of arrays or shapes."""
  return {
    name: tuple(leaf.shape[axis] for axis in _axes(name, len(leaf.shape), TO_TORCH))
    for name, leaf in leaves(shapes)
  }


def to_torch(params: Mapping[str, Any]) -> dict[str, Tensor]:
  """Convert a parameter tree to PyTorch's state, for `safetensors.numpy.save_file`. `load` inverts it."""
  found = ((name, np.asarray(leaf)) for name, leaf in leaves(params))
  return {
    name: np.array(array.transpose(_axes(name, array.ndim, TO_TORCH)), order="C")
    for name, array in found
  }


def load(
  weights: Mapping[str, Callable[[], Tensor]],
  shapes: Mapping[str, Any],
  what: str | Path,
  dtype: Any = np.float32,
  ignored: str | re.Pattern[str] | None = None,
  place: Callable[[Tensor], Any] = lambda array: array,
) -> Params:
  """Load a network's parameters one tensor at a time, so that the host never holds two copies.

  Args:
    weights: name -> function that reads the tensor, as `checkpoints.read_weights` returns.
    shapes: tree of shapes to fill, see `parameter_shapes`.
    what: the checkpoint, for messages.
    dtype: dtype of all leaves; None keeps the file's.
    ignored: pattern of tensor names that the file may contain in addition to the network's.
    place: called with each array, for example to transfer it to the device.

  Raises:
    RunError: a tensor is missing, unexpected, unreadable or has the wrong shape.
  """
  names = {name for name, _ in leaves(shapes)}
  extra = weights.keys() - names
  if ignored:
    extra = {name for name in extra if not re.search(ignored, name)}
  _refuse(what, "lacks", names - weights.keys())
  _refuse(what, "has tensors that the model has no place for:", extra)
  flat: dict[str, Any] = {}
  wrong: list[str] = []
  for name, leaf in leaves(shapes):
    array = _read(what, name, weights[name])
    array = array.transpose(_axes(name, array.ndim, _TO_JAX))
    if array.shape != leaf.shape:
      wrong.append(f"{name} (in JAX's layout {array.shape}, expected {leaf.shape})")
      continue
    # Copy in C order, so that the tensor is freed and nothing keeps the file memory-mapped.
    flat[name] = place(np.array(array, dtype, order="C"))
  _refuse(what, "has tensors of the wrong shape:", wrong)
  return tree_of(shapes, lambda name, _: flat[name])


def _read(what: str | Path, name: str, read: Callable[[], Tensor]) -> Tensor:
  try:
    return read()
  except Exception as error:  # the readers' error types are not public
    raise RunError(
      f"tensor {name} in {what} can't be read ({error}). Download it again."
    ) from error


def _refuse(what: str | Path, problem: str, names: Iterable[str]) -> None:
  named = sorted(names)
  if named:
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    raise RunError(f"the checkpoint in {what} {problem} {', '.join(named[:5])}{more}.")
