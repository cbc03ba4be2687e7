"""A diffusion model with its sampling settings: prompts and random keys in, images out."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, UInt8, UInt32

from genbench_jax.diffusion.inversion.embeddings import LearnedEmbeddings
from genbench_jax.diffusion.memory import batch_that_fits
from genbench_jax.diffusion.program import (
  GeneratedBatch,
  Guidance,
  Noise,
  ProgramShape,
  drawing_program,
  embedding_params_on,
  lower_program,
  params_on,
  sampling_program,
)
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.diffusion.text import TextEncoder, text_encoder_on
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import ModelError, UsageError
from genbench_jax.models.diffusion_model import StableDiffusion, Texts
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.runtime.mesh import batch_sharding, pad_rows, replicated


class Inputs(NamedTuple):
  """Inputs of a batch on the devices: encoded texts, unit-normal latents, and noise if needed."""

  texts: Texts
  latents: Float32[Array, "b h w c"]
  noise: Noise | None


class Sampler:
  """A diffusion model with its sampling settings, on a mesh.

  Args:
    model: a model from `load_stable_diffusion`.
    mesh: devices that share every batch.
    batch_per_device: images per device; None for as many as fit (see `diffusion.memory`).
    steps: number of sampler steps.
    guidance_scale: scale of classifier-free guidance; 1 or less disables it, at half the cost. A
      model that was distilled to take the scale as an input receives it.
    scheduler: a key of `sampler_tables.TABLES`, or `auto` for the checkpoint's own.
    height, width: in pixels; None for the size that the model was trained on.
    encoder: embeds the images on the devices, in the same program.
    resize: resize method of the encoder's preprocessing.
    eta: fraction of fresh noise in DDIM and TCD.
    guidance_rescale: strength of guidance rescaling, 0 to 1 (arXiv 2305.08891).
    timesteps: descending timesteps to visit, instead of `steps`.
    scheduler_settings: keys of `scheduler_config.json` that override the checkpoint's.

  Raises:
    UsageError: a setting is out of range.
    RunError: the sampler does not support a setting of the checkpoint.
  """

  def __init__(
    self,
    model: StableDiffusion,
    mesh: Mesh,
    batch_per_device: int | None = None,
    steps: int = 20,
    guidance_scale: float = 7.5,
    scheduler: str = "dpmsolver++",
    height: int | None = None,
    width: int | None = None,
    encoder: ImageEncoder | None = None,
    resize: Resize = "crop",
    *,
    eta: float = 0.0,
    guidance_rescale: float = 0.0,
    timesteps: Sequence[int] | None = None,
    scheduler_settings: Mapping[str, Any] | None = None,
  ):
    _check_guidance(guidance_scale, guidance_rescale)
    self.model, self.mesh, self.encoder = model, mesh, encoder
    self.height = model.image_size if height is None else height
    self.width = model.image_size if width is None else width
    self.latent_shape = _latent_shape(model, self.height, self.width)
    # A distilled model takes the scale as an input, so it needs no second evaluation.
    self.guided = guidance_scale > 1 and not model.takes_guidance
    schedule = model.schedule.with_settings(scheduler_settings or {})
    table, initial_scale = sampler_steps(schedule, scheduler, steps, eta, timesteps)
    self.adds_noise = bool(table.noise.any())
    guidance = Guidance(*jnp.asarray([guidance_scale, guidance_rescale], jnp.float32))
    settings = (table, np.float32(initial_scale), guidance)
    self._settings = jax.device_put(settings, replicated(mesh))
    self._params = params_on(model, mesh)
    if encoder is not None:
      embedding = embedding_params_on(encoder, mesh, self.height, self.width, resize)
      self._params = self._params | embedding
    self._program = sampling_program(model, mesh, encoder)
    if batch_per_device is None:
      batch_per_device = batch_that_fits(self.lower, mesh)
    self.batch_size = batch_per_device * mesh.size
    self._encode = text_encoder_on(model, mesh)
    self._draw = drawing_program(mesh, self.latent_shape)

  def with_learned_embeddings(self, learned: LearnedEmbeddings) -> "Sampler":
    """Return this sampler for prompts that may contain new tokens; it shares weights and programs.

    Raises:
      UsageError: the tokens were learned for another model.
    """
    other = copy.copy(self)
    other._encode = TextEncoder(self.model, self.mesh, learned=learned)
    return other

  @property
  def evaluations(self) -> int:
    """Number of UNet evaluations per image."""
    return len(self._settings[0].timestep)

  def prepare(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
    step_noise: Float32[np.ndarray, "t n h w c"] | None = None,
  ) -> Inputs:
    """Encode texts, draw latents, and put both on the devices.

    Args:
      prompts: at most `batch_size` prompts.
      negative_prompts: one per prompt, `""` for none; ignored without guidance.
      keys: threefry key data, one per image, for its latents and the noise of each step.
      latents: unit-normal latents to use instead of those drawn from `keys`.
      step_noise: unit-normal noise of each step, instead of that drawn from `keys`.

    Raises:
      UsageError: counts or shapes do not match, or the sampler adds noise but has neither keys nor
        noise.
    """
    count = len(prompts)
    if count > self.batch_size or len(negative_prompts) != count:
      raise UsageError(
        f"{count} prompts and {len(negative_prompts)} negative prompts for a batch of {self.batch_size}."
      )
    texts = jax.tree.map(self._put, self._texts(prompts, negative_prompts))
    if latents is None:
      # threefry keys are drawn on the devices, so that an image does not depend on the batch or the
      # number of devices.
      start = self._draw(self._put(np.asarray(keys, np.uint32)))
    else:
      start = self._put(self._checked(np.asarray(latents, np.float32)))
    return Inputs(texts, start, self._noise(keys, step_noise))

  def _texts(self, prompts: Sequence[str], negative_prompts: Sequence[str]) -> Texts:
    """Return negative prompts and prompts [n, 2, ...], or prompts alone [n, 1, ...]."""
    groups = [self._encode(prompts)]
    if self.guided:
      negative = self._encode(negative_prompts)
      if self.model.zeros_for_empty:
        # Such checkpoints (SDXL) were trained with zeros, not with the encoded empty string.
        given = np.array([bool(text) for text in negative_prompts])
        negative = jax.tree.map(lambda rows: _zero_rows(rows, ~given), negative)
      groups = [negative, *groups]
    return jax.tree.map(lambda *rows: np.stack(rows, axis=1), *groups)

  def _noise(
    self,
    keys: UInt32[np.ndarray, "n 2"] | None,
    step_noise: Float32[np.ndarray, "t n h w c"] | None,
  ) -> Noise | None:
    if not self.adds_noise:
      return None
    if step_noise is not None:
      drawn = np.moveaxis(np.asarray(step_noise, np.float32), 0, 1)
      wanted = (self.evaluations, *self.latent_shape)
      if drawn.shape[1:] != wanted:
        listed = ", ".join(map(str, (wanted[0], "n", *wanted[1:])))
        raise UsageError(f"step_noise has shape {list(step_noise.shape)}, expected [{listed}].")
      return Noise(drawn=self._put(drawn))
    if keys is None:
      raise UsageError(
        "this scheduler adds noise: give seeds or step_noise in addition to latents."
      )
    return Noise(keys=self._put(np.asarray(keys, np.uint32)))

  def launch(self, inputs: Inputs) -> GeneratedBatch:
    """Start one batch without waiting for it.

    Returns:
      `batch_size` images on the devices; those beyond the prompts are padding. `np.asarray` waits
      for them.
    """
    return self._program(self._params, *inputs, *self._settings)

  def __call__(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
    step_noise: Float32[np.ndarray, "t n h w c"] | None = None,
  ) -> UInt8[np.ndarray, "n _ _ 3"]:
    """Return the images of all prompts, in batches; arguments as in `prepare`.

    Raises:
      ModelError: the model returned NaN or infinity.
    """
    waiting: GeneratedBatch | None = None
    images = [np.zeros((0, self.height, self.width, 3), np.uint8)]
    for rows in _slices(len(prompts), self.batch_size):
      key, latent = (None if array is None else array[rows] for array in (keys, latents))
      noise = None if step_noise is None else step_noise[:, rows]
      started = self.launch(self.prepare(prompts[rows], negative_prompts[rows], key, latent, noise))
      if waiting is not None:  # fetch only after the next batch has been started
        images.append(_fetched(waiting))
      waiting = started
    if waiting is not None:
      images.append(_fetched(waiting))
    return np.concatenate(images)[: len(prompts)]

  def lower(self, batch_per_device: int) -> jax.stages.Lowered:
    """Lower the program for another batch size, to inspect its memory or FLOPs."""
    size = (batch_per_device, self.evaluations, self.guided, self.latent_shape, self.adds_noise)
    return lower_program(self.model, self.mesh, ProgramShape(*size), self.encoder)

  def _put(self, rows: np.ndarray) -> Array:
    return jax.device_put(pad_rows(rows, self.batch_size), batch_sharding(self.mesh))

  def _checked(self, latents: Float32[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n h w c"]:
    if latents.shape[1:] != self.latent_shape:
      raise UsageError(
        f"latents have shape {list(latents.shape)}, expected [n, {', '.join(map(str, self.latent_shape))}]."
      )
    return latents


def _zero_rows(rows: Float[np.ndarray, "n ..."], chosen: Bool[np.ndarray, "n"]) -> np.ndarray:
  return np.where(chosen.reshape(-1, *(1,) * (rows.ndim - 1)), np.zeros_like(rows), rows)


def _check_guidance(scale: float, rescale: float) -> None:
  if not math.isfinite(scale):
    raise UsageError(f"guidance_scale is {scale}; it must be a finite number.")
  if not 0 <= rescale <= 1:  # also catches NaN
    raise UsageError(f"guidance_rescale is {rescale}; it must be from 0 to 1.")


def _fetched(made: GeneratedBatch) -> UInt8[np.ndarray, "b h w 3"]:
  """Wait for a batch and return its images.

  Raises:
    ModelError: the model returned NaN or infinity.
  """
  if not np.asarray(made.are_finite).all():
    raise ModelError(
      "the diffusion model returned NaN or infinity: half precision may have overflowed, or the checkpoint is broken. Try"
      " another dtype or scheduler."
    )
  return np.asarray(made.images)


def _latent_shape(model: StableDiffusion, height: int, width: int) -> tuple[int, int, int]:
  factor = model.downsampling_factor
  # The UNet halves its input at every level but the last, and its skip connections need matching
  # sizes on the way back.
  multiple = factor * 2 ** (len(model.unet.config.block_out_channels) - 1)
  if height < 1 or width < 1 or height % multiple or width % multiple:
    raise UsageError(
      f"height and width are {height} and {width}; both must be multiples of {multiple}."
    )
  return height // factor, width // factor, model.latent_channels


def _slices(count: int, size: int) -> Iterator[slice]:
  return (slice(begin, begin + size) for begin in range(0, count, size))
