"""Defaults of generation, and the images that are kept."""

import dataclasses

import pytest

from genbench_jax.diffusion.inversion.settings import TextualInversion, Training
from genbench_jax.diffusion.settings import DECODED_AT_ONCE, Generation
from genbench_jax.errors import UsageError
from genbench_jax.runtime.settings import read_section


def test_the_defaults_of_generation():
  assert dataclasses.asdict(Generation()) == {
    "checkpoint": "zoo/diffusion", "revision": "", "sha256": "", "strategies": ("defined_template",),
    "steps": 50, "guidance_scale": 7.5, "scheduler": "dpmsolver++", "height": 0, "width": 0,
    "batch_per_device": 8, "keep_images": "all", "shard_size": 512, "implementation": "ours", "backend": "",
    "eta": 0, "guidance_rescale": 0, "timesteps": (), "scheduler_settings": "", "loras": (),
    "autoencoder": "", "negative_prompt": "", "lora_sha256": (), "autoencoder_revision": "",
    "autoencoder_sha256": "", "backend_dtype": "", "backend_device": "",
  }  # fmt: skip


TRAINING = {
  "steps": 2000, "batch": 8, "learning_rate": 0.004, "schedule": "cosine", "warm_up": 100,
  "weight_decay": 0.01, "initializer": "class_name", "reference_resize": "crop", "reference_resolution": 0,
  "flip": False, "crops": 0, "recolor": False, "sample_latents": False, "clip_weight": 0,
  "categories_per_device": 1, "save_every": 500,
}  # fmt: skip


def test_the_defaults_of_textual_inversion():
  assert dataclasses.asdict(Training()) == TRAINING
  assert dataclasses.asdict(TextualInversion()) == TRAINING | {
    "references": ("",), "shots": 5, "scope": "category", "templates": "dataset", "folder": "",
    "real_images": 0,
  }  # fmt: skip


@pytest.mark.parametrize(
  ("text", "kept"), [("all", 7), ("none", 0), ("4", 4), ("7", 7), ("100", 7)]
)
def test_images_are_kept_up_to_a_number_per_class(text, kept):
  generation = read_section(Generation, {"keep_images": text}, "config.generation")
  assert generation.kept_images(7) == kept


@pytest.mark.parametrize("text", ["", "0", "-1", "some", "1.5"])
def test_other_texts_are_rejected(text):
  with pytest.raises(UsageError, match=r"keep_images is .*, expected 'all'"):
    read_section(Generation, {"keep_images": text}, "config.generation")


def test_a_device_decodes_four_images_of_512_pixels_at_once():
  assert DECODED_AT_ONCE == 4 * 512 * 512
