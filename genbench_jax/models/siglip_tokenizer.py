"""SigLIP's tokenizers: Gemma's for SigLIP 2, an English SentencePiece model for the first SigLIP.

Texts get the form of the training data: lowercase, and for the first SigLIP without punctuation. They are
padded on the right to a fixed length. Truncated texts keep their end token.
"""

import dataclasses
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.sentencepiece import load_sentencepiece

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclasses.dataclass(frozen=True, eq=False)
class SiglipTokenizer:
  """Map texts to token ids.

  Attributes:
    core: has `encode(text)`, which returns ids without special tokens.
    length: tokens per text.
    end, pad: ids of the end-of-text and the padding token.
    strips_punctuation: whether to remove punctuation before tokenizing, as for the first SigLIP.
  """

  core: Any
  length: int
  end: int
  pad: int
  strips_punctuation: bool

  def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Return token ids, truncated and padded to `length`."""
    rows = np.full((len(texts), self.length), self.pad, np.int32)
    for row, text in zip(rows, texts, strict=True):
      ids = [*self._ids(self._canonical(text))[: self.length - 1], self.end]
      row[: len(ids)] = ids
    return rows

  def _canonical(self, text: str) -> str:
    text = text.lower()
    if self.strips_punctuation:
      text = " ".join(text.translate(_PUNCTUATION).split())
    return text

  def _ids(self, text: str) -> list[int]:
    return list(self.core.encode(text, add_special_tokens=False).ids)


def load_siglip_tokenizer(folder: Path, length: int, vocabulary: int) -> SiglipTokenizer:
  """Load the tokenizer from `tokenizer.json` or `spiece.model` in `folder`.

  Args:
    folder: folder of the checkpoint.
    length: tokens per text.
    vocabulary: number of the model's token embeddings.

  Raises:
    RunError: the files are missing or damaged, or an id has no embedding.
  """
  whole = folder / "tokenizer.json"
  if not whole.is_file():
    return _checked(_from_pieces(folder, length), vocabulary, folder)
  checkpoints.read_json(whole)
  from tokenizers import Tokenizer

  try:
    core = Tokenizer.from_file(str(whole))
  except Exception as error:  # the Rust library raises plain exceptions
    raise RunError(f"the tokenizer in {folder} can't be read: {error}.") from error
  core.no_padding()
  core.no_truncation()
  names = {"end": ("<eos>", "</s>"), "pad": ("<pad>", "</s>")}
  end, pad = (_first_id(core, words) for words in names.values())
  if end is None or pad is None:
    raise RunError(f"the tokenizer in {folder} has no end-of-text token.")
  # Gemma's tokenizer has <bos>; the first SigLIP's SentencePiece model does not.
  first = core.token_to_id("<bos>") is None
  tokenizer = SiglipTokenizer(core, length, end, pad, strips_punctuation=first)
  return _checked(tokenizer, vocabulary, folder)


def _first_id(core: Any, words: Sequence[str]) -> int | None:
  return next((i for i in map(core.token_to_id, words) if i is not None), None)


def _checked(tokenizer: SiglipTokenizer, vocabulary: int, folder: Path) -> SiglipTokenizer:
  size = tokenizer.core.get_vocab_size()
  if max(size - 1, tokenizer.end, tokenizer.pad) >= vocabulary:
    raise RunError(
      f"the tokenizer in {folder} gives ids up to {size - 1}, but the model has {vocabulary} embeddings."
    )
  return tokenizer


def _from_pieces(folder: Path, length: int) -> SiglipTokenizer:
  """Load the first SigLIP's tokenizer from SentencePiece's own file. It pads with the end-of-text token."""
  path = folder / "spiece.model"
  if not path.is_file():
    raise RunError(f"{folder / 'tokenizer.json'} is missing from the checkpoint.")
  core = load_sentencepiece(path)
  end = core.token_to_id("</s>")
  if end is None:
    raise RunError(f"the tokenizer in {folder} has no end-of-text token.")
  return SiglipTokenizer(core, length, end, end, strips_punctuation=True)
