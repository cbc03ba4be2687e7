"""Text features and random keys in, uint8 images out: one compiled program per shape.

The batch is split over the mesh inside `shard_map`: every device runs the same program on its own images, so the
compiler can't put a collective in the loop, and kernels that know nothing of meshes (flash attention) can be used.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, UInt8, UInt32

from genbench_jax.checkpoints import Params
from genbench_jax.diffusion import schedulers
from genbench_jax.diffusion.attention import cudnn_works
from genbench_jax.diffusion.model import StableDiffusion
from genbench_jax.diffusion.modules import apply_decoder, apply_unet
from genbench_jax.diffusion.schedulers import Steps, sampler_steps
from genbench_jax.diffusion.text import TextEncoder
from genbench_jax.errors import UsageError
from genbench_jax.parallel.mesh import DATA_AXIS, batch_sharding, pad_rows, replicated

# Pixels that the autoencoder decodes at once on a device: four images of 512 x 512. Its temporaries dwarf the UNet's.
DECODED_AT_ONCE = 4 * 512 * 512


def draw_latents(
  keys: UInt32[Array, "b 2"], shape: tuple[int, int, int]
) -> Float32[Array, "b h w c"]:
  """Unit-normal latents, each from its own key: the same whatever else is in the batch."""
  return jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), shape))(keys)


def denoise(
  model: StableDiffusion,
  params: Params,
  text: Float[Array, "b g l d"],
  latents: Float32[Array, "b h w c"],
  steps: Steps,
  guidance_scale: Float[Array, ""],
  platform: str | None = None,
) -> Float32[Array, "b h w c"]:
  """Runs a sampler over its whole table.

  Args:
    model: its UNet is used.
    params: of the UNet.
    text: hidden states of negative prompt and prompt (g = 2), or of the prompt alone (g = 1): no guidance then.
    latents: unit-normal, times the sampler's initial scale.
    steps: the sampler's table.
    guidance_scale: w in `negative + w (positive - negative)` (arXiv 2207.12598, with w = 1 + its weight).
    platform: `cpu`, `gpu` or `tpu`, for the choice of attention.

  Returns:
    Clean latents at the UNet's scale.
  """
  batch, variants = text.shape[:2]
  context = text.reshape(batch * variants, *text.shape[2:])

  def body(state: schedulers.State, row: Steps) -> tuple[schedulers.State, None]:
    sample = (row.input_scale * state.latents).astype(model.dtype)
    # Each image beside its own unconditional twin: the rows of a device stay on it.
    sample = jnp.repeat(sample, variants, axis=0)
    output = apply_unet(model.unet, params, sample, row.timestep, context, platform)
    output = output.astype(jnp.float32).reshape(batch, variants, *output.shape[1:])
    first, last = output[:, 0], output[:, -1]
    guided = last if variants == 1 else first + guidance_scale * (last - first)
    return schedulers.step(row, state, guided), None

  return jax.lax.scan(body, schedulers.start(latents), steps)[0].latents


def decode(
  model: StableDiffusion,
  params: Params,
  latents: Float32[Array, "b h w c"],
  platform: str | None = None,
) -> UInt8[Array, "b H W 3"]:
  """Images of clean latents at the UNet's scale, in slices where the batch is large."""

  def one(latents: Float32[Array, "h w c"]) -> UInt8[Array, "H W 3"]:
    return to_uint8(apply_decoder(model.vae, params, latents[None], platform)[0])

  scaled = (latents / model.scaling_factor).astype(model.dtype)
  pixels = latents.shape[1] * latents.shape[2] * model.downsampling_factor**2
  at_once = max(1, DECODED_AT_ONCE // pixels)
  if len(latents) <= at_once:
    return to_uint8(apply_decoder(model.vae, params, scaled, platform))
  return jax.lax.map(one, scaled, batch_size=at_once)


def to_uint8(images: Float[Array, "b h w 3"]) -> UInt8[Array, "b h w 3"]:
  """-1..1 to 0..255, rounded."""
  unit = jnp.clip(images.astype(jnp.float32) / 2 + 0.5, 0, 1)
  return jnp.round(255 * unit).astype(jnp.uint8)


class Sampler:
  """A diffusion model with its sampling settings, on a mesh.

  Args:
    model: from `load_stable_diffusion`.
    mesh: its devices share every batch.
    batch_per_device: images on each device at once.
    steps: sampler steps.
    guidance_scale: of classifier-free guidance; 1 is without, at half the cost.
    scheduler: `pndm`, `ddim`, `dpmsolver++` or `euler`.
    height, width: in pixels, by default those that the model was trained for.

  Raises:
    UsageError: a setting is out of its range.
  """

  def __init__(
    self,
    model: StableDiffusion,
    mesh: Mesh,
    batch_per_device: int,
    steps: int = 20,
    guidance_scale: float = 7.5,
    scheduler: str = "dpmsolver++",
    height: int | None = None,
    width: int | None = None,
  ):
    self.model, self.mesh = model, mesh
    self.batch_size = batch_per_device * mesh.size
    self.height = model.image_size if height is None else height
    self.width = model.image_size if width is None else width
    self.latent_shape = _latent_shape(model, self.height, self.width)
    self.guided = guidance_scale != 1
    table, initial_scale = sampler_steps(model.schedule, scheduler, steps)
    settings = (table, np.float32(initial_scale), np.float32(guidance_scale))
    self._settings = jax.device_put(settings, replicated(mesh))
    self._encode = TextEncoder(model, mesh)
    self._params = _params_on(model, mesh)
    self._program = _program(model, mesh)
    self._draw = _draw_program(mesh, self.latent_shape)

  def dispatch(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
  ) -> UInt8[Array, "b h w 3"]:
    """Starts one batch and returns without waiting for it: `run` without the latents."""
    return self.run(prompts, negative_prompts, keys, latents)[0]

  def run(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
  ) -> tuple[UInt8[Array, "b H W 3"], Float32[Array, "b h w c"]]:
    """Starts one batch and returns without waiting for it.

    Args:
      prompts: at most `batch_size`.
      negative_prompts: one for each prompt, `""` for none; unused where the guidance scale is 1.
      keys: threefry key data, one for each image.
      latents: unit-normal latents in place of keys.

    Returns:
      `batch_size` images and the clean latents that they are decoded from, on the devices; those from `n` on
      pad. `np.asarray` waits for them.
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
    return self._program(self._params, self._put(text), start, *self._settings)

  def __call__(
    self,
    prompts: Sequence[str],
    negative_prompts: Sequence[str],
    keys: UInt32[np.ndarray, "n 2"] | None = None,
    latents: Float32[np.ndarray, "n h w c"] | None = None,
  ) -> UInt8[np.ndarray, "n h w 3"]:
    """The images of all prompts, in batches; see `dispatch`."""
    waiting = None
    images = [np.zeros((0, self.height, self.width, 3), np.uint8)]
    for rows in _slices(len(prompts), self.batch_size):
      some = [None if array is None else array[rows] for array in (keys, latents)]
      started = self.dispatch(prompts[rows], negative_prompts[rows], *some)
      if waiting is not None:  # fetched only when the next batch is on its way
        images.append(np.asarray(waiting))
      waiting = started
    if waiting is not None:
      images.append(np.asarray(waiting))
    return np.concatenate(images)[: len(prompts)]

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


@functools.lru_cache(maxsize=2)
def _params_on(model: StableDiffusion, mesh: Mesh) -> Params:
  """What sampling needs of the parameters, on every device: the UNet and the decoder."""
  vae = {name: model.params["vae"][name] for name in ("decoder", "post_quant_conv")}
  return jax.device_put({"unet": model.params["unet"], "vae": vae}, replicated(mesh))


@functools.lru_cache(maxsize=8)
def _program(model: StableDiffusion, mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
  """Images, and the clean latents that they are decoded from."""
  platform = mesh.devices.flat[0].platform
  if platform == "gpu":
    cudnn_works()  # asked out here, where nothing is being traced

  def generate(
    params: Params,
    text: Float[Array, "b g l d"],
    latents: Float32[Array, "b h w c"],
    steps: Steps,
    initial_scale: Float[Array, ""],
    guidance_scale: Float[Array, ""],
  ) -> tuple[UInt8[Array, "b H W 3"], Float32[Array, "b h w c"]]:
    start = initial_scale * latents
    clean = denoise(model, params["unet"], text, start, steps, guidance_scale, platform)
    return decode(model, params["vae"], clean, platform), clean

  everywhere, rows = PartitionSpec(), PartitionSpec(DATA_AXIS)
  specs = (everywhere, rows, rows, everywhere, everywhere, everywhere)
  return jax.jit(
    jax.shard_map(generate, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
  )


@functools.lru_cache(maxsize=16)
def _draw_program(mesh: Mesh, shape: tuple[int, int, int]) -> Callable[..., Array]:
  draw: Any = functools.partial(draw_latents, shape=shape)
  rows = batch_sharding(mesh)
  return jax.jit(draw, in_shardings=rows, out_shardings=rows)
