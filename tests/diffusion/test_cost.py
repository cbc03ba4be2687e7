"""Operations of a generated image."""

import jax
import jax.numpy as jnp
import pytest

from genbench_jax.diffusion.cost import flops_of_image
from genbench_jax.models.attention import PLAIN
from genbench_jax.models.diffusion_model import apply_decoder, apply_unet, described_conditions
from genbench_jax.models.image_encoder import load_image_encoder


@pytest.fixture(scope="module")
def shape(tiny_diffusion):
  side = tiny_diffusion.image_size // tiny_diffusion.downsampling_factor
  return side, side, tiny_diffusion.latent_channels


def test_steps_and_guidance_multiply_the_unet_alone(tiny_diffusion, shape):
  one, two, guided = (
    flops_of_image(tiny_diffusion, steps, is_guided, shape)
    for steps, is_guided in ((1, False), (2, False), (1, True))
  )
  unet = two - one
  decoder = one - unet
  assert unet > 0 and decoder > 0
  assert guided == pytest.approx(2 * unet + decoder, rel=0.05)
  assert flops_of_image(tiny_diffusion, 7, False, shape) == pytest.approx(7 * unet + decoder)


def test_one_image_is_decoded(tiny_diffusion, shape):
  vae = tiny_diffusion.vae
  latents = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  program = jax.jit(lambda params, x: apply_decoder(vae, params, x, PLAIN))
  wanted = program.lower(tiny_diffusion.params["vae"], latents).cost_analysis()["flops"]
  one, two = (flops_of_image(tiny_diffusion, steps, False, shape) for steps in (1, 2))
  assert one - (two - one) == pytest.approx(wanted, rel=0.01)


def test_each_evaluation_is_one_of_the_unet(tiny_diffusion, shape):
  model, rows = tiny_diffusion, jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  program = jax.jit(lambda p, x, texts: apply_unet(model.unet, p, x, jnp.float32(1), texts, PLAIN))
  lowered = program.lower(model.params["unet"], rows, described_conditions(model, 1))
  one, two = (flops_of_image(model, steps, False, shape) for steps in (1, 2))
  assert two - one == pytest.approx(lowered.cost_analysis()["flops"], rel=0.01)


def test_an_encoder_adds_its_own_operations(tiny_diffusion, shape):
  encoder = load_image_encoder("zoo/clip")
  pixels = jax.ShapeDtypeStruct((1, encoder.input.size, encoder.input.size, 3), jnp.float32)
  wanted = jax.jit(encoder.embed_pixels).lower(encoder.params, pixels).cost_analysis()["flops"]
  with_it = flops_of_image(tiny_diffusion, 1, False, shape, encoder)
  assert with_it - flops_of_image(tiny_diffusion, 1, False, shape) == pytest.approx(
    wanted, rel=0.01
  )
