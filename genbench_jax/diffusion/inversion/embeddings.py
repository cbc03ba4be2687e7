"""New tokens next to a checkpoint's own: their embeddings, files, and texts that contain them.

Files have the format of diffusers' `load_textual_inversion`: safetensors with one tensor, [width]
or [v, width] for a token of several vectors, named after the placeholder. Files of A1111
(`emb_params`) and of SDXL (`clip_l` and `clip_g`, one per text tower) do not name the placeholder;
the file name without its extension does. Embeddings of two towers are concatenated here.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float32, Int32

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.checkpoints import PICKLES
from genbench_jax.models.diffusion_model import TextTower
from genbench_jax.store import files
from genbench_jax.store.image_files import visible
from genbench_jax.store.reading import regular

FILE_NAME = "learned_embeds.safetensors"
# Tensor names that do not identify the placeholder.
A1111, TOWER_TENSORS = "emb_params", ("clip_l", "clip_g")
_CHECKSUM = "sha256"  # in the metadata


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedEmbeddings:
  """Placeholders and their embeddings, of one or several vectors each.

  Attributes:
    vectors: placeholder -> its vectors, concatenated over the text towers.

  Raises:
    UsageError: there are none, or a placeholder is empty or begins or ends with a blank.
  """

  vectors: Mapping[str, Float32[np.ndarray, "v d"]]

  def __post_init__(self) -> None:
    if not self.vectors:
      raise UsageError("no learned embeddings were given.")
    for name in self.vectors:
      if not name or name != name.strip():
        raise UsageError(f"the placeholder {name!r} is empty, or begins or ends with a blank.")

  @functools.cached_property
  def table(self) -> Float32[np.ndarray, "n d"]:
    """All vectors, in the order of their ids."""
    return np.concatenate([np.asarray(v, np.float32) for v in self.vectors.values()])

  def ids(self, first: int) -> dict[str, list[int]]:
    """Return the token ids of each placeholder, counted from `first`."""
    found = {}
    for name, vectors in self.vectors.items():
      found[name] = list(range(first, first + len(vectors)))
      first += len(vectors)
    return found

  @property
  def fingerprint(self) -> str:
    """Digest of the placeholders and vectors."""
    state = hashlib.sha256(repr([(k, len(v)) for k, v in self.vectors.items()]).encode())
    state.update(np.ascontiguousarray(self.table).tobytes())
    return state.hexdigest()[:12]


def tokenize_with(
  tokenizer: Any, ids: Mapping[str, Sequence[int]], texts: Sequence[str], length: int
) -> Int32[np.ndarray, "n l"]:
  """Tokenize texts in which placeholders stand for new tokens, with start, end and padding tokens.

  The tokenizer is not modified: texts are split at the placeholders (longest first), and the pieces
  are tokenized separately. That is equivalent because CLIP's tokens never cross a blank or a
  boundary between letters and brackets.

  Args:
    tokenizer: tokenizer of a text tower.
    ids: token ids of each placeholder.
    texts: texts to tokenize.
    length: number of tokens per text, including start and end; longer texts are truncated.
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


def check_fits(learned: LearnedEmbeddings, towers: Sequence[TextTower]) -> None:
  """Reject embeddings that do not fit a model's text towers.

  Raises:
    UsageError: the width differs, or a placeholder is already a token of the model.
  """
  width = sum(tower.width for tower in towers)
  if learned.table.shape[1] != width:
    raise UsageError(
      f"the learned embeddings are {learned.table.shape[1]} wide, but the model's tokens are {width} wide:"
      " they were learned for another model."
    )
  taken = [name for name in learned.vectors if name in towers[0].tokenizer.get_vocab()]
  if taken:
    raise UsageError(f"the placeholder {taken[0]!r} is already a token of the model.")


def tower_tables(
  table: Float32[Array, "n d"], towers: Sequence[TextTower]
) -> list[Float32[Array, "n _"]]:
  """Split concatenated embeddings into those of each text tower."""
  ends = np.cumsum([tower.width for tower in towers])
  return [table[:, end - tower.width : end] for end, tower in zip(ends, towers, strict=True)]


