"""What an image costs in arithmetic: XLA's count of the model's operations, whatever way the device computes them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench_jax.models.attention import PLAIN
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.models.stable_diffusion import (
  StableDiffusion,
  apply_decoder,
  apply_unet,
  described_conditions,
)
from genbench_jax.models.unet import Conditions


@functools.lru_cache(maxsize=8)
def flops_of_image(
  model: StableDiffusion,
  evaluations: int,
  guided: bool,
  latent_shape: tuple[int, int, int],
  encoder: ImageEncoder | None = None,
) -> float:
  """Floating-point operations of one image: all evaluations of the UNet, the decoder, and CLIP's tower where given.

  Counted by XLA's cost analysis on the uncompiled parts, with attention written out: kernels hide what they do
  from the count, and the bodies of loops are counted once. The text tower is left out, since texts are encoded once.
  0 where JAX may not use the host's CPU, which does the counting: GPUs and TPUs analyze compiled programs alone.
  """
  latents = jax.ShapeDtypeStruct((1, *latent_shape), model.vae_dtype)
  rows = jax.ShapeDtypeStruct((1 + guided, *latent_shape), model.dtype)

  def unet(params: Any, latents: jax.Array, conditions: Conditions) -> jax.Array:
    return apply_unet(model.unet, params, latents, jnp.float32(1), conditions, PLAIN)

  def decoder(params: Any, latents: jax.Array) -> jax.Array:
    return apply_decoder(model.vae, params, latents, PLAIN)

  total = evaluations * _flops(
    unet, model.params["unet"], rows, described_conditions(model, 1 + guided)
  )
  total += _flops(decoder, model.params["vae"], latents)
  if encoder is not None:
    pixels = jax.ShapeDtypeStruct((1, encoder.input.size, encoder.input.size, 3), np.float32)
    total += _flops(encoder.embed_pixels, encoder.params, pixels)
  return total


def _flops(function: Any, params: Any, *arguments: Any) -> float:
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return 0.0
  with jax.default_device(host):
    counted: Any = jax.jit(function).lower(shapes, *arguments).cost_analysis()
  return float(counted["flops"])
