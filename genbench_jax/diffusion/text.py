"""Text encoding for the UNet's cross-attention; each distinct prompt is encoded once."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from genbench_jax.diffusion.inversion.embeddings import (
  LearnedEmbeddings,
  check_fits,
  tokenize_with,
  tower_tables,
)
from genbench_jax.embedding.embedder import fitting_batch
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.diffusion_model import (
  StableDiffusion,
  Texts,
  TextTower,
  apply_text_encoders,
)
from genbench_jax.models.diffusion_parts import TEXT_PARTS
from genbench_jax.models.tokenizer import tokenize
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.mesh import batch_sharding, data_mesh, pad_rows, replicated


class TextEncoder:
  """Text towers on a mesh, with a host cache of the latest prompts' hidden states.

  Args:
    model: the diffusion model.
    mesh: devices that share every batch.
    batch_per_device: maximal number of prompts per device and batch.
    keep: number of cached prompts; each takes 300 kB for Stable Diffusion 2 in float32.
    learned: new tokens that prompts may contain.

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
    self._tables: Any = None
    if learned is not None:
      check_fits(learned, model.towers)
      tables = tower_tables(jnp.asarray(learned.table), model.towers)
      self._tables = jax.device_put(tables, replicated(mesh))
    self._program = _program(model, mesh)
    self._params = text_params_on(model, mesh)
    self._texts: OrderedDict[str, Texts] = OrderedDict()

  def __call__(self, texts: Sequence[str]) -> Texts:
    """Return the encoded texts, on the host, in the model's dtype."""
    self._encode([text for text in dict.fromkeys(texts) if text not in self._texts])
    for text in dict.fromkeys(texts):
      self._texts.move_to_end(text)
    # Stack the cached states before evicting: a call may hold more texts than the cache keeps.
    chosen = jax.tree.map(lambda *rows: np.stack(rows), *(self._texts[text] for text in texts))
    while len(self._texts) > self.keep:
      self._texts.popitem(last=False)
    return chosen

  def _encode(self, texts: Sequence[str]) -> None:
    size = fitting_batch(len(texts), self.mesh.size, self.batch_per_device)
    for begin in range(0, len(texts), size):
      chunk = texts[begin : begin + size]
      tokens = [pad_rows(self._tokens(tower, chunk), size) for tower in self.model.towers]
      put = jax.device_put(tokens, batch_sharding(self.mesh))
      # Keep the states on the host: device memory is needed for sampling.
      made = jax.tree.map(np.asarray, self._program(self._params, put, self._tables))
      for row, text in enumerate(chunk):
        self._texts[text] = jax.tree.map(lambda array, row=row: array[row], made)

  def _tokens(self, tower: TextTower, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    length = self.model.max_tokens
    if self.learned is None:
      return tokenize(tower.tokenizer, texts, length)
    return tokenize_with(tower.tokenizer, self.learned.ids(tower.vocabulary), texts, length)


@kept(2)
def text_params_on(model: StableDiffusion, mesh: Mesh) -> Params:
  """Return the text towers' parameters, replicated on a mesh; cached and shared."""
  parts = {part: model.params[part] for part in TEXT_PARTS if part in model.params}
  return jax.device_put(parts, replicated(mesh))


@kept(2)
def text_encoder_on(model: StableDiffusion, mesh: Mesh) -> TextEncoder:
  """Return the shared `TextEncoder` of a model on a mesh; cached."""
  return TextEncoder(model, mesh)


@kept(8)
def _program(model: StableDiffusion, mesh: Mesh) -> Callable[..., Texts]:
  rows, shared = batch_sharding(mesh), replicated(mesh)
  encode: Any = functools.partial(apply_text_encoders, model.towers)
  return jax.jit(encode, in_shardings=(shared, rows, shared), out_shardings=rows)


def encode_prompts(model: StableDiffusion, texts: Sequence[str], mesh: Mesh | None = None) -> Texts:
  """Encode texts in the model's dtype; equal texts are encoded once.

  Args:
    model: the diffusion model.
    texts: texts to encode.
    mesh: devices that share every batch; None for all devices of this host.
  """
  return text_encoder_on(model, data_mesh(jax.local_devices()) if mesh is None else mesh)(texts)
