"""New tokens beside a checkpoint's own: their embeddings, their files, and texts that hold them.

A file is what diffusers' `load_textual_inversion` reads: safetensors with one tensor [width], or [v, width] for
a token of several vectors, under the name of the placeholder.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.checkpoints import PICKLES
from genbench_jax.store import files

FILE_NAME = "learned_embeds.safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedEmbeddings:
  """Placeholders and the embeddings that they stand for, one or several vectors each.

  Attributes:
    vectors: placeholder -> its embeddings.

  Raises:
    UsageError: there are none, or a placeholder is empty or has blanks at its ends.
  """

  vectors: Mapping[str, Float32[np.ndarray, "v d"]]

  def __post_init__(self) -> None:
    if not self.vectors:
      raise UsageError("no learned embeddings were given.")
    for name in self.vectors:
      if not name or name != name.strip():
        raise UsageError(f"the placeholder {name!r} is empty or has blanks at its ends.")

  @functools.cached_property
  def table(self) -> Float32[np.ndarray, "n d"]:
    """All vectors, in the order of their ids."""
    return np.concatenate([np.asarray(v, np.float32) for v in self.vectors.values()])

  def ids(self, first: int) -> dict[str, list[int]]:
    """The token ids of each placeholder, counted from `first`."""
    found = {}
    for name, vectors in self.vectors.items():
      found[name] = list(range(first, first + len(vectors)))
      first += len(vectors)
    return found

  @property
  def fingerprint(self) -> str:
    """Stands for placeholders and vectors."""
    state = hashlib.sha256(repr([(k, len(v)) for k, v in self.vectors.items()]).encode())
    state.update(np.ascontiguousarray(self.table).tobytes())
    return state.hexdigest()[:12]


def tokenize_with(
  tokenizer: Any, ids: Mapping[str, Sequence[int]], texts: Sequence[str], length: int
) -> Int32[np.ndarray, "n l"]:
  """Token ids of texts in which placeholders stand for new tokens; start, end and padding as ever.

  The tokenizer is left as it is: texts are cut at the placeholders, the longest first, and the pieces
  tokenized apart. CLIP's tokens never reach over a blank, nor from letters to brackets.
  """
  names = sorted(ids, key=lambda name: (-len(name), name))
  pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")")
  rows = np.full((len(texts), length), tokenizer.pad_token_id, np.int32)
  for row, text in zip(rows, texts, strict=True):
    inner: list[int] = []
    for piece in pattern.split(text):
      inner += ids[piece] if piece in ids else _piece_ids(tokenizer, piece)
    whole = [tokenizer.bos_token_id, *inner[: length - 2], tokenizer.eos_token_id]
    row[: len(whole)] = whole
  return rows


def _piece_ids(tokenizer: Any, piece: str) -> list[int]:
  return tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"] if piece else []


def check_fits(learned: LearnedEmbeddings, tokenizer: Any, width: int) -> None:
  """Refuses embeddings that a text tower can't take.

  Raises:
    UsageError: they have another width, or a placeholder is a token already.
  """
  if learned.table.shape[1] != width:
    raise UsageError(
      f"the learned embeddings are {learned.table.shape[1]} wide, and the model's tokens {width}:"
      " they were learned for another model."
    )
  taken = [name for name in learned.vectors if name in tokenizer.get_vocab()]
  if taken:
    raise UsageError(f"the placeholder {taken[0]!r} is a token of the model already.")


def save_embedding(path: Path, placeholder: str, vector: Float32[np.ndarray, "d"]) -> None:
  """Writes one token's file, whole or not at all."""
  from safetensors.numpy import save

  files.write_bytes(path, save({placeholder: np.ascontiguousarray(vector, np.float32)}))


def load_embedding(path: Path) -> tuple[str, Float32[np.ndarray, "v d"]]:
  """The placeholder and the vectors of a file, or of the file in a folder.

  Raises:
    UsageError: there is none, or only a pickle.
    RunError: it is damaged, or holds something else.
  """
  path = embedding_file(path)
  from safetensors import SafetensorError
  from safetensors.numpy import load_file

  try:
    tensors = load_file(path)
  except (SafetensorError, OSError, ValueError) as error:
    raise RunError(f"{path} can't be read as safetensors ({error}).") from error
  if len(tensors) != 1:
    raise RunError(f"{path} holds {len(tensors)} tensors, wanted one: a placeholder's embedding.")
  ((name, tensor),) = tensors.items()
  vectors = np.atleast_2d(np.asarray(tensor, np.float32))
  if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
    raise RunError(f"{path} holds no embedding: its tensor has shape {list(tensor.shape)}.")
  return name, vectors


def embedding_file(path: Path) -> Path:
  """The file itself, or the one in a folder.

  Raises:
    UsageError: there is none, or only a pickle.
  """
  if path.is_file() and path.suffix == ".safetensors":
    return path
  found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
  if len(found) == 1 or (path / FILE_NAME) in found:
    return path / FILE_NAME if (path / FILE_NAME) in found else found[0]
  pickles = [p for pattern in PICKLES for p in path.glob(pattern)] if path.is_dir() else [path]
  if not found and pickles and pickles[0].exists():
    raise UsageError(
      f"{pickles[0]} is no safetensors file, and pickles are never opened: convert it to {FILE_NAME}."
    )
  raise UsageError(f"{path} has {len(found)} safetensors files, wanted one named {FILE_NAME}.")
