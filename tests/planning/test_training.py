"""The cost of training recognizers, against hand counts."""

import dataclasses

import pytest

from genbench_jax.config import Config, default_config, make_config
from genbench_jax.models.classifier_cost import network_flops
from genbench_jax.planning.models import ModelCost
from genbench_jax.planning.training import TRAINING_PASSES, image_steps, recognition_flops
from genbench_jax.recognizers.settings import Recipe

ENCODER = ModelCost("e", None, flops=1e9, width=16, text_flops=1e8)
EXTERNAL, TEST, CLASSES = 40, 25, 10


def config(*recognizers, **settings):
  given = default_config()
  given.datasets, given.sources, given.shots = ("digits",), ("original",), (4,)
  given.recognition.recognizers = recognizers
  given.recognition.protocols = ("strict",)
  for path, value in settings.items():
    section, _, name = path.partition("__")
    given.recognition[section][name] = value
  return make_config(given)


def cost(made: Config, encoder=ENCODER, dataset="digits"):
  return recognition_flops(made, dataset, CLASSES, TEST, encoder, lambda cell: EXTERNAL)


def test_a_recipe_counts_the_images_of_its_steps_and_of_its_search():
  recipe = Recipe(epochs=2, min_steps=3, batch_size=8, search_rates=(1.0,), search_epochs=(1.0,))
  assert image_steps(recipe, 40) == 10 * 8
  assert image_steps(recipe, 1) == 3 * 8
  searched = dataclasses.replace(recipe, search_rates=(0.3, 1.0), search_epochs=(0.5, 1.0))
  assert image_steps(searched, 40) == (1 + 2 * 1.5) * 80


def test_nothing_costs_nothing():
  assert cost(config("linear_probe"), dataset="shapes") == 0


def test_the_probe_costs_the_smaller_of_images_and_width():
  wide = dataclasses.replace(ENCODER, width=1000)
  assert cost(config("linear_probe"), wide) / cost(config("linear_probe")) == EXTERNAL / 16


def test_fine_tuning_costs_three_passes_a_step_and_one_a_test_image():
  made = config("fine_tune")
  steps = image_steps(made.recognition.fine_tune.recipe, EXTERNAL)
  assert cost(made) == pytest.approx(1e9 * (TRAINING_PASSES * steps + TEST))


def test_a_network_from_scratch_has_the_cost_of_its_architecture():
  made = config("from_scratch")
  own = made.recognition.from_scratch
  flops = network_flops(own.network, own.image_size, CLASSES, own.stem)
  steps = image_steps(own.recipe, EXTERNAL)
  assert cost(made) == pytest.approx(flops * (TRAINING_PASSES * steps + TEST))


def test_recognizers_add_up():
  parts = sum(cost(config(name)) for name in ("linear_probe", "fine_tune", "tip_adapter"))
  assert cost(config("linear_probe", "fine_tune", "tip_adapter")) == pytest.approx(parts)


def test_both_protocols_cost_twice_except_for_learned_prompts():
  for name, factor in (("linear_probe", 2), ("fine_tune", 2), ("coop", 1), ("vpt", 1)):
    made = config(name)
    recognition = dataclasses.replace(made.recognition, protocols=("strict", "reference"))
    both = dataclasses.replace(made, recognition=recognition)
    assert cost(both) == pytest.approx(factor * cost(made)), name


@pytest.mark.parametrize("name", ["fine_tune", "vpt", "lora"])
def test_an_encoder_of_unknown_cost_has_no_total(name):
  unknown = dataclasses.replace(ENCODER, flops=None)
  assert cost(config(name), unknown) is None
  assert cost(config("linear_probe", name), unknown) is None
  assert cost(config("linear_probe"), unknown) is not None


@pytest.mark.parametrize("name", ["coop", "lora"])
def test_recognizers_that_read_texts_need_the_cost_of_the_text_tower(name):
  assert cost(config(name), dataclasses.replace(ENCODER, text_flops=None)) is None


def test_a_trained_cache_costs_more_than_a_fixed_one():
  fixed = cost(config("tip_adapter", tip_adapter__train=False))
  assert cost(config("tip_adapter", tip_adapter__train=True)) > fixed > 0
