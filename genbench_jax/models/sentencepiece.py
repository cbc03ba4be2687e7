"""Read SentencePiece's `spiece.model` as a tokenizer, without the sentencepiece package.

The file is a protocol buffer. Read from it are the pieces with scores and types, and the table for
character normalization. The `tokenizers` library, a dependency of transformers, does the tokenizing.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.errors import RunError
from genbench_jax.models.configuration import MOST_VOCABULARY

# Wire types of protocol buffers: variable-length integer, 8 bytes, length-delimited bytes, 4 bytes.
VARINT, EIGHT, RUN, FOUR = 0, 1, 2, 5
LARGEST_FILE = 1 << 26
UNKNOWN = 2


class Pieces(NamedTuple):
  """Contents of a `spiece.model`.

  Attributes:
    scores: each piece with its log probability.
    unknown: index of the piece for unknown text.
    charsmap: table for character normalization; may be empty.
  """

  scores: list[tuple[str, float]]
  unknown: int
  charsmap: bytes


def load_sentencepiece(path: Path) -> Any:
  """Load the tokenizer in a `spiece.model`. It adds no tokens for the beginning or end of a text.

  Raises:
    RunError: the file is damaged, or not a unigram model.
  """
  pieces = read_pieces(path)
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

  try:
    tokenizer = Tokenizer(models.Unigram(pieces.scores, unk_id=pieces.unknown))
    if pieces.charsmap:
      tokenizer.normalizer = normalizers.Precompiled(pieces.charsmap)
  except Exception as error:  # the Rust library raises plain exceptions
    raise RunError(f"the tokenizer in {path} can't be read: {error}.") from error
  blanks = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), blanks])
  tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
  return tokenizer


def read_pieces(path: Path) -> Pieces:
  """Read the contents of a `spiece.model`.

  Raises:
    RunError: the file is damaged, too large, or has no piece for unknown text.
  """
  if not path.is_file() or path.stat().st_size > LARGEST_FILE:
    raise RunError(
      f"{path} is not a tokenizer: expected a file of at most {LARGEST_FILE >> 20} MB."
    )
  scores: list[tuple[str, float]] = []
  unknown, charsmap = -1, b""
  try:
    for field, value in _fields(path.read_bytes()):
      if field == 1:  # a piece: text, score, type
        about = dict(_fields(value))
        if about.get(3) == UNKNOWN:
          unknown = len(scores)
        (score,) = struct.unpack("<f", about.get(2, bytes(4)))
        scores.append((about[1].decode("utf-8"), score))
      elif field == 3:  # text normalization
        charsmap = dict(_fields(value)).get(2, b"")
  except Exception as error:  # damaged bytes may fail as numbers, texts or lengths
    raise RunError(f"the tokenizer in {path} can't be read ({type(error).__name__}).") from error
  if unknown < 0 or len(scores) > MOST_VOCABULARY:
    raise RunError(f"the tokenizer in {path} has {len(scores)} pieces and none for unknown text.")
  return Pieces(scores, unknown, charsmap)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
  """Yield number and value of each field of a message; values are integers or bytes."""
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    kind = tag & 7
    if kind == VARINT:
      value, at = _varint(data, at)
      yield tag >> 3, value
      continue
    if kind == RUN:
      size, at = _varint(data, at)
    else:
      size = {EIGHT: 8, FOUR: 4}[kind]
    if at + size > len(data):
      raise ValueError("cut short")
    yield tag >> 3, data[at : at + size]
    at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
  """Return the integer that starts at `at`, stored in groups of seven bits, and the position after it."""
  value = 0
  for shift in range(0, 64, 7):
    value |= (data[at] & 0x7F) << shift
    at += 1
    if not data[at - 1] & 0x80:
      return value, at
  raise ValueError("unterminated integer")
