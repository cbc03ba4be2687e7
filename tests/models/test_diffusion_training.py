"""The diffusion model's gradients and bfloat16 outputs agree with PyTorch (tools/golden_training.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.models.diffusion_model import apply_decoder, apply_text_encoders, apply_unet
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.models.unet import Conditions
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_stable_diffusion


@pytest.fixture(scope="module")
def golden(load_golden):
  return jax.tree.map(jnp.asarray, load_golden("golden_training"))


@pytest.mark.slow
def test_the_gradient_of_text_embeddings_matches_pytorch(tmp_path, golden):
  model = load_stable_diffusion(write_tiny_stable_diffusion(tmp_path / "model", unet=SHALLOW_UNET))
  params = model.params
  tower = model.towers[0]
  table = params["text_encoder"]["text_model"]["embeddings.token_embedding"]["weight"]
  # Every token of every prompt becomes a learned token, initialized with its row of the table.
  tokens = tower.vocabulary + jnp.arange(golden["tokens"].size).reshape(golden["tokens"].shape)

  def loss(rows, params):
    states = apply_text_encoders(model.towers, params, [tokens], [rows]).states
    output = apply_unet(
      model.unet, params["unet"], golden["noisy"], golden["time"], Conditions(states)
    )
    return jnp.square(output - golden["noise"]).mean()

  found, gradient = jax.jit(jax.value_and_grad(loss))(
    jnp.asarray(table)[golden["tokens"].reshape(-1)], params
  )
  np.testing.assert_allclose(found, golden["loss"], rtol=2e-5)
  wanted = golden["embedding_gradient"]
  error = np.abs(gradient.reshape(wanted.shape) - wanted).max()
  assert error < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("part", ["unet", "decoded"])
def test_bfloat16_stays_within_its_bound(tiny_diffusion, golden, part):
  """bfloat16 keeps 8 bits. Over about fifty layers that is 4 % of the output's magnitude (PyTorch: 2.8 %)."""
  folder = {"unet": "unet", "decoded": "vae"}[part]
  params, inputs = (
    jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree)
    for tree in (
      tiny_diffusion.params[folder],
      {n: golden[n] for n in ("noisy", "text", "latents")},
    )
  )
  network = getattr(tiny_diffusion, folder)
  if part == "unet":
    arguments = (inputs["noisy"], golden["time"], Conditions(inputs["text"]))
    run = jax.jit(functools.partial(apply_unet, network))
  else:
    arguments = (inputs["latents"],)
    run = jax.jit(functools.partial(apply_decoder, network))
  output = run(params, *arguments)
  exact, theirs = golden[f"{part}_float32"], golden[f"{part}_bfloat16"]

  def error(array):
    return float(
      np.sqrt(np.square(np.asarray(array, np.float32) - exact).mean() / np.square(exact).mean())
    )

  assert error(output) < min(0.04, 1.5 * error(theirs))
