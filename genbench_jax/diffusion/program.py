"""The compiled sampling program: text features and latents in, images and features out.

The batch is split inside `shard_map`: each device runs the same program on its own images. The
compiler can therefore put no collective into the loop, and kernels that do not support meshes
(flash attention) still work.
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
from genbench_jax.diffusion.settings import DECODED_AT_ONCE
from genbench_jax.embedding.device_preprocess import (
  ResizeWeights,
  preprocess_on_device,
  resize_weights,
)
from genbench_jax.embedding.embedder import params_on as encoder_params_on
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.models.attention import cudnn_works, tpu_kernels_work
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.diffusion_model import (
  StableDiffusion,
  Texts,
  apply_decoder,
  apply_unet,
  conditions_of,
)
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.mesh import DATA_AXIS, batch_sharding, replicated

# XLA merges the query and key products into one and then copies each half for cuDNN's attention.
# The merger is disabled.
COMPILER_OPTIONS = {"gpu": {"xla_gpu_dot_merger_threshold_mb": 0}}


class GeneratedBatch(NamedTuple):
  """A generated batch, on the devices.

  Attributes:
    images: images.
    latents: clean latents from which they are decoded.
    are_finite: False where the models returned NaN or infinity.
    features: features of the images, not normalized; None if the program has no encoder.
  """

  images: UInt8[Array, "b H W 3"]
  latents: Float32[Array, "b h w c"]
  are_finite: Bool[Array, "b"]
  features: Float32[Array, "b d"] | None


def draw_latents(
  keys: UInt32[Array, "b 2"], shape: tuple[int, int, int]
) -> Float32[Array, "b h w c"]:
  """Draw unit-normal latents, each from its own key and thus independent of the batch."""
  return jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), shape))(keys)


class Guidance(NamedTuple):
  """Classifier-free guidance.

  Attributes:
    scale: w in `negative + w (positive - negative)` (arXiv 2207.12598, whose weight is w - 1).
    rescale: how far the standard deviation of the result is moved back to that of the positive
      prediction, 0 to 1.
  """

  scale: Float[Array, ""]
  rescale: Float[Array, ""]


class Noise(NamedTuple):
  """Fresh noise for samplers that add it; exactly one of the two is set.

  Attributes:
    keys: threefry key data, one per image; the noise of a step is drawn from the key and the step
      number.
    drawn: unit-normal noise of every image and step.
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
  """Run a sampler over its whole table.

  Args:
    model: the diffusion model.
    params: parameters of the UNet.
    texts: negative prompt and prompt [b, 2, ...], or the prompt alone [b, 1, ...] for no guidance.
    latents: unit-normal latents times the sampler's initial scale.
    steps: table of the sampler.
    guidance: guidance settings.
    noise: noise for samplers that add it; None ignores the noise column.
    platform: `cpu`, `gpu` or `tpu`, which selects the attention kernel.

  Returns:
    Clean latents at the UNet's scale.
  """
  batch, variants = texts.states.shape[:2]
  # [b, v, ...] -> [b v, ...]: the variants of an image become adjacent rows of the UNet's batch.
  rows = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), texts)
  conditions = conditions_of(model, rows, latents.shape, guidance.scale)

  def body(state: schedulers.State, inputs: tuple[Steps, Any]) -> tuple[schedulers.State, None]:
    row, fresh = inputs
    sample = jnp.asarray(row.input_scale * state.latents, model.dtype)
    # An image and its unconditional twin are adjacent, so both stay on the same device.
    sample = jnp.repeat(sample, variants, axis=0)
    output = apply_unet(model.unet, params, sample, jnp.asarray(row.timestep), conditions, platform)
    # Solver arithmetic runs in float32: in half precision the differences of multistep methods lose
    # their digits.
    output = output.astype(jnp.float32).reshape(batch, variants, *output.shape[1:])
    guided = output[:, 0] if variants == 1 else guide(output[:, 0], output[:, 1], guidance)
    return schedulers.step(row, state, guided, _fresh(noise, fresh, latents.shape[1:])), None

  fresh = _noise_of_steps(noise, len(steps.timestep))
  return jax.lax.scan(body, schedulers.start(latents), (steps, fresh))[0].latents


def guide(
  negative: Float32[Array, "b h w c"], positive: Float32[Array, "b h w c"], guidance: Guidance
) -> Float32[Array, "b h w c"]:
  """Apply classifier-free guidance, and rescale its standard deviation if requested.

  Args:
    negative: prediction for the negative prompt.
    positive: prediction for the prompt.
    guidance: guidance settings.

  Reference:
    Rescaling: Common Diffusion Noise Schedules and Sample Steps are Flawed, section 3.4 (arXiv
      2305.08891).
  """
  guided = negative + guidance.scale * (positive - negative)
  axes = tuple(range(1, guided.ndim))
  wanted, found = (x.std(axis=axes, ddof=1, keepdims=True) for x in (positive, guided))
  # Without rescaling the factor is exactly 1, even if a standard deviation is 0 or not finite.
  factor = jnp.where(guidance.rescale > 0, wanted / found, 1.0)
  return guidance.rescale * (guided * factor) + (1 - guidance.rescale) * guided


