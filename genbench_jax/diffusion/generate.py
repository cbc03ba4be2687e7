"""Prompts straight to images: for use without a config."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8, UInt32

from genbench_jax.diffusion.inversion.embeddings import LearnedEmbeddings, load_embedding
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import UsageError
from genbench_jax.models.stable_diffusion import StableDiffusion, load_stable_diffusion
from genbench_jax.runtime.mesh import data_mesh


@functools.lru_cache(maxsize=1)
def _loaded(checkpoint: str, revision: str | None) -> StableDiffusion:
  return load_stable_diffusion(checkpoint, revision)


def generate(
  prompts: Sequence[str],
  checkpoint: str,
  seeds: Sequence[int] | None = None,
  latents: Float[np.ndarray, "b h w c"] | None = None,
  negative_prompts: Sequence[str] | str | None = None,
  steps: int = 20,
  guidance_scale: float = 7.5,
  scheduler: str = "dpmsolver++",
  height: int | None = None,
  width: int | None = None,
  revision: str | None = None,
  batch_per_device: int | None = None,
  learned_embeddings: Mapping[str, Float[np.ndarray, "d"]] | Sequence[str | Path] | None = None,
) -> UInt8[np.ndarray, "b height width 3"]:
  """Images of prompts, by a Stable Diffusion checkpoint, on all devices of this host.

  Args:
    prompts: one for each image.
    checkpoint: folder or hub id of a Stable Diffusion 1.x or 2.x in the Hugging Face layout.
    seeds: one for each image; by default 0, 1, 2, ... The same seed and prompt give the same image in any batch.
    latents: in place of seeds: unit-normal, height and width over the autoencoder's factor (8), channels last.
    negative_prompts: one for each image, or one for all.
    steps: sampler steps.
    guidance_scale: of classifier-free guidance; 1 is without, at half the cost.
    scheduler: `pndm`, `ddim`, `dpmsolver++` or `euler`.
    height, width: in pixels, by default those that the model was trained for.
    revision: commit, tag or branch of a hub id.
    batch_per_device: images on each device at once; by default as many as there are, up to 8.
    learned_embeddings: of new tokens that prompts may hold (textual inversion): placeholder -> embedding [d] or
      [v, d], or files, or folders with a `learned_embeds.safetensors` each.

  Raises:
    UsageError: an argument is out of its range, or there is no such checkpoint.
    RunError: the checkpoint is incomplete or corrupt.
  """
  prompts = [prompts] if isinstance(prompts, str) else list(prompts)
  count = len(prompts)
  negatives = _one_each(negative_prompts, count)
  if seeds is not None and latents is not None:
    raise UsageError("both seeds and latents were given: latents take the place of seeds.")
  for name, values in (("seeds", seeds), ("latents", latents), ("negative prompts", negatives)):
    if values is not None and len(values) != count:
      raise UsageError(f"{len(values)} {name} for {count} prompts.")
  mesh = data_mesh(jax.local_devices())
  rows = batch_per_device or min(8, -(-count // mesh.size)) or 1
  model = _loaded(str(checkpoint), revision)
  sampler = Sampler(model, mesh, rows, steps, guidance_scale, scheduler, height, width)
  if learned_embeddings is not None:
    sampler = sampler.with_learned_embeddings(_learned(learned_embeddings))
  keys = keys_of(range(count) if seeds is None else seeds) if latents is None else None
  return sampler(prompts, negatives, keys, latents)


def _learned(
  given: Mapping[str, Float[np.ndarray, "d"]] | Sequence[str | Path] | str | Path,
) -> LearnedEmbeddings:
  if isinstance(given, Mapping):
    return LearnedEmbeddings(
      {name: np.atleast_2d(np.asarray(v, np.float32)) for name, v in given.items()}
    )
  paths = [given] if isinstance(given, str | Path) else given
  return LearnedEmbeddings(dict(load_embedding(Path(path).expanduser()) for path in paths))


def _one_each(negative_prompts: Sequence[str] | str | None, count: int) -> list[str]:
  if negative_prompts is None or isinstance(negative_prompts, str):
    return [negative_prompts or ""] * count
  return list(negative_prompts)


def keys_of(seeds: Sequence[int]) -> UInt32[np.ndarray, "n 2"]:
  """The key data of `jax.random.key(seed)` for each seed."""
  keys = [np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in seeds]
  return np.asarray(keys, np.uint32).reshape(len(keys), 2)
