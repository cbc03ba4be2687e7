"""CLIP's tokenizer: text to token ids of a fixed length.

It is assembled from files in the checkpoint's own folder, which its fingerprint covers. File names in
`tokenizer_config.json`, which may point anywhere on the machine, are not followed. Text cleaning does not
depend on installed packages: Unicode is normalized to NFC, whitespace collapsed, and letters lowercased.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints

# CLIP's special tokens, for folders that do not name their own.
SPECIAL = {
  "bos_token": "<|startoftext|>",
  "eos_token": "<|endoftext|>",
  "unk_token": "<|endoftext|>",
  "pad_token": "<|endoftext|>",
}
# CLIP's pattern for splitting text into words, before merging.
WORDS = (
  r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# CLIP's training length in tokens, for folders that do not give one.
POSITIONS = 77
MOST_POSITIONS = 1 << 20


def load_tokenizer(folder: Path) -> Any:
  """Load CLIP's tokenizer from `vocab.json` and `merges.txt`, or from `tokenizer.json`, in `folder`.

  Raises:
    RunError: the files are missing or damaged.
  """
  vocabulary, merges = _words(folder)
  config = _optional(folder / "tokenizer_config.json")
  special = _special_tokens(folder, config)
  missing = sorted({word for word in special.values() if word not in vocabulary})
  if missing:
    raise RunError(f"the tokenizer in {folder} lacks its own special tokens: {', '.join(missing)}.")
  try:
    tokenizer = _assembled(vocabulary, merges, special, _positions(folder, config))
  except Exception as error:  # the Rust library raises plain exceptions
    raise RunError(f"the tokenizer in {folder} can't be read: {error}.") from error
  _add_tokens(tokenizer, folder, config)
  return tokenizer


def _assembled(
  vocabulary: dict[str, int],
  merges: list[tuple[str, str]],
  special: dict[str, str],
  positions: int,
) -> Any:
  """Assemble CLIP's byte-level BPE, as `CLIPTokenizer` of transformers 5 does."""
  from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

  # At import, transformers warns that PyTorch is missing, which is not needed here.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  from transformers import PreTrainedTokenizerFast

  model = models.BPE(
    vocab=vocabulary,
    merges=merges,
    continuing_subword_prefix="",
    end_of_word_suffix="</w>",
    fuse_unk=False,
    unk_token=special["unk_token"],
  )
  core = Tokenizer(model)
  blanks = normalizers.Replace(Regex(r"\s+"), " ")
  core.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
  words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
  core.pre_tokenizer = pre_tokenizers.Sequence(
    [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
  )
  core.decoder = decoders.Sequence(
    [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
  )
  begin, end = special["bos_token"], special["eos_token"]
  core.post_processor = processors.RobertaProcessing(
    (end, vocabulary[end]), (begin, vocabulary[begin]), trim_offsets=False, add_prefix_space=False
  )
  return PreTrainedTokenizerFast(
    tokenizer_object=core,
    model_max_length=positions,
    clean_up_tokenization_spaces=False,
    **special,
  )


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n l"]:
  """Return token ids with start- and end-of-text tokens, truncated and padded to `length`.

  Args:
    tokenizer: tokenizer of transformers.
    texts: n texts.
    length: tokens per text, including start and end.
  """
  ids = tokenizer(list(texts), max_length=length, padding="max_length", truncation=True)[
    "input_ids"
  ]
  return np.asarray(ids, np.int32).reshape(len(texts), length)


def refuse_ids_beyond(tokenizer: Any, vocabulary: int, folder: Path) -> None:
  """Reject a tokenizer with ids that have no embedding: JAX would clamp them to another token's.

  Args:
    tokenizer: tokenizer of transformers.
    vocabulary: number of embeddings.
    folder: the tokenizer's folder, for the message.

  Raises:
    RunError: an id is too large.
  """
  largest = max(tokenizer.get_vocab().values())
  if largest >= vocabulary:
    raise RunError(
      f"the tokenizer in {folder} gives ids up to {largest}, but the model has {vocabulary} embeddings."
    )


def _words(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
  """Return vocabulary and merges."""
  whole = folder / "tokenizer.json"
  if not (folder / "vocab.json").is_file() and whole.is_file():
    model = checkpoints.read_json(whole).get("model")
    model = model if isinstance(model, dict) else {}
    pairs = model.get("merges")
    return _vocabulary(whole, model.get("vocab")), _merges(
      whole, pairs if isinstance(pairs, list) else []
    )
  for name in ("vocab.json", "merges.txt"):
    if not (folder / name).is_file():
      raise RunError(f"{folder / name} is missing from the checkpoint.")
  # Merges may contain any whitespace: only "\n" ends a line, and only the first line may be a comment.
  lines = checkpoints.read_text(folder / "merges.txt").split("\n")
  lines = lines[1:] if lines[0].startswith("#version") else lines
  vocabulary = _vocabulary(folder / "vocab.json", checkpoints.read_json(folder / "vocab.json"))
  return vocabulary, _merges(folder / "merges.txt", [line for line in lines if line.strip()])


def _vocabulary(path: Path, words: Any) -> dict[str, int]:
  ids = words.values() if isinstance(words, dict) else ()
  if not ids or not all(type(number) is int and 0 <= number < 1 << 31 for number in ids):
    raise RunError(f"{path} contains no vocabulary: expected an object that maps words to ids.")
  return words


def _merges(path: Path, pairs: Sequence[Any]) -> list[tuple[str, str]]:
  found = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in pairs]
  for number, pair in enumerate(found):
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
      raise RunError(f"{path}: merge {number + 1} is not a pair of words.")
  return [(pair[0], pair[1]) for pair in found]


def _optional(path: Path) -> dict[str, Any]:
  return checkpoints.read_json(path) if path.is_file() else {}


def _special_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
  """Return the special tokens by role; `tokenizer_config.json` overrides `special_tokens_map.json`."""
  names = _optional(folder / "special_tokens_map.json") | config
  return {role: _content(folder, names.get(role), default) for role, default in SPECIAL.items()}


def _content(folder: Path, token: Any, default: str) -> str:
  """Return a token, given as a string or as an object."""
  word = token.get("content") if isinstance(token, dict) else token
  if word is None:
    return default
  if not isinstance(word, str) or not word:
    raise RunError(f"the tokenizer in {folder} names a special token that is not a string.")
  return word


def _positions(folder: Path, config: dict[str, Any]) -> int:
  length = config.get("model_max_length", POSITIONS)
  if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 3:
    raise RunError(f"{folder / 'tokenizer_config.json'}: model_max_length is not a valid length.")
  # Files without a limit store a number of thirty digits.
  return POSITIONS if length > MOST_POSITIONS else int(length)


def _add_tokens(tokenizer: Any, folder: Path, config: dict[str, Any]) -> None:
  """Add tokens beyond the vocabulary, and check that they get the ids that the files give."""
  extra = {
    _content(folder, token, ""): number
    for number, token in (config.get("added_tokens_decoder") or {}).items()
  } | _optional(folder / "added_tokens.json")
  for word, number in sorted(extra.items(), key=lambda item: int(item[1])):
    if word not in tokenizer.get_vocab():
      tokenizer.add_tokens([word])
    if tokenizer.convert_tokens_to_ids(word) != int(number):
      raise RunError(
        f"the tokenizer in {folder} does not give the added token {word!r} its id, {number}."
      )
