"""T5, as the keyword-to-sentence model of Category Enhancement needs it."""

import dataclasses
import functools
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
from genbench_jax.models import checkpoints, upstream
from genbench_jax.models.clip import compute_dtype

DOWNLOADS = ("*.json", "model*.safetensors", "flax_model.msgpack", "spiece.model")


_INPUT_TOKENS = 64


_OUTPUT_TOKENS = 20


_LIKELIEST = 50


# Copies of the shared embedding, and a tensor of the first T5s that their own code never read.
_COPIES = re.compile(
  r"^(encoder|decoder)\.embed_tokens\.weight$|EncDecAttention\.relative_attention_bias\.weight$"
)


_TIED = re.compile(_COPIES.pattern + r"|^lm_head\.weight$")


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceModel:
  """A T5 ready to write.

  Attributes:
    model: the Flax model, without parameters of its own.
    params: its parameters.
    tokenizer: a `T5TokenizerFast`.
  """

  model: Any
  params: checkpoints.Params
  tokenizer: Any

  def sample(self, text: str, count: int, seed: int) -> list[str]:
    """So many sampled continuations of a text, equal ones among them; the same for the same seed and text."""
    tokens, mask = self._tokenized(text, count)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(text.encode()))
    sequences = np.asarray(self._program(self.params, tokens, mask, jax.random.key_data(key)))
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
    def write(params: Any, tokens: Array, mask: Array, key: Array) -> Int[Array, "n l"]:
      return self.model.generate(
        tokens,
        attention_mask=mask,
        params=params,
        prng_key=key,
        do_sample=True,
        top_k=_LIKELIEST,
        max_length=_OUTPUT_TOKENS,
      ).sequences

    return jax.jit(write)


def load_sentence_model(checkpoint: str, revision: str | None = None) -> SentenceModel:
  """Loads a T5 from a folder or hub id.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(checkpoint, revision, DOWNLOADS)
  model = _flax_model(folder)
  params = checkpoints.load_params(
    folder,
    parameter_shapes(folder),
    compute_dtype(),
    _TIED if model.config.tie_word_embeddings else _COPIES,
  )
  return SentenceModel(model, params, _tokenizer(folder))


def parameter_shapes(folder: Path) -> checkpoints.Params:
  """The parameter tree of the T5 whose `config.json` stands in `folder`, as shapes."""
  tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
  return checkpoints.shapes_of(_flax_model(folder).module.init, tokens, tokens, tokens, tokens)


def _flax_model(folder: Path) -> Any:
  upstream.silence()
  from transformers import FlaxT5ForConditionalGeneration, T5Config
  from transformers.models.t5 import modeling_flax_t5

  # Upstream's calls an argument of `jnp.clip` by a name that JAX has dropped.
  attention: Any = modeling_flax_t5.FlaxT5Attention
  attention._relative_position_bucket = staticmethod(relative_position_bucket)
  config = checkpoints.read_json(folder / "config.json")
  if config.get("model_type") != "t5":
    raise RunError(f"{folder} holds a model of type {config.get('model_type')!r}, not 't5'.")
  return FlaxT5ForConditionalGeneration(
    T5Config.from_dict(config), dtype=compute_dtype(), _do_init=False
  )


def relative_position_bucket(
  relative_position: Int[Array, "q k"],
  bidirectional: bool = True,
  num_buckets: int = 32,
  max_distance: int = 128,
) -> Int32[Array, "q k"]:
  """Which learned bias a distance between two tokens has: near ones each their own, far ones by logarithm.

  Reference:
    T5, section 2.1 (arXiv 1910.10683).
  """
  first = jnp.zeros((), jnp.int32)
  if bidirectional:
    num_buckets //= 2
    first = jnp.where(relative_position > 0, num_buckets, 0)
    distance = jnp.abs(relative_position)
  else:
    distance = -jnp.minimum(relative_position, 0)
  exact = num_buckets // 2
  log_share = jnp.log(jnp.maximum(distance, 1) / exact) / np.log(max_distance / exact)
  far = jnp.minimum(exact + (log_share * (num_buckets - exact)).astype(jnp.int32), num_buckets - 1)
  return (first + jnp.where(distance < exact, distance, far)).astype(jnp.int32)


def _tokenizer(folder: Path) -> Any:
  from transformers import T5TokenizerFast

  if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
    raise RunError(f"{folder / 'tokenizer.json'} is missing from the checkpoint.")
  try:
    return T5TokenizerFast.from_pretrained(str(folder), local_files_only=True)
  except ImportError as error:
    raise RunError(
      f"{folder} has no tokenizer.json, and reading its spiece.model takes the package sentencepiece: install it."
    ) from error
  except (OSError, ValueError, KeyError) as error:
    raise RunError(f"the tokenizer in {folder} can't be read: {error}.") from error