def _noise_of_steps(noise: Noise | None, count: int) -> Any:
  """Return the scan input for the noise of each step: the noise itself, or the step number."""
  if noise is None:
    return None
  if noise.drawn is not None:
    return jnp.moveaxis(noise.drawn, 1, 0)
  return jnp.arange(count, dtype=jnp.uint32)


def _fresh(noise: Noise | None, taken: Any, shape: tuple[int, ...]) -> Any:
  """Return the noise of one step."""
  if noise is None or noise.keys is None:
    return taken
  # The keys themselves draw the latents; folding in the step number gives independent keys.
  return jax.vmap(
    lambda key: jax.random.normal(jax.random.fold_in(jax.random.wrap_key_data(key), taken), shape)
  )(noise.keys)


def decode(
  model: StableDiffusion,
  params: Params,
  latents: Float32[Array, "b h w c"],
  platform: str | None = None,
) -> tuple[UInt8[Array, "b H W 3"], Bool[Array, "b"]]:
  """Decode clean latents at the UNet's scale, in slices if the batch is large.

  Args:
    model: the diffusion model.
    params: parameters of the autoencoder.
    latents: clean latents.
    platform: `cpu`, `gpu` or `tpu`, which selects the attention kernel.

  Returns:
    The images, and whether each of them is finite.
  """

  def decode_slice(latents: Float32[Array, "s h w c"]) -> tuple[Array, Array]:
    images = apply_decoder(model.vae, params, latents, platform)
    return to_uint8(images), jnp.isfinite(images).all(axis=(1, 2, 3))

  def decode_image(latents: Float32[Array, "h w c"]) -> tuple[Array, ...]:
    return tuple(rows[0] for rows in decode_slice(latents[None]))

  scaled = model.vae.config.from_diffusion(latents).astype(model.vae_dtype)
  pixels = latents.shape[1] * latents.shape[2] * model.downsampling_factor**2
  at_once = max(1, DECODED_AT_ONCE // pixels)
  if len(latents) <= at_once:
    return decode_slice(scaled)
  return jax.lax.map(decode_image, scaled, batch_size=at_once)


def to_uint8(images: Float[Array, "b h w 3"]) -> UInt8[Array, "b h w 3"]:
  """Convert images in [-1, 1] to 0..255, rounded."""
  unit = jnp.clip(images.astype(jnp.float32) / 2 + 0.5, 0, 1)
  return jnp.round(255 * unit).astype(jnp.uint8)


def embed(
  encoder: ImageEncoder, params: Params, weights: ResizeWeights, images: UInt8[Array, "b h w 3"]
) -> Float32[Array, "b d"]:
  """Compute features, not normalized, of images that stay on the device.

  Args:
    encoder: image encoder.
    params: its parameters.
    weights: resize matrices for the size of the images.
    images: generated images.
  """
  pixels = preprocess_on_device(images, weights, encoder.input.mean, encoder.input.std)
  return encoder.embed_pixels(params, pixels)


class ProgramShape(NamedTuple):
  """Shapes and switches that determine a sampling program, besides the model and the mesh.

  Attributes:
    batch_per_device: images per device.
    evaluations: UNet evaluations, the rows of the sampler's table.
    guided: whether guidance is used.
    latents: height, width and channels of the latents.
    adds_noise: whether the sampler adds noise, drawn from the images' keys.
  """

  batch_per_device: int
  evaluations: int
  guided: bool
  latents: tuple[int, int, int]
  adds_noise: bool = False


def lower_program(
  model: StableDiffusion, mesh: Mesh, shape: ProgramShape, encoder: ImageEncoder | None = None
) -> jax.stages.Lowered:
  """Lower the sampling program from shapes alone; neither weights nor the devices need to exist.

  Args:
    model: its `params` may be `jax.ShapeDtypeStruct`.
    mesh: may consist of described devices (`jax.experimental.topologies`).
    shape: shapes and switches of the program.
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
  """Return the parameters that sampling needs: the UNet and the decoder."""
  encoding = ("encoder", "quant_conv")
  vae = {name: tree for name, tree in model.params["vae"].items() if name not in encoding}
  return {"unet": model.params["unet"], "vae": vae}


@kept(2)
def params_on(model: StableDiffusion, mesh: Mesh) -> Params:
  """Return the sampling parameters, replicated on a mesh; cached."""
  return jax.device_put(_sampling_params(model), replicated(mesh))


@kept(4)
def embedding_params_on(
  encoder: ImageEncoder, mesh: Mesh, height: int, width: int, resize: Resize
) -> Params:
  """Return the parameters that embed images of one size, replicated on a mesh; cached.

  Args:
    encoder: image encoder.
    mesh: devices.
    height, width: size of the images in pixels.
    resize: resize method.
  """
  weights = resize_weights(height, width, encoder.input, resize)
  return {
    "clip": encoder_params_on(encoder, mesh),
    "resize": jax.device_put(weights, replicated(mesh)),
  }


@kept(8)
def sampling_program(
  model: StableDiffusion, mesh: Mesh, encoder: ImageEncoder | None = None
) -> Any:
  """Return the jitted sampler, which returns a `GeneratedBatch`; cached.

  Args:
    model: diffusion model; the program is kept in it.
    mesh: devices.
    encoder: encoder that embeds the images; None to embed none.
  """
  platform = mesh.devices.flat[0].platform
  if platform == "gpu":
    cudnn_works()  # probe now: the check cannot run during tracing
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
