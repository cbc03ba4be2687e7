"""Prompts to the hidden states that the UNet attends to, each distinct prompt once."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from genbench_jax.diffusion.inversion.embeddings import LearnedEmbeddings, check_fits, tokenize_with
from genbench_jax.embedding.embedder import fitting_batch
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.corrections import apply_text_encoder
from genbench_jax.models.stable_diffusion import StableDiffusion
from genbench_jax.models.tokenizer import tokenize
from genbench_jax.runtime.mesh import batch_sharding, data_mesh, pad_rows, replicated


class TextEncoder:
  """The text tower on a mesh, with the latest prompts' states kept on the host.

  Args:
    model: whose tower it is.
    mesh: its devices share every batch.
    batch_per_device: prompts on each device at once, at most.
    keep: prompts whose states are kept; 300 kB each for Stable Diffusion 2 in float32.
    learned: new tokens that prompts may hold.

  Raises:
    UsageError: the new tokens were learned for another model.
  """

  def __init__(
    self,
    model: StableDiffusion,
    mesh: Mesh,
    batch_per_device: int = 16,
    keep: int = 2048,
    learned: LearnedEmbeddings | None = None,
  ):
    self.model, self.mesh, self.learned = model, mesh, learned
    self.batch_per_device, self.keep = batch_per_device, keep
    self._table = None
    if learned is not None:
      check_fits(learned, model.tokenizer, model.text_encoder.config.hidden_size)
      self._table = jax.device_put(learned.table, replicated(mesh))
    self._program = _program(model, mesh)
    self._params = text_params_on(model, mesh)
    self._states: OrderedDict[str, Float[np.ndarray, "l d"]] = OrderedDict()

  def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n l d"]:
    """The hidden states of each text, in the model's dtype."""
    self._encode([text for text in dict.fromkeys(texts) if text not in self._states])
    for text in dict.fromkeys(texts):
      self._states.move_to_end(text)
    states = np.stack([self._states[text] for text in texts])
    while len(self._states) > self.keep:
      self._states.popitem(last=False)
    return states

  def _encode(self, texts: Sequence[str]) -> None:
    size = fitting_batch(len(texts), self.mesh.size, self.batch_per_device)
    for begin in range(0, len(texts), size):
      chunk = texts[begin : begin + size]
      tokens = jax.device_put(pad_rows(self._tokens(chunk), size), batch_sharding(self.mesh))
      states = self._program(self._params, tokens, self._table)
      self._states.update(zip(chunk, np.asarray(states), strict=False))

  def _tokens(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    if self.learned is None:
      return tokenize(self.model.tokenizer, texts, self.model.max_tokens)
    ids = self.learned.ids(self.model.text_encoder.config.vocab_size)
    return tokenize_with(self.model.tokenizer, ids, texts, self.model.max_tokens)


@functools.lru_cache(maxsize=2)
def text_params_on(model: StableDiffusion, mesh: Mesh) -> Params:
  """The text tower's parameters on a mesh, shared by all that encode."""
  return jax.device_put(model.params["text_encoder"], replicated(mesh))


@functools.lru_cache(maxsize=2)
def text_encoder_on(model: StableDiffusion, mesh: Mesh) -> TextEncoder:
  """The one `TextEncoder` of a model on a mesh, so that samplers share its parameters and states."""
  return TextEncoder(model, mesh)


@functools.lru_cache(maxsize=8)
def _program(model: StableDiffusion, mesh: Mesh) -> Callable[..., Array]:
  rows, shared = batch_sharding(mesh), replicated(mesh)
  encode: Any = functools.partial(apply_text_encoder, model.text_encoder)
  return jax.jit(encode, in_shardings=(shared, rows, shared), out_shardings=rows)


def encode_prompts(
  model: StableDiffusion, texts: Sequence[str], mesh: Mesh | None = None
) -> Float[np.ndarray, "n l d"]:
  """The hidden states of each text, in the model's dtype; equal texts are encoded once."""
  return text_encoder_on(model, data_mesh(jax.local_devices()) if mesh is None else mesh)(texts)
