"""Sentences about a class from a keyword-to-sentence T5, for Category Enhancement.

Any T5 in the Hugging Face layout will do; the published one is `mrm8488/t5-base-finetuned-common_gen`. Sampling is
plain: temperature 1, the 50 likeliest tokens, at most 20 of them, as the published code left it.
"""

import re
import zlib
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class SentenceWriter(Protocol):
  """A model that writes sentences about given words, see `models.t5.SentenceModel`."""

  def sample(self, words: str, count: int, seed: int) -> list[str]: ...


# Distinct sentences a class: strict's own choice, and the reference's `total_num_temps`.
SENTENCES = {"strict": 64, "reference": 16}
# The reference samples so many more, since some come out equal.
_SPARE = 50


def write_sentences(model: SentenceWriter, name: str, seed: int, protocol: str) -> list[str]:
  """Distinct sentences about a class, in a seeded order.

  Strict makes sure that each names the class: one that doesn't has the name in front. Reference takes
  the name apart at full stops, writes on each part and joins what comes.
  """
  wanted = SENTENCES[protocol]
  parts = [name]
  if protocol == "reference":
    parts = [part.strip() for part in name.replace(",", " ").split(".") if part.strip()]
  columns = [model.sample(part, wanted + _SPARE, seed) for part in parts]
  sentences = [" ".join(filter(None, row)) for row in zip(*columns, strict=True)]
  if protocol == "strict":
    sentences = [_naming(name, sentence) for sentence in sentences]
  distinct = list(dict.fromkeys(filter(None, sentences))) or [name]
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  return [distinct[i] for i in rng.permutation(len(distinct))[:wanted]]


def _naming(name: str, sentence: str) -> str:
  if re.search(rf"\b{re.escape(name)}", sentence, re.IGNORECASE):
    return sentence
  return f"{name}, {sentence}" if sentence else name
