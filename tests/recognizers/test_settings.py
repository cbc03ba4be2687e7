"""Defaults and recipes of the recognizers: they decide numbers, so a changed one is a changed benchmark."""

import dataclasses
import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers import (
  fine_tune,
  fit,
  from_scratch,
  lora,
  prompt_tuning,
  reference_probe,
  reference_search,
  splits,
  strict_probe,
  tip_adapter,
)
from genbench_jax.recognizers.settings import (
  VPT_DECAYS,
  VPT_RATES,
  CoopSettings,
  FineTuneSettings,
  FromScratchSettings,
  LoraSettings,
  Recipe,
  Recognition,
  TipAdapterSettings,
  VptSettings,
)
from genbench_jax.runtime.settings import read_section

RECIPE = {
  "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine",
  "warmup": 0.05, "epochs": 100, "min_steps": 400, "batch_size": 64, "accumulate": 1, "label_smoothing": 0.1,
  "min_crop": 0.25, "flip": True, "randaugment": 0, "randaugment_magnitude": 9, "mixup": 0, "cutmix": 0,
  "ema": 0, "clip_norm": 0, "search_rates": (0.3, 1.0), "search_epochs": (0.3, 1.0),
}  # fmt: skip
FINE_TUNE = RECIPE | {
  "optimizer": "adamw", "learning_rate": 1e-5, "weight_decay": 0.1, "epochs": 10, "min_steps": 200,
  "label_smoothing": 0, "min_crop": 0.5, "clip_norm": 1,
}  # fmt: skip
LORA = RECIPE | {
  "optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 1e-2, "epochs": 50, "min_steps": 300,
  "batch_size": 32, "label_smoothing": 0, "min_crop": 0.5,
}  # fmt: skip
DEFAULTS = {
  Recipe: RECIPE,
  CoopSettings: {
    "context_length": 16, "per_class": False, "position": "end", "template": "", "steps": 1000,
    "batch_size": 32, "learning_rate": 0.002, "warmup": 50, "weight_decay": 5e-4, "classes_at_once": 32,
    "paper": False,
  },
  VptSettings: {
    "depth": "deep", "prompt_length": 8, "steps": 1000, "batch_size": 32, "images_at_once": 32,
    "learning_rate": 0.002, "warmup": 50, "weight_decay": 1e-4, "paper": False, "search": False,
  },
  TipAdapterSettings: {
    "train": False, "alpha": 1, "beta": 5.5, "search_alphas": (0.1, 0.3, 1, 3, 10),
    "search_betas": (1, 2, 5.5, 10, 20), "epochs": 20, "min_steps": 50, "batch_size": 256,
    "learning_rate": 1e-3,
  },
  LoraSettings: {
    "rank": 4, "alpha": 4, "dropout": 0.1, "matrices": "qkv", "towers": "both", "template": "",
    "paper": "clip_lora", "shots": (), "recipe": LORA,
  },
  FineTuneSettings: {
    "checkpoint": "", "network": "resnet50", "image_size": 224, "revision": "", "sha256": "", "blocks": 0,
    "layer_decay": 0.75, "wise_ft": 1, "shots": (), "recipe": FINE_TUNE,
  },
  FromScratchSettings: {
    "network": "resnet18", "image_size": 64, "stem": "auto", "shots": (), "cells_at_once": 0,
    "recipe": RECIPE,
  },
}  # fmt: skip


@pytest.mark.parametrize("settings", DEFAULTS)
def test_the_defaults_of_a_recognizer(settings):
  assert dataclasses.asdict(settings()) == DEFAULTS[settings]


def test_the_defaults_of_a_run():
  found = Recognition()
  assert (found.recognizers, found.protocols) == (("linear_probe",), ("strict",))
  assert (found.language_init, found.save_predictions, found.save_every) == (True, True, 100)
  assert found.shots_of("lora") == found.shots_of("linear_probe") == found.shots_of("none") == ()
  some = dataclasses.replace(found, lora=LoraSettings(shots=(4,)))
  assert some.shots_of("lora") == (4,)


@pytest.mark.parametrize(
  ("images", "steps"), [(1, 400), (255, 400), (256, 400), (257, 402), (512, 800), (513, 802)]
)
def test_a_recipe_has_its_epochs_but_a_least_number_of_steps(images, steps):
  assert Recipe().num_steps(images) == steps
  assert dataclasses.replace(Recipe(), min_steps=0, epochs=0).num_steps(images) == 1


@pytest.mark.parametrize(
  ("images", "epochs", "steps_of_epoch"),
  [(10, 50, 1), (11, 100, 1), (33, 100, 2), (40, 100, 2), (41, 200, 2), (64, 200, 2), (65, 200, 3)],
)
def test_coop_trains_as_long_as_in_its_paper(images, epochs, steps_of_epoch):
  """Zhou et al. 2022: 50 epochs at 1 shot, 100 at 2 to 4, 200 beyond; the first is the warm-up."""
  found = CoopSettings(paper=True).for_images(images, num_classes=10)
  assert (found.steps, found.warmup) == (epochs * steps_of_epoch, steps_of_epoch)
  assert CoopSettings().for_images(images, 10) == CoopSettings()


