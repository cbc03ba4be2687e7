"""A diffusion model with its sampling settings: prompts and random keys in, images out, batch by batch."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, UInt8, UInt32

from genbench_jax.diffusion.inversion.embeddings import LearnedEmbeddings
from genbench_jax.diffusion.memory import batch_that_fits
from genbench_jax.diffusion.program import (
  Made,
  drawing_program,
  embedding_params_on,
  lower_program,
  params_on,
  sampling_program,
)
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.diffusion.text import TextEncoder, text_encoder_on
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import UsageError
from genbench_jax.models.clip import Clip
from genbench_jax.models.stable_diffusion import StableDiffusion
from genbench_jax.runtime.mesh import batch_sharding, pad_rows, replicated


class Inputs(NamedTuple):
  """A batch before sampling, on the devices: hidden states of the texts and unit-normal latents."""

  text: Float[Array, "b g l d"]
  latents: Float32[Array, "b h w c"]


class Sampler:
  """A diffusion model with its sampling settings, on a mesh.

  Args:
    model: from `load_stable_diffusion`.
    mesh: its devices share every batch.
    batch_per_device: images on each device at once; None takes as many as fit (see `diffusion.memory`).
    steps: sampler steps.
    guidance_scale: of classifier-free guidance; 1 is without, at half the cost.
    scheduler: `pndm`, `ddim`, `dpmsolver++` or `euler`.
    height, width: in pixels, by default those that the model was trained for.
    clip: embeds the images on the devices, straight after they are decoded, in the same program.
    resize: how its preprocessing comes to a square.

  Raises:
    UsageError: a setting is out of its range.
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
    clip: Clip | None = None,
    resize: Resize = "crop",
  ):
    self.model, self.mesh, self.clip = model, mesh, clip
    self.height = model.image_size if height is None else height
    self.width = model.image_size if width is None else width
    self.latent_shape = _latent_shape(model, self.height, self.width)
    self.guided = guidance_scale != 1
    table, initial_scale = sampler_steps(model.schedule, scheduler, steps)
    settings = (table, np.float32(initial_scale), np.float32(guidance_scale))
    self._settings = jax.device_put(settings, replicated(mesh))
    self._params = params_on(model, mesh)
    if clip is not None:
      embedding = embedding_params_on(clip, mesh, self.height, self.width, resize)
      self._params = self._params | embedding
    self._program = sampling_program(model, mesh, clip)
    if batch_per_device is None:
      batch_per_device = batch_that_fits(self.lower, mesh)
    self.batch_size = batch_per_device * mesh.size
    self._encode = text_encoder_on(model, mesh)
    self._draw = drawing_program(mesh, self.latent_shape)

  def with_learned_embeddings(self, learned: LearnedEmbeddings) -> "Sampler":
    """The same sampler for prompts that may hold new tokens; it shares weights and programs.

    Raises:
      UsageError: the tokens were learned for another model.
    """
    other = copy.copy(self)
    other._encode = TextEncoder(self.model, self.mesh, learned=learned)
    return other

  @property
  def evaluations(self) -> int:
    """How often the UNet is evaluated for an image."""
    return len(self._settings[0].timestep)

  def prepare(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
  ) -> Inputs:
    """Encodes texts, draws latents and puts both on the devices.

    Args:
      prompts: at most `batch_size`.
      negative_prompts: one for each prompt, `""` for none; unused where the guidance scale is 1.
      keys: threefry key data, one for each image.
      latents: unit-normal latents in place of keys.
    """
    count = len(prompts)
    if count > self.batch_size or len(negative_prompts) != count:
      raise UsageError(
        f"{count} prompts and {len(negative_prompts)} negative prompts for a batch of {self.batch_size}."
      )
    groups = [negative_prompts, prompts] if self.guided else [prompts]
    text = np.stack([self._encode(group) for group in groups], axis=1)
    if latents is None:
      start = self._draw(self._put(np.asarray(keys, np.uint32)))
    else:
      start = self._put(self._checked(np.asarray(latents, np.float32)))
    return Inputs(self._put(text), start)

  def launch(self, inputs: Inputs) -> Made:
    """Starts one batch and returns without waiting for it.

    Returns:
      `batch_size` images, on the devices; those beyond the prompts pad. `np.asarray` waits for them.
    """
    return self._program(self._params, *inputs, *self._settings)

  def __call__(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
  ) -> UInt8[np.ndarray, "n h w 3"]:
    """The images of all prompts, in batches; arguments as in `prepare`."""
    waiting = None
    images = [np.zeros((0, self.height, self.width, 3), np.uint8)]
    for rows in _slices(len(prompts), self.batch_size):
      some = [None if array is None else array[rows] for array in (keys, latents)]
      started = self.launch(self.prepare(prompts[rows], negative_prompts[rows], *some)).images
      if waiting is not None:  # fetched only when the next batch is on its way
        images.append(np.asarray(waiting))
      waiting = started
    if waiting is not None:
      images.append(np.asarray(waiting))
    return np.concatenate(images)[: len(prompts)]

  def lower(self, batch_per_device: int) -> jax.stages.Lowered:
    """The program for another batch, to be compiled and asked for its memory or FLOPs; see `lower_program`."""
    shape = (batch_per_device, self.evaluations, self.guided, self.latent_shape)
    return lower_program(self.model, self.mesh, *shape, self.clip)

  def _put(self, rows: np.ndarray) -> Array:
    return jax.device_put(pad_rows(rows, self.batch_size), batch_sharding(self.mesh))

  def _checked(self, latents: Float32[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n h w c"]:
    if latents.shape[1:] != self.latent_shape:
      raise UsageError(
        f"latents have shape {list(latents.shape)}, wanted [n, {', '.join(map(str, self.latent_shape))}]."
      )
    return latents


def _latent_shape(model: StableDiffusion, height: int, width: int) -> tuple[int, int, int]:
  factor = model.downsampling_factor
  # The UNet halves its input at all but its last level and must come back to the same size.
  multiple = factor * 2 ** (len(model.unet.block_out_channels) - 1)
  if height < 1 or width < 1 or height % multiple or width % multiple:
    raise UsageError(
      f"height and width are {height} and {width}; both must be multiples of {multiple}."
    )
  return height // factor, width // factor, model.latent_channels


def _slices(count: int, size: int) -> Iterator[slice]:
  return (slice(begin, begin + size) for begin in range(0, count, size))
