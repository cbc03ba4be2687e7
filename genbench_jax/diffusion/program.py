"""The one compiled program of sampling: text features and latents in, uint8 images out, and their features if wanted.

The batch is split over the mesh inside `shard_map`: every device runs the same program on its own images, so the
compiler can't put a collective in the loop, and kernels that know nothing of meshes (flash attention) can be used.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, UInt8, UInt32

from genbench_jax.diffusion import schedulers
from genbench_jax.diffusion.schedulers import HISTORY, Steps
from genbench_jax.embedding.device_preprocess import (
  ResizeWeights,
  preprocess_on_device,
  resize_weights,
)
from genbench_jax.embedding.embedder import params_on as encoder_params_on
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.models.attention import cudnn_works, tpu_kernels_work
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.models.stable_diffusion import (
  StableDiffusion,
  Texts,
  apply_decoder,
  apply_unet,
  conditions_of,
)
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding, replicated

# Pixels that the autoencoder decodes at once on a device: four images of 512 x 512. Its temporaries dwarf the UNet's.
DECODED_AT_ONCE = 4 * 512 * 512

# XLA merges the products of queries and keys into one, and then copies each out of it for cuDNN's attention.
COMPILER_OPTIONS = {"gpu": {"xla_gpu_dot_merger_threshold_mb": 0}}


class GeneratedBatch(NamedTuple):
  """A batch on the devices: images, the clean latents that they are decoded from, and what CLIP sees in them.

  `are_finite` is False where the models gave NaN or infinity. `features`, not normalized, are None where the program
  has no encoder.
  """

  images: UInt8[Array, "b H W 3"]
  latents: Float32[Array, "b h w c"]
  are_finite: Bool[Array, "b"]
  features: Float32[Array, "b d"] | None


def draw_latents(
  keys: UInt32[Array, "b 2"], shape: tuple[int, int, int]
) -> Float32[Array, "b h w c"]:
  """Unit-normal latents, each from its own key: the same whatever else is in the batch."""
  return jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), shape))(keys)


class Guidance(NamedTuple):
  """How the prediction with the prompt is set off against the one without.

  Attributes:
    scale: w in `negative + w (positive - negative)` (arXiv 2207.12598, with w = 1 + its weight).
    rescale: how far the result's deviation goes back to that of the prompt's prediction; 0 is not at all.
  """

  scale: Float[Array, ""]
  rescale: Float[Array, ""]


class Noise(NamedTuple):
  """Fresh noise for samplers that add any: one of the two.

  Attributes:
    keys: threefry key data, one an image; the noise of a step comes from its key and the step's number.
    drawn: unit-normal, image by image.
  """

  keys: UInt32[Array, "b 2"] | None = None
  drawn: Float32[Array, "b t h w c"] | None = None


def denoise(
  model: StableDiffusion,
  params: Params,
  texts: Texts,
  latents: Float32[Array, "b h w c"],
  steps: Steps,
  guidance: Guidance,
  noise: Noise | None = None,
  platform: str | None = None,
) -> Float32[Array, "b h w c"]:
  """Runs a sampler over its whole table.

  Args:
    model: its UNet is used.
    params: of the UNet.
    texts: negative prompt and prompt [b, 2, ...], or the prompt alone [b, 1, ...]: no guidance then.
    latents: unit-normal, times the sampler's initial scale.
    steps: the sampler's table.
    guidance: its strength.
    noise: for samplers that add any; None leaves the table's column unused.
    platform: `cpu`, `gpu` or `tpu`, for the choice of attention.

  Returns:
    Clean latents at the UNet's scale.
  """
  batch, variants = texts.states.shape[:2]
  rows = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), texts)
  conditions = conditions_of(model, rows, latents.shape, guidance.scale)

  def body(state: schedulers.State, inputs: tuple[Steps, Any]) -> tuple[schedulers.State, None]:
    row, fresh = inputs
    sample = jnp.asarray(row.input_scale * state.latents, model.dtype)
    # Each image beside its own unconditional twin: the rows of a device stay on it.
    sample = jnp.repeat(sample, variants, axis=0)
    output = apply_unet(model.unet, params, sample, jnp.asarray(row.timestep), conditions, platform)
    output = output.astype(jnp.float32).reshape(batch, variants, *output.shape[1:])
    guided = output[:, 0] if variants == 1 else guide(output[:, 0], output[:, 1], guidance)
    return schedulers.step(row, state, guided, _fresh(noise, fresh, latents.shape[1:])), None

  fresh = _noise_of_steps(noise, len(steps.timestep))
  return jax.lax.scan(body, schedulers.start(latents), (steps, fresh))[0].latents


def guide(
  negative: Float32[Array, "b h w c"], positive: Float32[Array, "b h w c"], guidance: Guidance
) -> Float32[Array, "b h w c"]:
  """Classifier-free guidance, with the deviation brought back where that is asked for.

  Reference:
    Rescaling: Common Diffusion Noise Schedules and Sample Steps are Flawed, section 3.4 (arXiv 2305.08891).
  """
  guided = negative + guidance.scale * (positive - negative)
  axes = tuple(range(1, guided.ndim))
  wanted, found = (x.std(axis=axes, ddof=1, keepdims=True) for x in (positive, guided))
  # Where there is nothing to rescale the factor is exactly one, whatever the deviations are.
  factor = jnp.where(guidance.rescale > 0, wanted / found, 1.0)
  return guidance.rescale * (guided * factor) + (1 - guidance.rescale) * guided


def _noise_of_steps(noise: Noise | None, count: int) -> Any:
  """What the loop takes along for the noise of each step: the noise itself, or the step's number."""
  if noise is None:
    return None
  if noise.drawn is not None:
    return jnp.moveaxis(noise.drawn, 1, 0)
  return jnp.arange(count, dtype=jnp.uint32)