@pytest.mark.parametrize(
  ("images", "steps", "warmup"), [(5, 100, 10), (32, 100, 10), (33, 200, 20)]
)
def test_vpt_trains_as_long_as_in_its_paper(images, steps, warmup):
  """Jia et al. 2022: 100 epochs, ten of them warm-up."""
  found = VptSettings(paper=True).for_images(images)
  assert (found.steps, found.warmup) == (steps, warmup)
  assert VptSettings().for_images(images) == VptSettings()


def test_the_grids_are_those_of_the_papers():
  assert VPT_RATES == (50, 25, 10, 5, 2.5, 1, 0.5, 0.25, 0.1, 0.05)
  assert VPT_DECAYS == (0.01, 0.001, 0.0001, 0)
  assert pytest.approx((1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)) == reference_search.LEARNING_RATES
  np.testing.assert_allclose(np.log10(reference_search.WEIGHT_DECAYS), np.linspace(-6, 6, 97))
  assert (reference_search.COARSE_STEP, reference_search.SPANS) == (16, (8, 4, 2, 1))


def test_the_reference_probe_trains_as_published():
  found = reference_probe
  assert (found.BATCH_SIZE, found.MOMENTUM) == (64, 0.9)
  assert (found.NORM_MOMENTUM, found.NORM_EPSILON) == (0.1, 1e-5)
  assert (found.TRIAL_EPOCHS, found.FINAL_EPOCHS) == (10, 50)


def test_the_strict_probe_searches_its_grids():
  np.testing.assert_allclose(strict_probe.PENALTIES, 10.0 ** np.arange(2, -7, -1))
  np.testing.assert_allclose(np.log2(strict_probe.PRIOR_SCALES), -np.arange(13) / 2)
  assert strict_probe.DEFAULT_PENALTY == 1
  assert (strict_probe.FEW_IMAGES, strict_probe.FOLDS_OF_FEW, strict_probe.FOLDS_OF_MANY) == (2048, 3, 5)  # fmt: skip


def changes(recipe):
  """The settings of a recipe that differ from the defaults."""
  return {k: v for k, v in dataclasses.asdict(recipe).items() if v != RECIPE[k]}


def test_published_recipes():
  assert changes(fine_tune.PUBLISHED) == {
    "optimizer": "adamw", "learning_rate": 3e-5, "weight_decay": 0.1, "epochs": 10, "min_steps": 0,
    "batch_size": 512, "label_smoothing": 0, "min_crop": 0.9, "flip": False, "clip_norm": 1,
  }  # fmt: skip
  assert changes(from_scratch.PUBLISHED) == {
    "weight_decay": 1e-4, "schedule": "steps", "warmup": 0, "epochs": 90, "min_steps": 0, "batch_size": 256,
    "label_smoothing": 0, "min_crop": 0.08,
  }  # fmt: skip
  clip_lora = lora.PUBLISHED["clip_lora"]
  assert (clip_lora.rank, clip_lora.alpha, clip_lora.dropout, clip_lora.matrices) == (2, 1, 0.25, "qkv")  # fmt: skip
  assert lora.STEPS_PER_SHOT == 500 and lora.TEMPLATE == "a photo of a {}."


def test_other_published_numbers():
  assert (tip_adapter.FOLDS, tip_adapter.EPSILON) == (3, 1e-4)
  assert prompt_tuning.CONSTANT_WARMUP == 1e-5
  assert splits.NEVER_HELD_OUT == -1
  assert reference_search.MOST_LOGITS == 2**26


def test_other_numbers_that_decide_trainings():
  assert fit.HELD_OUT_SHARE == 5
  assert strict_probe.bucket_rows(1) == strict_probe.LEAST_ROWS == 64


@pytest.mark.parametrize(
  ("size", "rows"),
  [(64, 64), (65, 96), (96, 96), (97, 128), (129, 192), (193, 256), (257, 384), (769, 1024)],
)
def test_rows_are_padded_to_powers_of_two_and_their_middles(size, rows):
  assert strict_probe.bucket_rows(size) == rows


@pytest.mark.unchecked
def test_as_many_cells_of_the_reference_search_are_trained_at_once_as_their_logits_allow(
  monkeypatch,
):
  """42 trials of the coarse search, 64 rows for 8 held-out images, 2 classes: 5,376 logits a cell."""
  targets = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
  cells = [SimpleNamespace(targets=targets)] * 7
  for most, at_once in ((10**9, 7), (5376 * 3, 3), (5376 * 3 - 1, 2), (1, 1)):
    monkeypatch.setattr(reference_search, "MOST_LOGITS", most)
    found = list(reference_search._blocks(cells))
    assert {count for _, count in found} == {at_once}
    assert [index for members, _ in found for index in members] == list(range(7))


