"""The autoencoder agrees with PyTorch, and rejects unsupported configurations."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.models.autoencoder import Autoencoder, read_autoencoder_config
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import apply_decoder, apply_encoder, apply_text_encoders
from genbench_jax.models.tokenizer import tokenize
from genbench_jax.zoo.tiny import VAE


def read(**changes):
  return read_autoencoder_config(Settings(VAE | changes, Path("vae/config.json")))


def test_decoder_matches_pytorch_if_side_equals_channels(tiny_diffusion, golden_diffusion):
  latents = golden_diffusion["vae/latents"]
  assert latents.shape[1] == latents.shape[3] == 8
  decode = jax.jit(functools.partial(apply_decoder, tiny_diffusion.vae))
  decoded = decode(tiny_diffusion.params["vae"], latents)
  np.testing.assert_allclose(decoded, golden_diffusion["vae/decoded"], atol=1e-5)


def test_encoder_matches_pytorch(tiny_diffusion, golden_diffusion):
  encode = jax.jit(functools.partial(apply_encoder, tiny_diffusion.vae))
  mean, log_variance = encode(tiny_diffusion.params["vae"], golden_diffusion["vae/image"])
  np.testing.assert_allclose(mean, golden_diffusion["vae/mean"], atol=1e-5)
  np.testing.assert_allclose(log_variance, golden_diffusion["vae/logvar"], atol=1e-5)


def test_text_states_match_pytorch(tiny_diffusion, golden_diffusion):
  texts = golden_diffusion["prompts"].tolist()
  tokens = tokenize(tiny_diffusion.tokenizer, texts, tiny_diffusion.max_tokens)
  np.testing.assert_array_equal(tokens, golden_diffusion["text/tokens"])
  encode = jax.jit(functools.partial(apply_text_encoders, tiny_diffusion.towers))
  states = encode(tiny_diffusion.params, [tokens]).states
  np.testing.assert_allclose(states, golden_diffusion["text/states"], atol=1e-5)


@pytest.mark.parametrize(
  "changes",
  [{"shift_factor": 0.1, "scaling_factor": 0.36}, {"latents_mean": [0.5], "latents_std": [2.0]}],
)
def test_latent_scaling_is_invertible(changes):
  config = read(latent_channels=1, **changes)
  latents = jnp.linspace(-3, 3, 8).reshape(1, 2, 4, 1)
  np.testing.assert_allclose(
    config.to_diffusion(config.from_diffusion(latents)), latents, atol=1e-6
  )
  shift = config.shift_factor or 0.5
  np.testing.assert_allclose(config.from_diffusion(jnp.zeros((1, 1, 1, 1))), shift, atol=1e-6)


def test_convolutions_at_the_latents_are_optional():
  config = read(use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False)
  shapes = jax.eval_shape(Autoencoder(config).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  assert sorted(shapes["params"]) == ["decoder", "encoder"]
  assert not any("attentions" in name for name in shapes["params"]["decoder"])


@pytest.mark.parametrize(
  "changes",
  [
    {"down_block_types": ["AttnDownEncoderBlock2D"] * 2},
    {"act_fn": "gelu"},
    {"latent_channels": 10**6},
    {"scaling_factor": 0},
    {"latents_mean": [1.0]},
    {"norm_num_groups": 3},
    {"use_quant_conv": "yes"},
    {"a_setting_of_next_year": 1},
  ],
)
def test_unsupported_settings_are_rejected_by_name(changes):
  with pytest.raises(RunError, match=next(iter(changes))):
    read(**changes)
