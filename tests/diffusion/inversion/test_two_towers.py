"""A token for a model with two text towers: both parts of its embedding are learned, saved and read again."""

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from genbench_jax.diffusion.inversion.embeddings import load_learned
from genbench_jax.diffusion.inversion.loss import Batch, initial_row, inversion_loss
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.diffusion.inversion.trainer import Concept, Trainer
from genbench_jax.diffusion.text import TextEncoder
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.zoo.tiny import SHALLOW_UNET, UNET_XL, write_tiny_sdxl

# One level, as in `SHALLOW_UNET`: programs with its gradient compile fast.
UNET = UNET_XL | {
  key: SHALLOW_UNET[key]
  for key in ("down_block_types", "up_block_types", "block_out_channels", "attention_head_dim")
}
WIDTHS = (32, 48)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("xl") / "model"
  unet = UNET | {"transformer_layers_per_block": 1}
  return load_stable_diffusion(write_tiny_sdxl(folder, unet=unet))


@pytest.fixture(scope="module")
def batch(model):
  draw = np.random.default_rng(0)
  clean, noise = draw.standard_normal((2, 2, 8, 8, 8)).astype(np.float32)
  # The new token's id is the first beyond each tower's own vocabulary; the text ends so that it can be pooled.
  rows = [[5, tower.vocabulary, 9, tower.tokenizer.eos_token_id] for tower in model.towers]
  tokens = np.tile(np.asarray(rows, np.int32)[None], (2, 1, 1))
  return Batch(clean, noise, np.array([100, 800], np.int32), tokens, np.zeros(2, np.int32))


@pytest.fixture(scope="module")
def loss(model, batch):
  return jax.jit(lambda row: inversion_loss(model, model.params, row, batch))


@pytest.mark.slow
def test_the_gradient_of_either_tower_is_that_of_finite_differences(model, loss):
  row = np.asarray(initial_row(model, ("thing",), "class_name"))
  assert row.shape == (1, sum(WIDTHS))
  gradient = np.asarray(jax.jit(jax.grad(loss))(row))
  for part in (slice(0, 32), slice(32, 80)):
    direction = np.zeros_like(row)
    direction[:, part] = gradient[:, part] / np.linalg.norm(gradient[:, part])
    step = 0.03  # float32: rounding dominates below
    slope = (float(loss(row + step * direction)) - float(loss(row - step * direction))) / (2 * step)
    assert slope == pytest.approx(np.linalg.norm(gradient[:, part]), rel=0.03)
    assert float(loss(row - step * direction)) < float(loss(row))


@pytest.mark.slow
def test_a_trained_token_is_read_again_for_both_towers(model, one_device_mesh, tmp_path):
  pixels = np.random.default_rng(1).integers(0, 256, (20, 16, 3), np.uint8)
  path = tmp_path / "new" / "learned_embeds.safetensors"
  images = lambda: [Image.fromarray(pixels)]  # noqa: E731
  concept = Concept("<new>", ("photo",), (0,), images, path)
  training = Training(steps=4, batch=2, learning_rate=0.05, warm_up=1, save_every=4)
  trainer = Trainer(model, one_device_mesh, training, ("a {}",))
  assert sum(trainer.learn([concept], tmp_path / "state")) == 4
  assert {name: part.shape for name, part in load_file(path).items()} == {
    "clip_l": (32,),
    "clip_g": (48,),
  }
  learned = load_learned([path])
  start = np.asarray(initial_row(model, ("photo",), "class_name"))[0]
  moved = np.abs(learned.vectors["<new>"][0] - start)
  # Adam moves every number by about the learning rate a step.
  assert moved[:32].mean() > 0.02 and moved[32:].mean() > 0.02
  states = TextEncoder(model, one_device_mesh, learned=learned)(["a <new>", "a photo"])
  plain = TextEncoder(model, one_device_mesh)(["a photo"])
  np.testing.assert_allclose(states.states[1], plain.states[0], atol=1e-5)
  for part in (slice(0, 32), slice(32, 80)):
    assert np.abs(states.states[0, :, part] - plain.states[0, :, part]).max() > 0.01
