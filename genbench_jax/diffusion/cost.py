"""Floating-point operations per image, as counted by XLA, independent of the kernels in use."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench_jax.models.attention import PLAIN
from genbench_jax.models.diffusion_model import (
  StableDiffusion,
  apply_decoder,
  apply_unet,
  described_conditions,
)
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.models.unet import Conditions
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.peak import operations_of


@kept(8)
def flops_of_image(
  model: StableDiffusion,
  evaluations: int,
  guided: bool,
  latent_shape: tuple[int, int, int],
  encoder: ImageEncoder | None = None,
) -> float:
  """Return the floating-point operations of one image: UNet, decoder, and encoder if given.

  XLA's cost analysis runs on the uncompiled parts, with attention written out, because custom
  kernels hide their operations and loop bodies are counted only once. The text towers are excluded,
  since texts are encoded once.

  Args:
    model: the diffusion model.
    evaluations: number of UNet evaluations.
    guided: whether each evaluation includes the negative prompt.
    latent_shape: height, width and channels of the latents.
    encoder: image encoder that embeds the image, if any.

  Returns:
    The operations; 0 if JAX cannot use the host's CPU, which is the only backend with this analysis
    before compilation.
  """
  latents = jax.ShapeDtypeStruct((1, *latent_shape), model.vae_dtype)
  rows = jax.ShapeDtypeStruct((1 + guided, *latent_shape), model.dtype)

  def unet(params: Any, latents: jax.Array, conditions: Conditions) -> jax.Array:
    return apply_unet(model.unet, params, latents, jnp.float32(1), conditions, PLAIN)

  def decoder(params: Any, latents: jax.Array) -> jax.Array:
    return apply_decoder(model.vae, params, latents, PLAIN)

  total = evaluations * operations_of(
    unet, model.params["unet"], rows, described_conditions(model, 1 + guided)
  )
  total += operations_of(decoder, model.params["vae"], latents)
  if encoder is not None:
    pixels = jax.ShapeDtypeStruct((1, encoder.input.size, encoder.input.size, 3), np.float32)
    total += operations_of(encoder.embed_pixels, encoder.params, pixels)
  return total