def _fresh(noise: Noise | None, taken: Any, shape: tuple[int, ...]) -> Any:
  """The noise of one step."""
  if noise is None or noise.keys is None:
    return taken
  # The images' own keys draw the latents: their children are independent of them.
  return jax.vmap(
    lambda key: jax.random.normal(jax.random.fold_in(jax.random.wrap_key_data(key), taken), shape)
  )(noise.keys)


def decode(
  model: StableDiffusion,
  params: Params,
  latents: Float32[Array, "b h w c"],
  platform: str | None = None,
) -> tuple[UInt8[Array, "b H W 3"], Bool[Array, "b"]]:
  """Images of clean latents at the UNet's scale, in slices where the batch is large, and whether each came out finite."""

  def some(latents: Float32[Array, "s h w c"]) -> tuple[Array, Array]:
    images = apply_decoder(model.vae, params, latents, platform)
    return to_uint8(images), jnp.isfinite(images).all(axis=(1, 2, 3))

  def one(latents: Float32[Array, "h w c"]) -> tuple[Array, ...]:
    return tuple(rows[0] for rows in some(latents[None]))

  scaled = model.vae.config.from_diffusion(latents).astype(model.vae_dtype)
  pixels = latents.shape[1] * latents.shape[2] * model.downsampling_factor**2
  at_once = max(1, DECODED_AT_ONCE // pixels)
  if len(latents) <= at_once:
    return some(scaled)
  return jax.lax.map(one, scaled, batch_size=at_once)


def to_uint8(images: Float[Array, "b h w 3"]) -> UInt8[Array, "b h w 3"]:
  """-1..1 to 0..255, rounded."""
  unit = jnp.clip(images.astype(jnp.float32) / 2 + 0.5, 0, 1)
  return jnp.round(255 * unit).astype(jnp.uint8)


def embed(
  encoder: ImageEncoder, params: Params, weights: ResizeWeights, images: UInt8[Array, "b h w 3"]
) -> Float32[Array, "b d"]:
  """CLIP features, not normalized, of images that stay on the device."""
  pixels = preprocess_on_device(images, weights, encoder.input.mean, encoder.input.std)
  return encoder.embed_pixels(params, pixels)


class ProgramShape(NamedTuple):
  """What decides a sampling program beside the model and the mesh.

  Attributes:
    batch_per_device: images on each device at once.
    evaluations: of the UNet, rows of the sampler's table.
    guided: whether there is guidance.
    latents: height, width and channels of the latents.
    adds_noise: whether the sampler adds noise, from the images' keys.
  """

  batch_per_device: int
  evaluations: int
  guided: bool
  latents: tuple[int, int, int]
  adds_noise: bool = False


def lower_program(
  model: StableDiffusion, mesh: Mesh, shape: ProgramShape, encoder: ImageEncoder | None = None
) -> jax.stages.Lowered:
  """The sampler's program, from shapes alone: neither weights nor the mesh's devices need be there.

  Args:
    model: its `params` may be `jax.ShapeDtypeStruct`.
    mesh: may be of described devices (`jax.experimental.topologies`).
    shape: of the program.
    encoder: embeds the images, if given.
  """
  rows = shape.batch_per_device * mesh.size
  shared, split = replicated(mesh), batch_sharding(mesh)

  def like(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shared)

  def number(*sizes: int) -> Any:
    return jax.ShapeDtypeStruct(sizes, np.float32, sharding=shared)

  def of_images(dtype: Any, *sizes: int) -> Any:
    return jax.ShapeDtypeStruct((rows, *sizes), dtype, sharding=split)

  config, variants = model.unet.config, 2 if shape.guided else 1
  states = of_images(model.dtype, variants, model.max_tokens, config.cross_attention_dim)
  pooled = of_images(model.dtype, variants, config.pooled_width) if config.takes_sizes else None
  columns: dict[str, Any] = {name: number(shape.evaluations) for name in Steps._fields}
  steps = Steps(**columns | {"recent": number(shape.evaluations, HISTORY)})
  noise = Noise(of_images(np.uint32, 2)) if shape.adds_noise else None
  params = _sampling_params(model)
  if encoder is not None:
    height, width = (side * model.downsampling_factor for side in shape.latents[:2])
    resize = resize_weights(height, width, encoder.input, "crop")
    params = params | {"clip": encoder.params, "resize": resize}
  shapes = jax.tree.map(like, params)
  latents = of_images(np.float32, *shape.latents)
  settings = (steps, number(), Guidance(number(), number()))
  return sampling_program(model, mesh, encoder).lower(
    shapes, Texts(states, pooled), latents, noise, *settings
  )


def _sampling_params(model: StableDiffusion) -> Params:
  """What sampling needs of the parameters: the UNet and the decoder."""
  encoding = ("encoder", "quant_conv")
  vae = {name: tree for name, tree in model.params["vae"].items() if name not in encoding}
  return {"unet": model.params["unet"], "vae": vae}


@functools.lru_cache(maxsize=2)
def params_on(model: StableDiffusion, mesh: Mesh) -> Params:
  """The parameters of sampling, on every device of a mesh."""
  return jax.device_put(_sampling_params(model), replicated(mesh))


@functools.lru_cache(maxsize=4)
def embedding_params_on(
  encoder: ImageEncoder, mesh: Mesh, height: int, width: int, resize: Resize
) -> Params:
  """The parameters of embedding images of one size, on every device of a mesh."""
  weights = resize_weights(height, width, encoder.input, resize)
  return {
    "clip": encoder_params_on(encoder, mesh),
    "resize": jax.device_put(weights, replicated(mesh)),
  }


@functools.lru_cache(maxsize=8)
def sampling_program(
  model: StableDiffusion, mesh: Mesh, encoder: ImageEncoder | None = None
) -> Any:
  """The jitted sampler; its result is `GeneratedBatch`."""
  platform = mesh.devices.flat[0].platform
  if platform == "gpu":
    cudnn_works()  # asked out here, where nothing is being traced
  if platform == "tpu":
    tpu_kernels_work()

  def generate(
    params: Params,
    texts: Texts,
    latents: Float32[Array, "b h w c"],
    noise: Noise | None,
    steps: Steps,
    initial_scale: Float[Array, ""],
    guidance: Guidance,
  ) -> GeneratedBatch:
    start = initial_scale * latents
    clean = denoise(model, params["unet"], texts, start, steps, guidance, noise, platform)
    images, are_finite = decode(model, params["vae"], clean, platform)
    features = None
    if encoder is not None:
      features = embed(encoder, params["clip"], params["resize"], images)
    return GeneratedBatch(images, clean, are_finite, features)

  everywhere, rows = PartitionSpec(), PartitionSpec(DATA_AXIS)
  specs = (everywhere, rows, rows, rows, everywhere, everywhere, everywhere)
  return jax.jit(
    jax.shard_map(generate, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False),
    compiler_options=COMPILER_OPTIONS.get(platform),
  )


@functools.lru_cache(maxsize=16)
def drawing_program(mesh: Mesh, shape: tuple[int, int, int]) -> Callable[..., Array]:
  draw: Any = functools.partial(draw_latents, shape=shape)
  rows = batch_sharding(mesh)
  return jax.jit(draw, in_shardings=rows, out_shardings=rows)
