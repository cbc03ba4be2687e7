"""`genbench_jax.generate`: images from prompts without a config."""

import dataclasses
import functools
import weakref

import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.diffusion import generate as module
from genbench_jax.diffusion.generate import generate, keys_of
from genbench_jax.diffusion.inversion.embeddings import save_embedding
from genbench_jax.embedding import library
from genbench_jax.errors import ModelError, UsageError


@pytest.fixture(autouse=True)
def loaded_once(tiny_diffusion, monkeypatch):
  """The model of the other tests, whose programs are compiled."""
  monkeypatch.setattr("genbench_jax.diffusion.generate._loaded", lambda *_: tiny_diffusion)


@pytest.mark.slow
def test_same_seed_same_image(tiny_diffusion_folder):
  both = generate(
    ["a dog", "a cat"], tiny_diffusion_folder, seeds=[3, 4], steps=10, batch_per_device=1
  )
  assert both.shape == (2, 16, 16, 3) and both.dtype == np.uint8
  one = generate(["a cat"], tiny_diffusion_folder, seeds=[4], steps=10)
  np.testing.assert_array_equal(both[1], one[0])


def test_images_are_pytorchs_from_the_same_latents(tiny_diffusion_folder, golden_diffusion):
  images = generate(
    golden_diffusion["prompts"].tolist(),
    tiny_diffusion_folder,
    latents=golden_diffusion["start"],
    negative_prompts=golden_diffusion["negative_prompts"].tolist(),
    steps=9,
    guidance_scale=7.5,
    scheduler="pndm",
  )
  wanted = golden_diffusion["images/pndm/epsilon/7.5/True"]
  assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 2


def test_no_prompts_no_images(tiny_diffusion_folder):
  assert generate([], tiny_diffusion_folder, steps=10).shape == (0, 16, 16, 3)


def test_keys_are_those_of_jax():
  import jax

  np.testing.assert_array_equal(keys_of([7])[0], jax.random.key_data(jax.random.key(7)))
  assert keys_of([]).shape == (0, 2)


def test_counts_must_agree(tiny_diffusion_folder):
  with pytest.raises(UsageError, match="3 seeds for 2 prompts"):
    generate(["a", "b"], tiny_diffusion_folder, seeds=[1, 2, 3])
  with pytest.raises(UsageError, match="1 negative prompts for 2 prompts"):
    generate(["a", "b"], tiny_diffusion_folder, negative_prompts=["x"])
  with pytest.raises(UsageError, match="latents replace seeds"):
    generate(["a"], tiny_diffusion_folder, seeds=[1], latents=np.zeros((1, 8, 8, 8)))


def test_prompts_may_hold_new_tokens(tiny_diffusion_folder, tmp_path):
  vector = np.random.default_rng(0).standard_normal(32).astype(np.float32)
  save_embedding(tmp_path / "cat" / "learned_embeds.safetensors", "<cat>", vector)
  make = functools.partial(generate, ["a <cat> cat"], tiny_diffusion_folder, steps=10)
  plain, learned = make(), make(learned_embeddings={"<cat>": vector})
  assert np.abs(plain.astype(int) - learned).max() > 0
  np.testing.assert_array_equal(make(learned_embeddings=[tmp_path / "cat"]), learned)


def test_guidance_at_one_and_below_is_none(tiny_diffusion_folder):
  make = functools.partial(generate, ["a dog"], tiny_diffusion_folder, steps=10)
  np.testing.assert_array_equal(make(guidance_scale=0), make(guidance_scale=1.0))
  for scale in (float("nan"), float("inf")):
    with pytest.raises(UsageError, match="guidance_scale"):
      make(guidance_scale=scale)
  with pytest.raises(UsageError, match="guidance_rescale"):
    make(guidance_rescale=2)


@pytest.mark.parametrize("seed", [2**32, -1, 1.5, True])
def test_seeds_are_whole_numbers_of_32_bits(tiny_diffusion_folder, seed):
  with pytest.raises(UsageError, match="seeds must be integers"):
    generate(["a"], tiny_diffusion_folder, seeds=[seed])
  np.testing.assert_array_equal(keys_of(np.arange(3, dtype=np.int64)), keys_of([0, 1, 2]))


def test_an_image_that_is_not_finite_is_an_error(
  tiny_diffusion, tiny_diffusion_folder, monkeypatch
):
  vae = tiny_diffusion.params["vae"]
  decoder = vae["decoder"] | {
    "conv_out": {k: v * np.nan for k, v in vae["decoder"]["conv_out"].items()}
  }
  params = tiny_diffusion.params | {"vae": vae | {"decoder": decoder}}
  broken = dataclasses.replace(tiny_diffusion, params=params)
  monkeypatch.setattr("genbench_jax.diffusion.generate._loaded", lambda *_: broken)
  with pytest.raises(ModelError, match="NaN or infinity"):
    generate(["a"], tiny_diffusion_folder, steps=10)


def test_loras_are_pairs(tiny_diffusion_folder):
  with pytest.raises(UsageError, match="pairs of a file and its weight"):
    generate(["a"], tiny_diffusion_folder, loras=["style.safetensors"])


@pytest.mark.parametrize(
  ("count", "given", "rows"),
  [(1, None, 1), (8, None, 1), (9, None, 2), (64, None, 8), (800, None, 8), (9, 5, 5)],
)
def test_batches_are_as_large_as_needed_and_eight_at_most(count, given, rows, monkeypatch):
  """On eight devices."""

  class BatchError(Exception):
    pass

  def sampler(model, mesh, batch, *others, **settings):
    assert mesh.size == 8
    raise BatchError(batch)

  monkeypatch.setattr(module, "_loaded", lambda *checkpoint: None)
  monkeypatch.setattr(module, "Sampler", sampler)
  with pytest.raises(BatchError) as caught:
    generate(["x"] * count, "anything", batch_per_device=given)
  assert caught.value.args == (rows,)


def test_seeds_beside_all_that_replaces_them_are_refused(tiny_diffusion_folder):
  noise = np.zeros((1, 2, 2, 4), np.float32)
  given = {"latents": noise, "step_noise": noise[None], "steps": 1}
  with pytest.raises(UsageError, match="so omit seeds"):
    generate(["a circle"], tiny_diffusion_folder, seeds=[7], **given)


@pytest.mark.unchecked
def test_the_models_of_the_last_calls_can_be_released(monkeypatch):
  class Loaded:
    pass

  monkeypatch.setattr(library, "load_image_encoder", lambda *given: Loaded())
  monkeypatch.setattr(module, "load_stable_diffusion", lambda *given, **more: Loaded())
  models = (library._loaded("zoo/clip", None), module._loaded_once("a", None, (), "", ()))
  kept = [weakref.ref(model) for model in models]
  del models
  assert all(reference() for reference in kept)
  gb.forget_models()
  assert not any(reference() for reference in kept)