def save_embedding(
  path: Path, placeholder: str, vector: Float32[np.ndarray, "d"], widths: Sequence[int] = ()
) -> None:
  """Write the file of one token, atomically.

  Args:
    path: path of the file.
    placeholder: the token.
    vector: its embedding.
    widths: widths of the text towers; with two, each gets a tensor of its own.
  """
  from safetensors.numpy import save

  vector = np.ascontiguousarray(vector, np.float32)
  if len(widths) < 2:
    tensors = {placeholder: vector}
    files.write_bytes(path, save(tensors, metadata={_CHECKSUM: _checksum(tensors)}))
    return
  parts = np.split(vector, np.cumsum(widths)[:-1], axis=-1)
  tensors = {
    name: np.ascontiguousarray(part) for name, part in zip(TOWER_TENSORS, parts, strict=True)
  }
  about = {"placeholder": placeholder, _CHECKSUM: _checksum(tensors)}
  files.write_bytes(path, save(tensors, metadata=about))


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
  state = hashlib.sha256()
  for name, tensor in sorted(tensors.items()):
    state.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
    state.update(np.ascontiguousarray(tensor).tobytes())
  return state.hexdigest()


def load_embedding(path: Path) -> tuple[str, Float32[np.ndarray, "v d"]]:
  """Read the placeholder and the vectors from a file, or from the file in a folder.

  Raises:
    UsageError: there is no such file, or only a pickle.
    RunError: the file is damaged or holds something else.
  """
  path = embedding_file(path)
  tensors, said = _read_tensors(path)
  own_name = said or (path.parent.name if path.name == FILE_NAME else path.stem)
  if tensors.keys() == set(TOWER_TENSORS):
    parts = [np.atleast_2d(np.asarray(tensors[name], np.float32)) for name in TOWER_TENSORS]
    if len({part.shape[:-1] for part in parts}) != 1:
      raise RunError(f"{path} has different numbers of vectors for its two text towers.")
    name, tensor = own_name, np.concatenate(parts, axis=-1)
  elif len(tensors) == 1:
    ((name, tensor),) = tensors.items()
    name = own_name if name == A1111 else name
  else:
    raise RunError(
      f"{path} has {len(tensors)} tensors, expected one: the embedding of a placeholder."
    )
  vectors = np.atleast_2d(np.asarray(tensor, np.float32))
  if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
    raise RunError(f"{path} is not an embedding: its tensor has shape {list(tensor.shape)}.")
  return name, vectors


def load_learned(paths: Sequence[Path]) -> LearnedEmbeddings:
  """Read the embeddings of several files.

  Raises:
    UsageError: two files have the same placeholder; or as `load_embedding`.
    RunError: as `load_embedding`.
  """
  found: dict[str, Float32[np.ndarray, "v d"]] = {}
  for path in paths:
    name, vectors = load_embedding(path)
    if name in found:
      raise UsageError(f"{path}: the placeholder {name!r} also occurs in another file.")
    found[name] = vectors
  return LearnedEmbeddings(found)


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
  """Return the tensors of a file, and the placeholder that its metadata names, if any."""
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      about = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about.get(_CHECKSUM, _checksum(tensors)) != _checksum(tensors):  # other programs write none
      raise ValueError("its checksum differs")
    return tensors, about.get("placeholder", "")
  except (SafetensorError, OSError, ValueError, TypeError) as error:
    raise RunError(f"{path} can't be read as safetensors ({error}).") from error


def embedding_file(path: Path) -> Path:
  """Return the file itself, or the one in a folder.

  Raises:
    UsageError: there is none, or only a pickle.
  """
  if path.is_file() and path.suffix == ".safetensors":
    return path
  found = visible(path, "*.safetensors") if path.is_dir() else []
  if len(found) == 1 or (path / FILE_NAME) in found:
    return path / FILE_NAME if (path / FILE_NAME) in found else found[0]
  pickles = [p for pattern in PICKLES for p in path.glob(pattern)] if path.is_dir() else [path]
  if not found and pickles and pickles[0].exists():
    raise UsageError(
      f"{pickles[0]} is not a safetensors file, and pickles are never opened: convert it to {FILE_NAME}."
    )
  raise UsageError(f"{path} has {len(found)} safetensors files, expected one named {FILE_NAME}.")
