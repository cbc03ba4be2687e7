"""SentencePiece's `spiece.model` as a tokenizer, without the package of that name.

The file is a protocol buffer. Of it are read the pieces with their scores and kinds, and the table that normalizes characters;
tokenizing is the `tokenizers` library's, which transformers brings.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.errors import RunError
from genbench_jax.models.configuration import MOST_VOCABULARY

# Wire types of protocol buffers: a number of variable length, 8 bytes, a run of bytes, 4 bytes.
VARINT, EIGHT, RUN, FOUR = 0, 1, 2, 5
LARGEST_FILE = 1 << 26
UNKNOWN = 2


class Pieces(NamedTuple):
  """What a `spiece.model` holds.

  Attributes:
    scores: each piece with its log probability.
    unknown: index of the piece that stands for what is unknown.
    charsmap: table that normalizes characters; may be empty.
  """

  scores: list[tuple[str, float]]
  unknown: int
  charsmap: bytes


def load_sentencepiece(path: Path) -> Any:
  """The tokenizer in a `spiece.model`; texts get neither beginning nor end.

  Raises:
    RunError: the file is damaged, or of another kind than unigrams.
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
  """What a `spiece.model` holds.

  Raises:
    RunError: it is damaged, too large, or has no piece for what is unknown.
  """
  if not path.is_file() or path.stat().st_size > LARGEST_FILE:
    raise RunError(f"{path} is no tokenizer: wanted a file of at most {LARGEST_FILE >> 20} MB.")
  scores: list[tuple[str, float]] = []
  unknown, charsmap = -1, b""
  try:
    for field, value in _fields(path.read_bytes()):
      if field == 1:  # a piece: text, score, kind
        about = dict(_fields(value))
        if about.get(3) == UNKNOWN:
          unknown = len(scores)
        (score,) = struct.unpack("<f", about.get(2, bytes(4)))
        scores.append((about[1].decode("utf-8"), score))
      elif field == 3:  # how texts are normalized
        charsmap = dict(_fields(value)).get(2, b"")
  except Exception as error:  # damaged bytes fail as numbers, texts or lengths
    raise RunError(f"the tokenizer in {path} can't be read ({type(error).__name__}).") from error
  if unknown < 0 or len(scores) > MOST_VOCABULARY:
    raise RunError(
      f"the tokenizer in {path} has {len(scores)} pieces and none for what is unknown."
    )
  return Pieces(scores, unknown, charsmap)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
  """Number and value of each field of a message: integers, or bytes."""
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
  """A number in groups of seven bits, and where it ends."""
  value = 0
  for shift in range(0, 64, 7):
    value |= (data[at] & 0x7F) << shift
    at += 1
    if not data[at - 1] & 0x80:
      return value, at
  raise ValueError("a number without end")
