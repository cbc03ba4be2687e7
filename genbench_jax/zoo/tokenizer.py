"""Train a byte-level CLIP tokenizer with few merges: it encodes any text, common words as one token."""

import json
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.models.tokenizer import SPECIAL

MAX_TOKENS = 32
START, END = SPECIAL["bos_token"], SPECIAL["eos_token"]
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(texts: Sequence[str], folder: Path, merges: int = 320) -> None:
  """Train a tokenizer on texts and write CLIP's tokenizer files to a folder.

  The vocabulary has CLIP's layout: 256 bytes, 256 word-final bytes, the merges, start and end of text.

  Args:
    texts: training texts.
    folder: folder to write.
    merges: maximum number of merges.
  """
  from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
  tokenizer.normalizer = normalizers.Lowercase()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  trainer = trainers.BpeTrainer(
    vocab_size=600 + merges,
    initial_alphabet=alphabet,
    end_of_word_suffix="</w>",
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  learned = json.loads(tokenizer.to_str())["model"]["merges"][:merges]
  tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
  tokens += [left + right for left, right in learned]
  tokens = [*dict.fromkeys(tokens), START, END]
  folder.mkdir(parents=True, exist_ok=True)
  vocabulary = {token: index for index, token in enumerate(tokens)}
  (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
  lines = ["#version: 0.2", *(f"{left} {right}" for left, right in learned)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, **SPECIAL}
  (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
  (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL, indent=2), encoding="utf-8")
