"""T5, the keyword-to-sentence model of Category Enhancement."""

import dataclasses
import functools
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.configuration import Settings, refuse_other_models
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.sentencepiece import load_sentencepiece
from genbench_jax.models.t5_network import SamplingSettings, T5Network, T5Sizes, sample

DOWNLOADS = ("*.json", "model*.safetensors", "flax_model.msgpack", "spiece.model")

_INPUT_TOKENS = 64
_OUTPUT_TOKENS = 20
_LIKELIEST = 50

# Copies of the shared embedding, and a tensor of the first T5 checkpoints that their own code never read.
_COPIES = re.compile(
  r"^(encoder|decoder)\.embed_tokens\.weight$|EncDecAttention\.relative_attention_bias\.weight$"
)
_LOGITS = "lm_head.weight"
_TIED = re.compile(_COPIES.pattern + r"|^lm_head\.weight$")


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceModel:
  """A T5 with its parameters and tokenizer.

  Attributes:
    network: the network.
    params: its parameters.
    tokenizer: tokenizer from `tokenizer.json` or `spiece.model`.
    sampling: sampling settings.
  """

  network: T5Network
  params: weights.Params
  tokenizer: Any
  sampling: SamplingSettings

  def sample(self, text: str, count: int, seed: int) -> list[str]:
    """Return `count` sampled continuations of a text, with duplicates; determined by seed and text.

    Args:
      text: input, such as keywords of a class.
      count: number of sentences.
      seed: random seed.
    """
    tokens, mask = self._tokenized(text, count)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(text.encode()))
    sequences = np.asarray(self._program(self.params, tokens, mask, key))
    written = self.tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return [" ".join(sentence.split()) for sentence in written]

  def _tokenized(
    self, text: str, count: int
  ) -> tuple[Int32[np.ndarray, "n l"], Int32[np.ndarray, "n l"]]:
    found = self.tokenizer(
      text, max_length=_INPUT_TOKENS, padding="max_length", truncation=True, return_tensors="np"
    )
    repeat = lambda row: np.repeat(row.astype(np.int32), count, axis=0)  # noqa: E731
    return repeat(found["input_ids"]), repeat(found["attention_mask"])

  @functools.cached_property
  def _program(self) -> Callable[..., Int[Array, "n l"]]:
    def write(params: weights.Params, tokens: Array, mask: Array, key: Array) -> Int[Array, "n l"]:
      return sample(self.network, params, tokens, mask > 0, key, self.sampling)

    return jax.jit(write)


def load_sentence_model(checkpoint: str, revision: str | None = None) -> SentenceModel:
  """Load a T5 from a folder or hub id.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(checkpoint, revision, DOWNLOADS)
  settings, tensors = _settings(folder), checkpoints.read_weights(folder)
  sizes = T5Sizes.read(settings)
  if _LOGITS not in tensors:  # untied by its configuration, but saved by a library that ties anyway
    sizes = dataclasses.replace(sizes, own_logits=False)
  network = T5Network(sizes, compute_dtype())
  ignored = _COPIES if sizes.own_logits else _TIED
  params = weights.load(tensors, _shapes(network), folder, compute_dtype(), ignored)
  return SentenceModel(network, params, _tokenizer(folder), _sampling(settings, sizes))


def parameter_shapes(folder: Path) -> weights.Params:
  """Return the shapes of the parameters of the T5 whose `config.json` is in `folder`."""
  return _shapes(T5Network(T5Sizes.read(_settings(folder))))


def _settings(folder: Path) -> Settings:
  path = folder / "config.json"
  settings = Settings(checkpoints.read_json(path), path)
  refuse_other_models(settings, ("t5",))
  return settings


def _shapes(network: T5Network) -> weights.Params:
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  return weights.parameter_shapes(
    network.init, tokens, jax.ShapeDtypeStruct((1, 2), jnp.bool_), tokens
  )


def _sampling(settings: Settings, sizes: T5Sizes) -> SamplingSettings:
  def token(name: str, default: int) -> int:
    return settings.integer(name, default, 0, sizes.vocabulary - 1)

  pad = token("pad_token_id", 0)
  start, end = token("decoder_start_token_id", pad), token("eos_token_id", 1)
  return SamplingSettings(start, end, pad, _OUTPUT_TOKENS, _LIKELIEST)


def _tokenizer(folder: Path) -> Any:
  """Load the tokenizer in the folder. Files elsewhere, named by `tokenizer_config.json`, are ignored."""
  # At import, transformers warns that PyTorch is missing, which is not needed here.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  from transformers import PreTrainedTokenizerFast

  special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
  whole, pieces = folder / "tokenizer.json", folder / "spiece.model"
  if not whole.is_file() and not pieces.is_file():
    raise RunError(f"{whole} is missing from the checkpoint.")
  try:
    if whole.is_file():
      return PreTrainedTokenizerFast(tokenizer_file=str(whole), **special)
    return PreTrainedTokenizerFast(tokenizer_object=_from_pieces(pieces), **special)
  except RunError:
    raise
  except Exception as error:  # the Rust library raises plain exceptions
    raise RunError(f"the tokenizer in {folder} can't be read: {error}.") from error


def _from_pieces(path: Path) -> Any:
  """Load a tokenizer from SentencePiece's own file, and add T5's end-of-text token."""
  from tokenizers import processors

  core = load_sentencepiece(path)
  end = core.token_to_id("</s>")
  if end is None:
    raise RunError(f"the tokenizer in {path} has no end-of-text token.")
  core.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", end)])
  return core
