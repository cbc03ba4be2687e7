"""Upstream's modules with their faults put right, against PyTorch's outputs, and each fault shown."""

import functools

import jax
import numpy as np
import pytest
from jax.experimental.pallas import tpu
from scipy.special import erf

from genbench_jax.models import corrections


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_unet_is_pytorchs_even_on_faint_latents(tiny_diffusion, golden_diffusion, platform):
  latents, text = golden_diffusion["unet/latents"], golden_diffusion["unet/text"]
  run = jax.jit(
    lambda params: corrections.apply_unet(tiny_diffusion.unet, params, latents, 321, text, platform)
  )
  with tpu.force_tpu_interpret_mode():
    output = run(tiny_diffusion.params["unet"])
  np.testing.assert_allclose(output, golden_diffusion["unet/output"], atol=3e-5)


def test_transformers_norm_has_pytorchs_epsilon_and_exact_variance():
  from diffusers.models.attention_flax import FlaxTransformer2DModel

  module = FlaxTransformer2DModel(in_channels=64, n_heads=2, d_head=32)
  hidden = 2 + 1e-3 * np.random.default_rng(0).normal(size=(1, 4, 4, 64)).astype(np.float32)
  context = np.zeros((1, 3, 8), np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), hidden, context)

  def norm():
    captured = module.apply(
      variables, hidden, context, capture_intermediates=lambda part, _: part.name == "norm"
    )
    return captured[1]["intermediates"]["norm"]["__call__"][0]

  groups = hidden.astype(np.float64).reshape(16, 32, 2)
  mean, variance = groups.mean((0, 2), keepdims=True), groups.var((0, 2), keepdims=True)
  exact = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(hidden.shape)
  with corrections.corrections():
    np.testing.assert_allclose(norm(), exact, atol=1e-3)
  assert np.abs(norm() - exact).max() > 0.1


def test_gelu_is_exact():
  from diffusers.models.attention_flax import FlaxGEGLU

  module = FlaxGEGLU(dim=4)
  hidden = np.random.default_rng(0).normal(size=(1, 5, 4)).astype(np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), hidden)
  stock = module.apply(variables, hidden)
  with corrections.corrections():
    corrected = module.apply(variables, hidden)
  dense = variables["params"]["proj"]
  linear, gate = np.split(hidden @ dense["kernel"] + dense["bias"], 2, axis=-1)
  exact = linear * gate * 0.5 * (1 + erf(gate / np.sqrt(2)))
  np.testing.assert_allclose(corrected, exact, atol=1e-6)
  assert np.abs(stock - exact).max() > 1e-5


def test_autoencoder_is_pytorchs_where_side_equals_channels(tiny_diffusion, golden_diffusion):
  vae, params = tiny_diffusion.vae, tiny_diffusion.params["vae"]
  latents = golden_diffusion["vae/latents"]
  assert latents.shape[1] == latents.shape[3] == 8
  decoded = jax.jit(functools.partial(corrections.apply_decoder, vae))(params, latents)
  np.testing.assert_allclose(decoded, golden_diffusion["vae/decoded"], atol=1e-5)
  # Upstream takes channels-first latents for channels-last ones here.
  first = latents.transpose(0, 3, 1, 2)
  decode = jax.jit(functools.partial(vae.apply, method=vae.decode, return_dict=False))
  stock = decode({"params": params}, first)[0].transpose(0, 2, 3, 1)
  assert np.abs(stock - golden_diffusion["vae/decoded"]).max() > 0.1


def test_encoder_is_pytorchs(tiny_diffusion, golden_diffusion):
  encode = jax.jit(functools.partial(corrections.apply_encoder, tiny_diffusion.vae))
  mean, log_variance = encode(tiny_diffusion.params["vae"], golden_diffusion["vae/image"])
  np.testing.assert_allclose(mean, golden_diffusion["vae/mean"], atol=1e-5)
  np.testing.assert_allclose(log_variance, golden_diffusion["vae/logvar"], atol=1e-5)


def test_text_states_are_pytorchs(tiny_diffusion, golden_diffusion):
  from genbench_jax.models.tokenizer import tokenize

  tokens = tokenize(
    tiny_diffusion.tokenizer, golden_diffusion["prompts"].tolist(), tiny_diffusion.max_tokens
  )
  np.testing.assert_array_equal(tokens, golden_diffusion["text/tokens"])
  encode = jax.jit(functools.partial(corrections.apply_text_encoder, tiny_diffusion.text_encoder))
  states = encode(tiny_diffusion.params["text_encoder"], tokens)
  np.testing.assert_allclose(states, golden_diffusion["text/states"], atol=1e-5)


def test_corrections_end_with_their_context():
  from diffusers.models.attention_flax import FlaxGEGLU

  module = FlaxGEGLU(dim=4)
  hidden = np.linspace(-2, 2, 20, dtype=np.float32).reshape(1, 5, 4)
  variables = jax.jit(module.init)(jax.random.key(0), hidden)
  before = module.apply(variables, hidden)
  with corrections.corrections():
    assert np.any(module.apply(variables, hidden) != before)
  np.testing.assert_array_equal(module.apply(variables, hidden), before)
