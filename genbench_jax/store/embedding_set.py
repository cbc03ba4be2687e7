"""Embedding sets: the features of an image set or of texts, with labels and ids, in one file.

The file is safetensors with `features` float32 [n, d], `labels` int32 [n] or uint8 [n, k] multi-hot, `ids`
int64 [n], and `valid` uint8 [n], 0 for an unreadable image. Its name contains the fingerprint of everything
that determines it; its metadata contains the checksum of the arrays.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from genbench_jax.errors import RunError
from genbench_jax.store import embedding_set, files
from genbench_jax.store.reading import regular

_ARRAYS = ("features", "labels", "ids", "valid")


@dataclasses.dataclass(frozen=True)
class EmbeddingSet:
  """Unnormalized features with labels and ids, in the order of the images."""

  features: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, "n"] | Shaped[np.ndarray, "n k"]
  ids: Int[np.ndarray, "n"]
  valid: Shaped[np.ndarray, "n"]

  def __len__(self) -> int:
    return len(self.features)

  def readable(self) -> "EmbeddingSet":
    """Return the rows whose image could be read."""
    return self.take(np.flatnonzero(self.valid))

  def joined(self, others: "EmbeddingSet") -> "EmbeddingSet":
    """Append the rows of another set; ids may repeat."""
    return EmbeddingSet(
      *(np.concatenate([getattr(self, name), getattr(others, name)]) for name in _ARRAYS)
    )

  def take(self, rows: Int[np.ndarray, "m"] | slice) -> "EmbeddingSet":
    """Return the given rows."""
    return EmbeddingSet(*(getattr(self, name)[rows] for name in _ARRAYS))


def concatenated(parts: Sequence[EmbeddingSet]) -> EmbeddingSet:
  """Return the rows of all parts, in order."""
  return EmbeddingSet(
    *(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS)
  )


def save(path: Path, embeddings: EmbeddingSet, made_from: Mapping[str, str]) -> None:
  """Write the file atomically.

  Args:
    path: the file.
    embeddings: features with labels and ids.
    made_from: metadata to store with the arrays.
  """
  from safetensors.numpy import save as to_bytes

  arrays = {name: np.ascontiguousarray(getattr(embeddings, name)) for name in _ARRAYS}
  # safetensors orders metadata keys randomly; a single key keeps equal features byte-identical.
  sealed = {"checksum": _checksum(arrays, made_from), "format": files.FORMAT}
  about = json.dumps({**made_from, **sealed}, sort_keys=True)
  files.write_bytes(path, to_bytes(arrays, metadata={files.ABOUT: about}))


def load(path: Path) -> EmbeddingSet:
  """Read a file and verify its checksum.

  Raises:
    RunError: the file is damaged.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      arrays = {name: file.get_tensor(name) for name in _ARRAYS}
      made_from = json.loads((file.metadata() or {})[files.ABOUT])
      expected, version = made_from.pop("checksum"), made_from.pop("format", 1)
  except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
    raise RunError(
      f"embedding file {path} is damaged ({error}). Delete it, then run again."
    ) from error
  files.check_format(path, version)
  if expected != _checksum(arrays, made_from):
    raise RunError(
      f"embedding file {path} is damaged (its checksum differs). Delete it, then run again."
    )
  if arrays["labels"].ndim == 2:
    arrays["labels"] = arrays["labels"].astype(bool)
  return EmbeddingSet(**arrays)


def _checksum(arrays: Mapping[str, np.ndarray], made_from: Mapping[str, str]) -> str:
  state = hashlib.sha256(json.dumps(dict(made_from), sort_keys=True).encode())
  for name in _ARRAYS:
    array = arrays[name]
    state.update(f"{name} {array.dtype} {array.shape}".encode())
    state.update(array.tobytes())
  return state.hexdigest()


def load_embeddings(path: Path) -> EmbeddingSet:
  """Return the features at a path.

  Raises:
    RunError: there are none, or they are damaged.
  """
  if not path.exists():
    raise RunError(f"there are no features at {path}. Run the stage `embed` first.")
  return embedding_set.load(path)
