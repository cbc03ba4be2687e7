"""The distillation of the few-step model: the teacher's own trajectories, the consistency function, a LoRA that loads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.benchmark.worlds import world_specs
from genbench_jax.diffusion.generate import generate
from genbench_jax.diffusion.program import draw_latents
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding.embedder import text_prototypes
from genbench_jax.models.clip import load_clip
from genbench_jax.models.diffusion_model import apply_unet
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.models.unet import Conditions
from genbench_jax.models.weights import leaves
from genbench_jax.zoo import few_step
from genbench_jax.zoo.judge import embed
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_stable_diffusion

TEXTS = ["a photo", "a photo of a photo"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("teacher") / "model"
  return write_tiny_stable_diffusion(place, "v_prediction", unet=SHALLOW_UNET)


@pytest.fixture(scope="module")
def teacher(folder):
  return load_stable_diffusion(folder)


@pytest.fixture(scope="module")
def data(teacher):
  return few_step.solve(teacher, TEXTS)


def test_a_trajectory_ends_where_the_sampler_ends(teacher, data, one_device_mesh):
  keys = jnp.stack(
    [jax.random.key_data(jax.random.fold_in(jax.random.key(0), i)) for i in range(2)]
  )
  latents = np.asarray(draw_latents(keys, (8, 8, 8)))
  sampler = Sampler(teacher, one_device_mesh, 2, few_step.TEACHER_STEPS, few_step.GUIDANCE)
  made = sampler.launch(sampler.prepare(TEXTS, ["", ""], latents=latents))
  np.testing.assert_allclose(data.ends, made.latents, atol=1e-3)
  assert data.points.shape == (2, 4, 8, 8, 8) and data.times.tolist() == [999, 749, 500, 250]
  np.testing.assert_allclose(data.points[:, 0], latents, atol=1e-6)


def test_the_student_is_the_identity_at_time_zero_and_predicts_the_clean_latents_later(teacher):
  draw = np.random.default_rng(0)
  noisy, velocity = draw.standard_normal((2, 2, 8, 8, 8)).astype(np.float32)
  levels = jnp.asarray(teacher.schedule.alphas_cumprod, jnp.float32)
  found = few_step.clean_end(velocity, noisy, levels, np.array([0, 600]))
  np.testing.assert_allclose(found[0], noisy[0], atol=1e-6)
  wanted = np.sqrt(levels[600]) * noisy[1] - np.sqrt(1 - levels[600]) * velocity[1]
  np.testing.assert_allclose(found[1], wanted, atol=1e-5)  # c_skip is 7e-9 there


def test_the_loss_grows_with_the_distance_not_with_its_square():
  error = np.zeros((2, 4, 4, 8), np.float32)
  error[0] += 1
  found = few_step.pseudo_huber(error)
  offset = 0.00054 * np.sqrt(128)
  np.testing.assert_allclose(found, [np.sqrt(128 + offset**2) - offset, 0], rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_what_is_saved_is_what_was_trained(teacher, folder, tmp_path):
  weights = teacher.params["unet"]
  factors = few_step.low_rank(weights, 3, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, few_step.merged(weights, factors), weights)
  draw = np.random.default_rng(0)
  for pair in factors.values():
    pair["up"] = draw.standard_normal(pair["up"].shape).astype(np.float32)
  few_step.save(factors, tmp_path)
  found = load_stable_diffusion(folder, loras=[(tmp_path, 1.0)]).params["unet"]
  wanted = dict(leaves(few_step.merged(weights, factors)))
  for name, leaf in leaves(found):
    # Factors of three terms are kept in float16.
    np.testing.assert_allclose(leaf, wanted[name], atol=5e-3 * max(1, np.abs(wanted[name]).max()))


@pytest.mark.slow
def test_training_brings_the_student_nearer_to_the_ends(teacher, data, tmp_path, monkeypatch):
  monkeypatch.setattr(few_step, "BATCH", 8)
  factors = few_step.distill(teacher, data, tmp_path / "work", 12)
  assert all(np.abs(pair["up"]).max() > 0 for pair in factors.values())
  levels = jnp.asarray(teacher.schedule.alphas_cumprod, jnp.float32)

  noisy, texts, times = data.points[:, 0], Conditions(data.texts), np.full(2, 999)

  @jax.jit
  def distance(weights):
    velocity = apply_unet(teacher.unet, weights, noisy, times, texts)
    end = few_step.clean_end(velocity, noisy, levels, times)
    return few_step.pseudo_huber(end - data.ends).mean()

  weights = teacher.params["unet"]
  assert distance(few_step.merged(weights, factors)) < 0.95 * distance(weights)


def test_captions_are_of_the_worlds_that_the_teacher_knows():
  found = few_step.captions(30)
  assert found == few_step.captions(30) and len(set(found)) > 20


@pytest.mark.slow
def test_the_shipped_model_draws_digits_in_four_steps():
  clip, spec = load_clip("zoo/clip"), world_specs()["digits"]
  prompts = [spec.templates[0].format(name) for name in spec.names]
  images = generate(
    prompts, "zoo/diffusion", range(10), steps=4, guidance_scale=1.0, scheduler="lcm",
    loras=[("zoo/few_step", 1.0)],
  )  # fmt: skip
  text = text_prototypes(clip, spec.names, spec.templates)
  assert (np.argmax(embed(clip, images) @ text.T, axis=1) == np.arange(10)).mean() >= 0.9