def read(section, **values):
  return read_section(section, values, "config")


@pytest.mark.parametrize(
  ("section", "name", "accepted", "refused"),
  [
    (Recipe, "momentum", (0.0, 1.0), (-0.01, 1.01)),
    (Recipe, "label_smoothing", (0.0, 1.0), (-0.01, 1.01)),
    (Recipe, "learning_rate", (1e-9, 50.0), (0.0, -1.0)),
    (Recipe, "weight_decay", (0.0, 2.0), (-1e-9,)),
    (Recipe, "batch_size", (1, 4096), (0,)),
    (Recipe, "accumulate", (1,), (0,)),
    (Recipe, "min_steps", (0, 1), (-1,)),
    (Recipe, "randaugment", (0, 1), (-1,)),
    (FromScratchSettings, "shots", ((1, 16), ()), ((0,),)),
    (LoraSettings, "rank", (1,), (0,)),
    (TipAdapterSettings, "beta", (1e-9,), (0.0,)),
    (TipAdapterSettings, "alpha", (0.0,), (-1e-9,)),
  ],
)
def test_settings_at_the_limits_of_what_is_allowed(section, name, accepted, refused):
  for value in accepted:
    assert getattr(read(section, **{name: value}), name) == value
  for value in refused:
    with pytest.raises(UsageError, match=f"config.{name}"):
      read(section, **{name: list(value) if isinstance(value, tuple) else value})


def test_the_published_recipes_of_low_rank():
  assert changes(lora.PUBLISHED["clip_lora"].recipe) == {
    "optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 1e-2, "warmup": 0, "epochs": 0,
    "min_steps": 500, "batch_size": 32, "label_smoothing": 0, "min_crop": 0.08,
  }  # fmt: skip
  datadream = lora.PUBLISHED["datadream"]
  assert (datadream.rank, datadream.alpha, datadream.dropout, datadream.matrices) == (
    16,
    32,
    0.1,
    "qv",
  )
  assert changes(datadream.recipe) == {
    "optimizer": "adamw", "learning_rate": 1e-4, "weight_decay": 1e-4, "warmup": 0.3, "epochs": 10,
    "min_steps": 0, "label_smoothing": 0, "min_crop": 0.5,
  }  # fmt: skip


@pytest.mark.parametrize(("shots", "steps"), [(0, 500), (1, 500), (2, 1000), (16, 8000)])
def test_clip_lora_trains_500_steps_a_shot(shots, steps):
  found = lora.published(LoraSettings(), shots)
  assert found.recipe.min_steps == steps and found.rank == 2
  other = lora.published(LoraSettings(paper="datadream"), shots)
  assert other == lora.PUBLISHED["datadream"]
  with pytest.raises(UsageError, match="paper of lora"):
    lora.published(LoraSettings(paper="other"), shots)


@pytest.mark.parametrize(
  ("towers", "matrices", "yes", "no"),
  [
    ("both", "qv", ["vision_model.x.self_attn.q_proj", "text_model.0.self_attn.v_proj"], ["vision_model.x.self_attn.k_proj"]),
    ("image", "o", ["vision_model.a.self_attn.out_proj"], ["text_model.a.self_attn.out_proj"]),
    ("text", "k", ["text_model.a.self_attn.k_proj"], ["vision_model.a.self_attn.k_proj", "text_model.a.mlp.k_proj"]),
  ],
)  # fmt: skip
def test_layers_with_updates(towers, matrices, yes, no):
  pattern = lora.pattern(LoraSettings(towers=towers, matrices=matrices))
  assert all(re.search(pattern, name) for name in yes)
  assert not any(re.search(pattern, name) for name in [*no, *(f"{name}.x" for name in yes)])


def test_unknown_layers_are_rejected():
  with pytest.raises(UsageError, match="lora"):
    lora.pattern(LoraSettings(towers="images"))
  for matrices in ("", "qx"):
    with pytest.raises(UsageError, match=f"matrices is {matrices!r}, expected letters of 'qkvo'"):
      read_section(LoraSettings, {"matrices": matrices}, "config.recognition.lora")


@pytest.mark.parametrize(
  ("backend", "size", "given", "cells"),
  [("cpu", 32, 0, 1), ("tpu", 64, 0, 8), ("tpu", 65, 0, 1), ("cpu", 32, 5, 5), ("tpu", 224, 3, 3)],
)
def test_small_networks_train_side_by_side_on_accelerators(
  backend, size, given, cells, monkeypatch
):
  monkeypatch.setattr(from_scratch.jax, "default_backend", lambda: backend)
  settings = FromScratchSettings(image_size=size, cells_at_once=given)
  assert from_scratch.cells_at_once(settings) == cells
  assert (from_scratch.compute_dtype() is jnp.float32) == (backend == "cpu")
