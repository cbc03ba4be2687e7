"""The sampler against PyTorch's pipeline; images do not depend on the batch or the devices."""

import functools
import itertools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from genbench_jax.diffusion import program as sampling, sampler as sampler_module
from genbench_jax.diffusion.generate import keys_of
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.errors import UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.zoo.tiny import SCHEDULER

# Samplers of which the golden file has pictures.
PYTORCHS = ("pndm", "ddim", "dpmsolver++", "euler")
# Evaluations of the UNet in every test, so that few programs are compiled.
EVALUATIONS = 10


@pytest.mark.slow
@pytest.mark.parametrize("guidance,negative", [(1.0, False), (7.5, False), (7.5, True)])
def test_latents_and_images_are_pytorchs(
  tiny_diffusion, mesh, golden_diffusion, guidance, negative
):
  assert golden_diffusion["evaluations"] == EVALUATIONS
  prompts = golden_diffusion["prompts"].tolist()
  negatives = golden_diffusion["negative_prompts"].tolist() if negative else ["", ""]
  for name, prediction in itertools.product(PYTORCHS, ("epsilon", "v_prediction")):
    count = EVALUATIONS - (name == "pndm")
    sampler = Sampler(tiny_diffusion, mesh, 1, count, guidance, name)
    schedule = NoiseSchedule.from_config(SCHEDULER | {"prediction_type": prediction})
    scale = sampling.Guidance(np.float32(guidance), np.float32(0))
    sampler._settings = (*sampler_steps(schedule, name, count), scale)
    made = sampler.launch(sampler.prepare(prompts, negatives, latents=golden_diffusion["start"]))
    key = f"{name}/{prediction}/{guidance}/{negative}"
    wanted = golden_diffusion[f"latents/{key}"]
    assert np.abs(made.latents[:2] - wanted).max() < 1e-3 * wanted.std(), key
    difference = np.abs(
      np.asarray(made.images[:2], int) - golden_diffusion[f"images/{key}"].astype(int)
    )
    assert difference.max() <= 2, key


def same_images(image, other):
  """At least 99.9 % of the values equal, none off by more than 2."""
  difference = np.abs(image.astype(int) - other.astype(int))
  return (difference == 0).mean() >= 0.999 and difference.max() <= 2


@pytest.mark.slow
def test_an_image_is_the_same_on_any_mesh_and_in_any_batch(tiny_diffusion, mesh, one_device_mesh):
  prompts = [f"a photo of {index}" for index in range(10)]
  negatives = ["blurry"] * 10
  keys = keys_of(range(100, 110))
  wide = Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS)(prompts, negatives, keys)
  assert wide.shape == (10, 16, 16, 3) and wide.dtype == np.uint8
  order = np.random.default_rng(0).permutation(10)
  narrow = Sampler(tiny_diffusion, one_device_mesh, 4, steps=EVALUATIONS)
  shuffled = narrow([prompts[i] for i in order], negatives, keys[order])
  assert same_images(shuffled, wide[order])
  assert not same_images(wide[0], wide[1])


def test_one_program_serves_every_scheduler_and_scale(tiny_diffusion, mesh):
  first = Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS)
  program = first._program
  before = program._cache_size()
  first(["a"], [""], keys_of([0]))
  traces = program._cache_size()
  for scheduler, scale in (("ddim", 3.0), ("euler", 7.5), ("dpmsolver++", 2.0)):
    Sampler(tiny_diffusion, mesh, 1, EVALUATIONS, scale, scheduler)(
      ["a", "b"], ["", "c"], keys_of([1, 2])
    )
  assert program._cache_size() == traces <= before + 1


def test_no_collective_and_no_parameter_in_the_program(tiny_diffusion, mesh):
  # Inside shard_map the compiler adds no collective of its own: those of the source are all there
  # are.
  code = Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS).lower(1).as_text()
  assert "manual_computation" in code
  for collective in (
    "all_reduce",
    "all_gather",
    "collective_permute",
    "all_to_all",
    "reduce_scatter",
  ):
    assert collective not in code
  assert len(code) < 2e6  # parameters baked in as constants would take some 5 MB of hexadecimal


def test_guidance_of_one_halves_the_unet(tiny_diffusion, one_device_mesh):
  def cost(guidance):
    sampler = Sampler(tiny_diffusion, one_device_mesh, 2, EVALUATIONS, guidance)
    return sampler.lower(2).cost_analysis()["flops"]

  def decoder():
    decode = functools.partial(sampling.decode, tiny_diffusion, tiny_diffusion.params["vae"])
    latents = np.zeros((2, 8, 8, 8), np.float32)
    return jax.jit(decode).lower(latents).cost_analysis()["flops"]

  # The loop's body counts once.
  without, guided = (cost(guidance) - decoder() for guidance in (1.0, 7.5))
  assert without == pytest.approx(guided / 2, rel=0.02)


