"""diffusers' corrected Flax classes agree with our networks on the same weights, if they are installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.models import stock_diffusion
from genbench_jax.models.diffusion_model import apply_decoder, apply_encoder, apply_unet
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.models.unet import Conditions


def _installed():
  try:
    stock_diffusion.check_installed()
  except UsageError as error:
    return str(error)
  return ""


@pytest.fixture(scope="module")
def stock(tiny_diffusion_folder):
  if reason := _installed():
    pytest.skip(reason)
  return load_stable_diffusion(tiny_diffusion_folder, implementation="diffusers")


def test_the_unets_agree(stock, tiny_diffusion):
  draw = np.random.default_rng(0)
  latents = draw.standard_normal((2, 8, 8, 8), np.float32)
  conditions = Conditions(draw.standard_normal((2, 24, 32), np.float32))
  both = [
    jax.jit(functools.partial(apply_unet, model.unet))(
      model.params["unet"], latents, jnp.float32(500), conditions
    )
    for model in (stock, tiny_diffusion)
  ]
  np.testing.assert_allclose(*both, atol=3e-5)


def test_the_autoencoders_agree(stock, tiny_diffusion):
  draw = np.random.default_rng(0)
  latents, images = (
    draw.standard_normal(shape, np.float32) for shape in ((1, 8, 8, 8), (1, 16, 16, 3))
  )
  for function, inputs in ((apply_decoder, latents), (apply_encoder, images)):
    both = [
      jax.jit(functools.partial(function, model.vae))(model.params["vae"], inputs)
      for model in (stock, tiny_diffusion)
    ]
    for found, expected in zip(*map(jax.tree.leaves, both), strict=True):
      np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("version", ["0.40.0", "0.42.0", "1.0"])
def test_missing_flax_classes_give_one_line(monkeypatch, version):
  monkeypatch.setattr("importlib.metadata.version", lambda name: version)
  with pytest.raises(UsageError, match=rf"below 0\.40.*installed: {version}"):
    stock_diffusion.check_installed()


def test_unknown_implementations_are_rejected(tiny_diffusion_folder):
  with pytest.raises(UsageError, match="unknown implementation 'torch'"):
    load_stable_diffusion(tiny_diffusion_folder, implementation="torch")
