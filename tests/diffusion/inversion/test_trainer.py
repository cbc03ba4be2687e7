"""Textual inversion: gradients, frozen parameters, independence of devices and of restarts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from genbench_jax.diffusion.inversion import trainer
from genbench_jax.diffusion.inversion.embeddings import load_embedding
from genbench_jax.diffusion.inversion.loss import (
  Batch,
  References,
  clip_loss,
  draw_batch,
  initial_row,
  inversion_loss,
  optimizer_of,
  start,
)
from genbench_jax.diffusion.inversion.references import reference_views
from genbench_jax.diffusion.inversion.settings import Training, reference_training
from genbench_jax.diffusion.inversion.trainer import Concept, Trainer
from genbench_jax.models.diffusion_model import apply_text_encoders, apply_unet
from genbench_jax.models.image_input import ImageInput
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.models.unet import Conditions
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_stable_diffusion


@pytest.fixture(scope="module")
def shallow_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("shallow") / "model"
  return write_tiny_stable_diffusion(folder, unet=SHALLOW_UNET)


@pytest.fixture(scope="module")
def tiny_diffusion(shallow_folder):
  """Return a model with a one-level UNet, whose gradient compiles quickly."""
  return load_stable_diffusion(shallow_folder)


TRAINING = Training(steps=6, batch=2, learning_rate=0.05, warm_up=2, save_every=2)


def _batch(model, seed=0, size=2):
  rng = np.random.default_rng(seed)
  clean, noise = rng.standard_normal((2, size, 8, 8, 8)).astype(np.float32)
  one = np.array([[[5, model.towers[0].vocabulary, 9, 7]]], np.int32)
  tokens = np.tile(one, (size, 1, 1))
  return Batch(clean, noise, np.array([100, 800], np.int32), tokens, np.zeros(size, np.int32))


def _concepts(folder, count, references=3):
  def images(index):
    rng = np.random.default_rng(index)
    return [Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)) for _ in range(references)]

  return [
    Concept(
      f"<new-{i}>",
      (f"thing {i}",),
      (0,) * (references - i % 2),
      functools.partial(lambda i: images(i)[: references - i % 2], i),
      folder / str(i) / "learned_embeds.safetensors",
    )
    for i in range(count)
  ]


def _learn(model, mesh, folder, count, training=TRAINING):
  concepts = _concepts(folder, count)
  trainer = Trainer(model, mesh, training, ("a {}", "the {} here"))
  done = sum(trainer.learn(concepts, folder / "state"))
  assert done == training.steps * count
  return [load_embedding(concept.path)[1][0] for concept in concepts]


@pytest.fixture(scope="module")
def alone(tiny_diffusion, one_device_mesh, tmp_path_factory):
  """Return three tokens trained one after another on one device."""
  folder = tmp_path_factory.mktemp("alone")
  return folder, _learn(tiny_diffusion, one_device_mesh, folder, 3)


@pytest.fixture(params=["epsilon", "v_prediction"])
def either(request, tiny_diffusion):
  schedule = dataclasses.replace(tiny_diffusion.schedule, prediction_type=request.param)
  return dataclasses.replace(tiny_diffusion, schedule=schedule)


def test_the_loss_is_the_error_in_noise_or_velocity(either):
  batch, row = _batch(either), np.full((1, 32), 0.1, np.float32)
  levels = either.schedule.alphas_cumprod[batch.time].astype(np.float32)[:, None, None, None]
  noisy = np.sqrt(levels) * batch.clean + np.sqrt(1 - levels) * batch.noise

  @jax.jit
  def unet_of(params, noisy):
    texts = apply_text_encoders(either.towers, params, [batch.tokens[:, 0]], [row])
    return apply_unet(either.unet, params["unet"], noisy, batch.time, Conditions(texts.states))

  output = unet_of(either.params, noisy)
  wanted = batch.noise
  if either.schedule.prediction_type == "v_prediction":
    wanted = np.sqrt(levels) * batch.noise - np.sqrt(1 - levels) * batch.clean
  found = jax.jit(lambda params: inversion_loss(either, params, row, batch))(either.params)
  np.testing.assert_allclose(found, np.square(output - wanted).mean(), rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences(tiny_diffusion):
  batch = _batch(tiny_diffusion)
  loss = jax.jit(lambda row: inversion_loss(tiny_diffusion, tiny_diffusion.params, row, batch))
  row = initial_row(tiny_diffusion, ("thing",), "class_name")
  gradient = np.asarray(jax.jit(jax.grad(loss))(row))
  direction = gradient / np.linalg.norm(gradient)
  step = 0.03  # float32: a smaller one drowns in rounding
  slope = (float(loss(row + step * direction)) - float(loss(row - step * direction))) / (2 * step)
  assert slope == pytest.approx(np.linalg.norm(gradient), rel=0.02)


@pytest.mark.unchecked
def test_the_guided_loss_pairs_each_image_with_its_own_text(tiny_diffusion):
  class Guide:
    input = ImageInput(4, mean=(0.5,) * 3, std=(0.25,) * 3)

    def embed_pixels(self, params, pixels):
      return pixels.mean(axis=(1, 2)) + params

  clean = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
  params = {**tiny_diffusion.params, "clip": jnp.float32(0.1)}
  text = np.eye(3, dtype=np.float32)[:2]
  loss = jax.jit(lambda *arrays: clip_loss(tiny_diffusion, *arrays, Guide()))
  twins = [np.stack([clean[i]] * 2) for i in range(2)]
  each = [float(loss(params, twins[i], np.stack([text[i]] * 2))) for i in range(2)]
  both = float(loss(params, clean, text))
  assert both == pytest.approx(np.mean(each), rel=1e-5) and 0 < both < 2
  assert float(loss(params, clean, text[::-1])) != pytest.approx(both)


def test_only_the_new_rows_are_learned(tiny_diffusion, alone, shallow_folder):
  folder, rows = alone
  for index, row in enumerate(rows):
    first = initial_row(tiny_diffusion, (f"thing {index}",), "class_name")[0]
    assert 0.05 < np.abs(row - first).max() < TRAINING.steps * TRAINING.learning_rate
  assert not list((folder / "state").glob("*"))
  again = load_stable_diffusion(shallow_folder).params
  jax.tree.map(np.testing.assert_array_equal, again, tiny_diffusion.params)


def test_a_start_is_the_mean_of_the_names_tokens_or_end_of_text(tiny_diffusion):
  params = tiny_diffusion.params["text_encoder"]["text_model"]
  table = params["embeddings.token_embedding"]["weight"]
  ids = tiny_diffusion.tokenizer("photo of", add_special_tokens=False)["input_ids"]
  assert len(ids) == 2
  found = initial_row(tiny_diffusion, ("photo of",), "class_name")
  np.testing.assert_allclose(found[0], table[ids].mean(axis=0), rtol=1e-6)
  end = table[tiny_diffusion.tokenizer.eos_token_id]
  np.testing.assert_array_equal(initial_row(tiny_diffusion, ("photo",), "end_of_text")[0], end)
  np.testing.assert_array_equal(initial_row(tiny_diffusion, ("",), "class_name")[0], end)


@pytest.mark.slow
def test_tokens_that_train_side_by_side_become_what_they_become_alone(
  tiny_diffusion, one_device_mesh, tmp_path, alone
):
  together = dataclasses.replace(TRAINING, categories_per_device=3)
  rows = _learn(tiny_diffusion, one_device_mesh, tmp_path, 3, together)
  np.testing.assert_allclose(rows, alone[1], atol=2e-4)
  assert np.abs(rows[0] - rows[1]).max() > 0.1


@pytest.mark.slow
def test_eight_devices_learn_the_same(tiny_diffusion, mesh, tmp_path, alone):
  rows = _learn(tiny_diffusion, mesh, tmp_path, 3)
  np.testing.assert_allclose(rows, alone[1], atol=1e-5)  # rounding: threads share sums otherwise


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
  tiny_diffusion, one_device_mesh, tmp_path, alone, monkeypatch
):
  monkeypatch.setattr(trainer, "STEPS_AT_ONCE", 1)
  concepts = _concepts(tmp_path, 3)
  inverter = Trainer(tiny_diffusion, one_device_mesh, TRAINING, ("a {}", "the {} here"))
  running = inverter.learn(concepts, tmp_path / "state")
  done = 0
  while done < TRAINING.steps + 5:  # into the second token, past its save after four steps
    done += next(running)
  running.close()
  kept = concepts[0].path.stat().st_mtime_ns
  assert concepts[0].path.exists() and not concepts[1].path.exists()
  assert [path.name for path in (tmp_path / "state").iterdir()] == ["state-00001.safetensors"]
  steps = list(inverter.learn(concepts, tmp_path / "state"))
  assert steps[0] == 4 and sum(steps) == 2 * TRAINING.steps
  assert concepts[0].path.stat().st_mtime_ns == kept
  rows = [load_embedding(concept.path)[1][0] for concept in concepts]
  np.testing.assert_array_equal(rows, alone[1])
  assert not list(inverter.learn(concepts, tmp_path / "state"))


def test_a_damaged_state_is_begun_anew(tiny_diffusion, one_device_mesh, tmp_path, alone):
  (tmp_path / "state").mkdir()
  (tmp_path / "state" / "state-00000.safetensors").write_bytes(b"cut short")
  np.testing.assert_array_equal(_learn(tiny_diffusion, one_device_mesh, tmp_path, 3), alone[1])


@pytest.mark.parametrize(
  "about", ["[]", "null", "7", "{}", '{"step": "3"}', '{"step": true}', '{"step": 1.5}', "{"]
)
def test_a_state_whose_step_is_no_number_is_begun_anew(tmp_path, about):
  like = jax.tree.map(
    lambda leaf: np.asarray(leaf)[None], start(jnp.zeros((1, 4), jnp.float32), Training())
  )
  arrays = {f"leaf{index:03d}": leaf for index, leaf in enumerate(jax.tree.leaves(like))}
  path = tmp_path / "state.safetensors"
  path.write_bytes(safetensors.numpy.save(arrays, {"about": '{"step": 3}'}))
  assert trainer._read_state(path, like)[0] == 3
  path.write_bytes(safetensors.numpy.save(arrays, {"about": about}))
  assert trainer._read_state(path, like) is None


def test_batches_take_references_in_turn_and_never_the_padding():
  mean = np.arange(4, dtype=np.float32)[:, None, None, None, None] * np.ones((1, 2, 1, 1, 1))
  tokens = np.arange(2, dtype=np.int32)[:, None, None] * np.ones((1, 3, 5), np.int32)
  label = np.array([0, 1, 1, 0], np.int32)
  key = jax.random.key_data(jax.random.key(0))
  references = References(mean, None, np.int32(3), label, tokens, None, key)
  for step in range(4):
    batch = draw_batch(references, jax.random.key(step), 6, 1000, False)
    taken = np.asarray(batch.clean).ravel().astype(int)
    assert np.bincount(taken, minlength=4).tolist() == [2, 2, 2, 0]
    np.testing.assert_array_equal(batch.tokens[:, 0], label[taken])
    np.testing.assert_array_equal(np.asarray(batch.time) // 167, np.arange(6))


def test_views_are_whole_cropped_and_mirrored():
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8))
  views = reference_views(image, 16, 16, Training(flip=True, crops=2), (0, 1))
  assert views.shape == (6, 16, 16, 3)
  np.testing.assert_array_equal(views[3:], views[:3, :, ::-1])
  again = reference_views(image, 16, 16, Training(flip=True, crops=2), (0, 1))
  np.testing.assert_array_equal(views, again)
  colored = reference_views(image, 16, 16, Training(flip=True, recolor=True), (0, 1))
  assert len(np.unique(colored, axis=0)) == len(colored) == 12
  np.testing.assert_array_equal(colored[-2], views[0][..., ::-1])
  middle = image.resize((16, 32), Image.Resampling.BICUBIC).crop((0, 8, 16, 24))
  np.testing.assert_array_equal(views[0], np.asarray(middle))


def test_low_resolution_takes_the_detail_away():
  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
  full = reference_views(image, 32, 32, Training(), (0,))[0]
  low = reference_views(image, 32, 32, Training(reference_resolution=4), (0,))[0]
  np.testing.assert_array_equal(full, np.asarray(image))
  assert (
    np.abs(np.diff(low.astype(int), axis=0)).mean()
    < np.abs(np.diff(full.astype(int), axis=0)).mean() / 2
  )


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_rises_then_falls_or_stays(schedule):
  training = Training(steps=100, warm_up=10, learning_rate=0.1, schedule=schedule, weight_decay=0.0)
  optimizer = optimizer_of(training)
  row, state, sizes = jnp.zeros((1, 4)), optimizer.init(jnp.zeros((1, 4))), []
  update = jax.jit(optimizer.update)
  for _ in range(100):
    step, state = update(jnp.ones((1, 4)), state, row)
    sizes.append(float(jnp.abs(step).max()))
  assert sizes[0] == 0 and sizes[10] == pytest.approx(0.1, rel=0.02)
  assert sizes[-1] == pytest.approx(0.1 if schedule == "constant" else 0.0, abs=1e-3)


def test_the_published_settings():
  original, retrieval = (Training(**reference_training(r)) for r in ("original", "retrieval"))
  assert (original.learning_rate, retrieval.learning_rate) == (4e-3, 8e-4)
  assert original.initializer == "end_of_text" and original.reference_resolution == 224