def test_latents_take_the_place_of_keys(tiny_diffusion, mesh):
  sampler = Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS)
  keys = keys_of([5, 6])
  latents = np.asarray(jax.jit(sampling.draw_latents, static_argnums=1)(keys, sampler.latent_shape))
  from_keys = sampler(["a", "b"], ["", ""], keys)
  np.testing.assert_array_equal(from_keys, sampler(["a", "b"], ["", ""], latents=latents))
  with pytest.raises(UsageError, match=r"expected \[n, 8, 8, 8\]"):
    sampler(["a"], [""], latents=latents[:1, :2])


def test_drawn_latents_are_unit_normal_and_each_its_own():
  draw = jax.jit(sampling.draw_latents, static_argnums=1)
  latents = np.asarray(draw(keys_of(range(64)), (8, 8, 4)))
  assert abs(latents.mean()) < 0.02 and abs(latents.std() - 1) < 0.02
  np.testing.assert_array_equal(latents[7:9], draw(keys_of([7, 8]), (8, 8, 4)))
  assert np.abs(np.corrcoef(latents.reshape(64, -1)) - np.eye(64)).max() < 0.3


def test_decoding_in_slices_is_the_same_and_tells_what_is_not_finite(tiny_diffusion, monkeypatch):
  latents = np.random.default_rng(0).normal(size=(5, 8, 8, 8)).astype(np.float32)
  latents[2, 0, 0, 0] = np.nan

  def decode():
    images, are_finite = jax.jit(
      lambda x: sampling.decode(tiny_diffusion, tiny_diffusion.params["vae"], x)
    )(latents)
    assert np.asarray(are_finite).tolist() == [True, True, False, True, True]
    return np.asarray(images)[np.asarray(are_finite)]

  whole = decode()
  monkeypatch.setattr(sampling, "DECODED_AT_ONCE", 2 * 16 * 16)
  assert same_images(whole, decode())


def test_prompts_are_encoded_once(tiny_diffusion, mesh, monkeypatch):
  sampler = Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS)
  encoded = []
  encode = sampler._encode._encode
  monkeypatch.setattr(
    sampler._encode, "_encode", lambda texts: (encoded.extend(texts), encode(texts))
  )
  for _ in range(2):
    sampler(["new", "newer", "new"], ["", "", "newest"], keys_of([0, 1, 2]))
  assert sorted(set(encoded) - {""}) == ["new", "newer", "newest"]
  assert len(encoded) == len(set(encoded))


def test_bad_settings_are_refused(tiny_diffusion, mesh):
  with pytest.raises(UsageError, match="multiples of 4"):
    Sampler(tiny_diffusion, mesh, 1, height=18)
  with pytest.raises(UsageError, match="unknown scheduler"):
    Sampler(tiny_diffusion, mesh, 1, scheduler="heun")
  with pytest.raises(UsageError, match="batch of 8"):
    Sampler(tiny_diffusion, mesh, 1, steps=EVALUATIONS).prepare(
      ["a"] * 9, [""] * 9, keys_of(range(9))
    )


@pytest.mark.parametrize(
  ("scale", "rescale", "fine"),
  [(-1, 0, True), (7.5, 1, True), (math.nan, 0, False), (math.inf, 0, False), (1, -0.01, False),
   (1, 1.01, False), (1, math.nan, False)],
)  # fmt: skip
def test_guidance_is_finite_and_rescaled_by_a_share(scale, rescale, fine):
  if fine:
    sampler_module._check_guidance(scale, rescale)
  else:
    with pytest.raises(UsageError, match="guidance_"):
      sampler_module._check_guidance(scale, rescale)


@pytest.mark.unchecked
@pytest.mark.parametrize(
  ("height", "width", "shape"),
  [(64, 128, (8, 16, 4)), (192, 64, (24, 8, 4)), (0, 64, None), (64, -64, None), (96, 64, None),
   (64, 65, None)],
)  # fmt: skip
def test_sides_are_multiples_of_the_pixels_of_the_unets_coarsest_level(height, width, shape):
  unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1, 2, 3, 4)))
  model = SimpleNamespace(downsampling_factor=8, latent_channels=4, unet=unet)
  if shape:
    assert sampler_module._latent_shape(model, height, width) == shape
  else:
    with pytest.raises(UsageError, match="both must be multiples of 64"):
      sampler_module._latent_shape(model, height, width)


def test_texts_of_zeros_are_those_chosen_alone():
  rows = np.arange(1, 13, dtype=np.float32).reshape(3, 2, 2)
  found = sampler_module._zero_rows(rows, np.array([False, True, False]))
  assert not found[1].any()
  np.testing.assert_array_equal(found[[0, 2]], rows[[0, 2]])
