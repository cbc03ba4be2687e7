"""Write sentences about a class with a keyword-to-sentence T5, for Category Enhancement.

Any T5 in the Hugging Face layout works; the paper's code uses `mrm8488/t5-base-finetuned-common_gen`. As in
that code, sampling has temperature 1, the 50 most likely tokens, and at most 20 tokens.
"""

import re
import zlib
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class SentenceWriter(Protocol):
  """A model that writes sentences about given words, such as `models.t5.SentenceModel`."""

  def sample(self, words: str, count: int, seed: int) -> list[str]: ...


# Distinct sentences per class: our choice for strict, `total_num_temps` of the published code for reference.
SENTENCES = {"strict": 64, "reference": 16}
# Extra samples in the reference, since some are duplicates.
_SPARE = 50


def write_sentences(model: SentenceWriter, name: str, seed: int, protocol: str) -> list[str]:
  """Return distinct sentences about a class, in a seeded order.

  Strict puts the class name in front of a sentence that lacks it. Reference splits the name at periods,
  writes about each part, and joins the results.

  Args:
    model: writes the sentences.
    name: class name.
    seed: random seed.
    protocol: `strict` or `reference`.
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
