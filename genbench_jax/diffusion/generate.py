"""Images from prompts in one call, without a config."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8, UInt32

from genbench_jax.diffusion.inversion.embeddings import LearnedEmbeddings, load_learned
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding import library
from genbench_jax.errors import UsageError
from genbench_jax.models import checkpoints
from genbench_jax.models.diffusion_model import StableDiffusion
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.runtime.mesh import data_mesh

# JAX keys take 32-bit seeds; a larger seed would be truncated and repeat another seed's images.
SEEDS = 2**32


def _loaded(
  checkpoint: str, revision: str | None, loras: tuple[tuple[str, float], ...], autoencoder: str
) -> StableDiffusion:
  """Return the last model, or load another; one whose files have changed is another."""
  places = (checkpoint, *(path for path, _ in loras), *filter(None, (autoencoder,)))
  states = tuple(map(checkpoints.file_states, places))
  return _loaded_once(checkpoint, revision, loras, autoencoder, states)


@functools.lru_cache(maxsize=1)
def _loaded_once(
  checkpoint: str,
  revision: str | None,
  loras: tuple[tuple[str, float], ...],
  autoencoder: str,
  unchanged: Any,
) -> StableDiffusion:
  return load_stable_diffusion(checkpoint, revision, loras=loras, autoencoder=autoencoder)


def forget_models() -> None:
  """Release the models that `embed_images`, `embed_texts` and `generate` keep for their next call.

  Each keeps the last model that it loaded, because loading takes longer than most calls.
  """
  library.forget_encoder()
  _loaded_once.cache_clear()


def generate(
  prompts: Sequence[str],
  checkpoint: str | os.PathLike[str],
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
  *,
  step_noise: Float[np.ndarray, "t b h w c"] | None = None,
  eta: float = 0.0,
  guidance_rescale: float = 0.0,
  timesteps: Sequence[int] | None = None,
  scheduler_settings: Mapping[str, Any] | None = None,
  loras: Sequence[tuple[str | Path, float]] = (),
  autoencoder: str | Path = "",
) -> UInt8[np.ndarray, "b height width 3"]:
  """Generate images with a Stable Diffusion checkpoint, on all devices of this host.

  The model stays in memory for the next call; `forget_models` releases it.

  Args:
    prompts: one prompt per image.
    checkpoint: folder or hub id of a Stable Diffusion 1, 2 or XL, or of a model distilled from one,
      in the Hugging Face layout; or a `.safetensors` file in the layout of the original code.
    seeds: one per image, below 2^32; None for 0, 1, 2, ... A seed and prompt give the same image in
      any batch.
    latents: unit-normal latents instead of those drawn from seeds. Height and width are those of
      the image divided by the autoencoder's factor (8); channels come last.
    negative_prompts: one per image, or a single one for all.
    steps: number of sampler steps.
    guidance_scale: scale of classifier-free guidance; 1 or less disables it, at half the cost.
    scheduler: `pndm`, `ddim`, `dpmsolver++`, `euler`, `euler_ancestral`, `lcm` or `tcd`; `auto` is
      the checkpoint's own.
    height, width: in pixels; None for the size that the model was trained on.
    revision: commit, tag or branch of a hub id.
    batch_per_device: images per device; None for as many as needed, up to 8.
    learned_embeddings: new tokens that prompts may contain (textual inversion): placeholder ->
      embedding [d] or [v, d], or files, or folders that each contain a
      `learned_embeds.safetensors`. Embeddings for two text towers are concatenated.
    step_noise: unit-normal noise of each step, instead of that drawn from seeds.
    eta: fraction of fresh noise in `ddim` and `tcd`, 0 to 1.
    guidance_rescale: strength of guidance rescaling, 0 to 1 (arXiv 2305.08891).
    timesteps: descending timesteps to visit instead of `steps`; not for `pndm` and `ddim`.
    scheduler_settings: keys of `scheduler_config.json` that override the checkpoint's, such as
      `{"timestep_spacing": "trailing"}`.
    loras: files with low-rank updates of the UNet and the text towers (diffusers, PEFT or kohya),
      each with a weight.
    autoencoder: folder or hub id of an autoencoder to use instead of the checkpoint's.

  Returns:
    The images, uint8.

  Raises:
    UsageError: an argument is out of range, or the checkpoint does not exist.
    RunError: the checkpoint is incomplete or corrupt, or the sampler does not support one of its
      settings.
    ModelError: the model returned NaN or infinity.
  """
  prompts = [prompts] if isinstance(prompts, str) else list(prompts)
  count = len(prompts)
  negatives = _one_each(negative_prompts, count)
  _check_counts(count, seeds=seeds, latents=latents, negative_prompts=negatives)
  if seeds is not None and latents is not None and step_noise is not None:
    raise UsageError(
      "seeds, latents and step_noise were given: latents and step_noise replace seeds, so omit seeds."
    )
  mesh = data_mesh(jax.local_devices())
  # A batch of one prompt is not padded to eight, which would cost eight times as much on a CPU.
  rows = batch_per_device or min(8, -(-count // mesh.size)) or 1
  sampler = Sampler(
    _loaded(str(checkpoint), revision, named_weights(loras), str(autoencoder)),
    mesh,
    rows,
    steps,
    guidance_scale,
    scheduler,
    height,
    width,
    eta=eta,
    guidance_rescale=guidance_rescale,
    timesteps=timesteps,
    scheduler_settings=scheduler_settings,
  )
  if seeds is not None and latents is not None and not sampler.adds_noise:
    raise UsageError(
      "both seeds and latents were given: latents replace seeds, so omit one of them."
    )
  if learned_embeddings is not None:
    sampler = sampler.with_learned_embeddings(_learned(learned_embeddings))
  keys = keys_of(range(count) if seeds is None else seeds)
  return sampler(prompts, negatives, keys, latents, step_noise)


def named_weights(loras: Sequence[tuple[str | Path, float]]) -> tuple[tuple[str, float], ...]:
  """Return LoRAs as hashable pairs of path and weight.

  Raises:
    UsageError: an item is not a pair of a file and a weight.
  """
  pairs: list[tuple[Any, ...]] = [
    tuple(pair) if isinstance(pair, list | tuple) else () for pair in loras
  ]
  if any(len(pair) != 2 for pair in pairs):
    raise UsageError(
      "loras must be pairs of a file and its weight, such as [('style.safetensors', 0.8)]."
    )
  return tuple((str(path), weight) for path, weight in pairs)


def _check_counts(count: int, **given: Any) -> None:
  for name, values in given.items():
    if values is not None and len(values) != count:
      raise UsageError(f"{len(values)} {name.replace('_', ' ')} for {count} prompts.")


def _learned(
  given: Mapping[str, Float[np.ndarray, "d"]] | Sequence[str | Path] | str | Path,
) -> LearnedEmbeddings:
  if isinstance(given, Mapping):
    return LearnedEmbeddings(
      {name: np.atleast_2d(np.asarray(v, np.float32)) for name, v in given.items()}
    )
  paths = [given] if isinstance(given, str | Path) else given
  return load_learned([Path(path).expanduser() for path in paths])


def _one_each(negative_prompts: Sequence[str] | str | None, count: int) -> list[str]:
  if negative_prompts is None or isinstance(negative_prompts, str):
    return [negative_prompts or ""] * count
  return list(negative_prompts)


def keys_of(seeds: Sequence[int]) -> UInt32[np.ndarray, "n 2"]:
  """Return the key data of `jax.random.key(seed)` for each seed.

  Raises:
    UsageError: a seed is not an integer from 0 to 2^32 - 1.
  """
  for seed in seeds:
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < SEEDS:
      raise UsageError(f"seed {seed!r}: seeds must be integers from 0 to 2^32 - 1.")
  keys = [np.asarray(jax.random.key_data(jax.random.key(int(seed)))) for seed in seeds]
  return np.asarray(keys, np.uint32).reshape(len(keys), 2)
