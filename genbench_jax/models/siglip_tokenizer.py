"""SigLIP's tokenizers: Gemma's for SigLIP 2, a SentencePiece model over English for the first.

Texts are brought to the form of the training data first: lowered, and for the first SigLIP without punctuation. They are padded at
the right to one length, and their end is kept when they are cut.
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
  """Texts to token ids.

  Attributes:
    core: with an `encode(text)` that gives ids without special tokens.
    length: of every text, in tokens.
    end, pad: ids of the end of a text and of padding.
    strips_punctuation: whether it goes before tokenizing, as for the first SigLIP.
  """

  core: Any
  length: int
  end: int
  pad: int
  strips_punctuation: bool

  def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Token ids, cut and padded to `length`."""
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
  """The tokenizer whose `tokenizer.json` or `spiece.model` stands in `folder`.

  Args:
    folder: of the checkpoint.
    length: tokens of every text.
    vocabulary: embeddings that the model has.

  Raises:
    RunError: the files are missing or broken, or give ids that the model has no embedding for.
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
    raise RunError(f"the tokenizer in {folder} has no token for the end of a text.")
  # Gemma's has <bos>; the first SigLIP's SentencePiece model has not.
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
  """The first SigLIP's, from SentencePiece's own file: its end of a text pads, too."""
  path = folder / "spiece.model"
  if not path.is_file():
    raise RunError(f"{folder / 'tokenizer.json'} is missing from the checkpoint.")
  core = load_sentencepiece(path)
  end = core.token_to_id("</s>")
  if end is None:
    raise RunError(f"the tokenizer in {folder} has no token for the end of a text.")
  return SiglipTokenizer(core, length, end, end, strips_punctuation=True)
