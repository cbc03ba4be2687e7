"""Losses of images against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers.problem import Batch, Model, Problem, View
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.train_step import (
  check_recipe,
  image_losses,
  initial_state,
  optimizer_of,
  program_recipe,
  train_step,
)

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], np.float32)
ONE_HOT = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
SEVERAL = np.array([[1, 0, 1], [0, 0, 0]], np.float32)


def softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_smoothing_spreads_mass_over_all_classes(smoothing):
  targets = (1 - smoothing) * ONE_HOT + smoothing / 3
  expected = -np.sum(targets * np.log(softmax(LOGITS)), axis=1)
  np.testing.assert_allclose(image_losses(LOGITS, ONE_HOT, smoothing, False), expected, rtol=1e-5)


def test_the_labels_of_an_image_share_its_weight():
  targets = np.array([[1, 1, 0], [0, 0, 0]], np.float32)
  expected = -0.5 * np.log(softmax(LOGITS)[0, :2]).sum()
  found = image_losses(LOGITS, targets, 0.0, False)
  np.testing.assert_allclose(found, [expected, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_smoothing_moves_targets_towards_a_half(smoothing):
  targets = SEVERAL * (1 - smoothing) + smoothing * 0.5
  chances = 1 / (1 + np.exp(-LOGITS))
  expected = -(targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean(axis=1)
  np.testing.assert_allclose(image_losses(LOGITS, SEVERAL, smoothing, True), expected, rtol=1e-5)


def test_the_loss_is_smallest_at_the_smoothed_targets():
  gradient = jax.grad(lambda logits: image_losses(logits, ONE_HOT, 0.1, False).sum())
  best = np.log(0.9 * ONE_HOT + 0.1 / 3)
  np.testing.assert_allclose(gradient(best), np.zeros((2, 3)), atol=1e-6)


PARAMS = {"w": np.array([[2.0, -4.0]], np.float32), "b": np.array([3.0, 1.0], np.float32)}
ZEROS = jax.tree.map(np.zeros_like, PARAMS)


def updates(recipe, gradients, steps=1):
  optimizer = optimizer_of(recipe)
  state = optimizer.init(PARAMS)
  for gradient in [gradients] * steps:
    found, state = optimizer.update(gradient, state, PARAMS)
  return found


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_with_two_axes_decay(name):
  found = updates(Recipe(optimizer=name, weight_decay=0.5), ZEROS)
  np.testing.assert_allclose(found["w"], [[1, -2]], atol=1e-6)
  np.testing.assert_array_equal(found["b"], [0, 0])


def test_sgd_collects_momentum_and_the_gradient_is_limited():
  gradients = {"w": np.array([[3.0, 0.0]], np.float32), "b": np.array([0.0, 4.0], np.float32)}
  recipe = Recipe(weight_decay=0.0, momentum=0.5)
  np.testing.assert_allclose(updates(recipe, gradients)["b"], [0, 4])
  np.testing.assert_allclose(updates(recipe, gradients, 3)["b"], [0, 4 * 1.75])
  limited = dataclasses.replace(recipe, clip_norm=2.5)
  np.testing.assert_allclose(updates(limited, gradients)["w"], [[1.5, 0]])
  loose = dataclasses.replace(recipe, clip_norm=6.0)
  np.testing.assert_allclose(updates(loose, gradients)["w"], [[3, 0]])
  adam = updates(Recipe(optimizer="adamw", weight_decay=0.0), gradients)
  np.testing.assert_allclose(adam["w"], [[1, 0]], atol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"optimizer": "adam"}, "optimizer"),
    ({"schedule": "linear"}, "schedule"),
    ({"batch_size": 6, "accumulate": 4}, "a batch of 6 can't be computed in 4 equal parts"),
    ({"batch_size": 3, "accumulate": 6}, "in 6 equal parts"),
  ],
)
def test_impossible_recipes_are_rejected(change, message):
  with pytest.raises(UsageError, match=message):
    check_recipe(dataclasses.replace(Recipe(), **change))
  for batch, parts in ((1, 1), (6, 3), (6, 6)):
    check_recipe(Recipe(batch_size=batch, accumulate=parts))


def test_a_program_depends_only_on_what_it_computes():
  given = Recipe(
    learning_rate=9.0, schedule="steps", warmup=0.5, epochs=7, min_steps=3, search_rates=(2.0,),
    search_epochs=(3.0,), momentum=0.1, batch_size=8, ema=0.5, mixup=0.3,
  )  # fmt: skip
  assert program_recipe(given) == Recipe(momentum=0.1, batch_size=8, ema=0.5, mixup=0.3)


def logits(variables, stats, frozen, pixels, key):
  stats = {"mean": stats["mean"] + 1}
  return pixels.mean(axis=(1, 2)) @ variables["w"] + variables["b"], stats


def stepped(number, multi_label=False, rates=(), **changes):
  """One step of two images of one pixel: new state, outcome, and the state before."""
  view = View(1, (0.0,) * 3, (1.0,) * 3)
  problem = Problem(logits, view, multi_label, rates)
  recipe = Recipe(
    batch_size=2, min_crop=1.0, flip=False, label_smoothing=0.0, weight_decay=0.0, momentum=0.0, **changes
  )  # fmt: skip
  images = np.array([255, 0, 51, 0, 255, 102], np.uint8).reshape(1, 2, 1, 1, 3)
  targets = np.array([[[1, 0], [0, 1]]], np.float32)
  weights = np.array([[1.5, 0.5]], np.float32)
  batch = Batch(images, targets, weights, np.int32(number), np.int32(0), np.float32(0.5))
  variables = {
    "w": np.array([[1.0, 0], [0, 2], [1, 1]], np.float32),
    "b": np.array([0.5, 0], np.float32),
  }
  state = initial_state(Model(variables, {"mean": np.zeros((), np.float32)}, {}), recipe)
  pixels = images.reshape(2, 3) / 255
  gradient = (
    weights[0, :, None] * (softmax(pixels @ variables["w"] + variables["b"]) - targets[0]) / 2
  )
  if "ema" in changes:
    state["average"] = jax.tree.map(lambda leaf: leaf - 1, state["average"])
  new, outcome = train_step(problem, recipe, state, {}, batch)
  return new, outcome, variables, {"w": pixels.T @ gradient, "b": gradient.sum(axis=0)}


def test_a_step_moves_by_the_rate_times_the_weighted_mean_gradient():
  new, outcome, before, gradient = stepped(0)
  for name in ("w", "b"):
    np.testing.assert_allclose(
      new["variables"][name], before[name] - 0.5 * gradient[name], atol=1e-6
    )
  assert "average" not in new
  pixels = np.array([[1, 0, 0.2], [0, 1, 0.4]])
  chances = softmax(pixels @ before["w"] + before["b"])
  assert float(outcome.loss) == pytest.approx(-(1.5 * np.log(chances[0, 0]) + 0.5 * np.log(chances[1, 1])) / 2)  # fmt: skip
  assert float(outcome.accuracy) == 1


def test_layers_have_the_rate_of_their_first_match():
  new, _, before, gradient = stepped(0, rates=(("b", 0.0), ("w", 3.0), ("w", 5.0)))
  np.testing.assert_array_equal(new["variables"]["b"], before["b"])
  np.testing.assert_allclose(new["variables"]["w"], before["w"] - 1.5 * gradient["w"], atol=1e-6)


def test_frozen_parameters_do_not_shorten_the_gradient():
  new, _, before, gradient = stepped(0, rates=(("b", 0.0),), clip_norm=0.01)
  step = 0.01 * gradient["w"] / np.linalg.norm(gradient["w"])
  np.testing.assert_allclose(new["variables"]["w"], before["w"] - 0.5 * step, atol=1e-6)


@pytest.mark.parametrize(("number", "decay"), [(0, 0.1), (8, 0.5), (98, 0.6)])
def test_the_average_follows_quickly_at_first(number, decay):
  """min(.6, (1 + t) / (10 + t)), for the weights and the running averages of batch norms."""
  new, _, before, _ = stepped(number, ema=0.6)
  for name in ("w", "b"):
    expected = decay * (before[name] - 1) + (1 - decay) * np.asarray(new["variables"][name])
    np.testing.assert_allclose(new["average"][0][name], expected, atol=1e-6)
  # The step moves the running average from 0 to 1; its own average was at -1.
  np.testing.assert_allclose(new["average"][1]["mean"], 1 - 2 * decay, atol=1e-6)


def test_hits_of_several_labels_are_counted_by_class():
  """Logits (.5 + 1 + .2, .2) and (.5 + .4, 2 + .4) are all positive; half of the labels are."""
  _, outcome, _, _ = stepped(0, multi_label=True)
  assert float(outcome.accuracy) == 0.5


def test_the_initial_state_is_a_copy_whose_memory_may_be_given_away():
  model = Model({"w": jnp.ones((2, 2))}, {"mean": jnp.zeros(2)}, {})
  state = initial_state(model, Recipe(ema=0.9))
  assert set(state) == {"variables", "stats", "optimizer", "average"}
  assert set(initial_state(model, Recipe())) == {"variables", "stats", "optimizer"}
  for part in ("variables", "stats", "average"):
    for leaf in jax.tree.leaves(state[part]):
      leaf.delete()
  assert float(model.variables["w"].sum()) == 4 and not np.asarray(model.stats["mean"]).any()
