"""Choices around a training: which cells train together, which settings are chosen, what is reported."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from genbench_jax.errors import ModelError
from genbench_jax.recognizers import fit as module
from genbench_jax.recognizers.engine import TrainingResult
from genbench_jax.recognizers.fit import (
  Fit,
  _checked,
  chosen,
  evaluated,
  score_loss,
  side_by_side,
)
from genbench_jax.recognizers.problem import Model
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.splits import stratified_folds
from genbench_jax.recognizers.training_set import Curriculum, make_training_set

RECIPE = Recipe(epochs=0, min_steps=20, search_rates=(0.5, 1.0), search_epochs=(0.25, 1.0))


def curriculum(steps, images=4):
  return Curriculum((np.arange(images),), (steps,), RECIPE, 0)


@pytest.mark.parametrize(
  ("steps", "sizes", "at_once", "groups"),
  [
    ([5, 5, 5], [8, 8, 8], 3, [[0, 1, 2]]),
    ([5, 5, 5], [8, 8, 8], 2, [[0, 1], [2]]),
    ([5, 5, 5], [8, 8, 8], 1, [[0], [1], [2]]),
    ([5, 6, 5], [8, 8, 8], 3, [[0], [1], [2]]),
    ([5, 5, 5], [8, 9, 9], 3, [[0], [1, 2]]),
  ],
)
def test_neighbors_of_equal_length_and_size_train_together(steps, sizes, at_once, groups):
  assert side_by_side([curriculum(count) for count in steps], sizes, at_once) == groups


def result(losses, weight=1.0):
  model = Model({"w": np.array([weight])}, {}, {})
  return TrainingResult(model, np.array(losses), np.zeros(len(losses)))


def test_a_diverged_cell_names_the_step_of_the_whole_training():
  assert isinstance(_checked(result([1.0, 2.0]), "cell", 2), TrainingResult)
  error = _checked(result([1.0, math.inf, math.nan]), "lora a", 10)
  assert str(error) == "lora a: the loss is not a number from step 9 on."
  assert "from step 1 on" in str(_checked(result([math.nan]), "cell", 1))
  moments = result([1.0])
  moments = moments._replace(model=moments.model._replace(stats={"mean": np.array([math.inf])}))
  assert "the last of 7 steps" in str(_checked(moments, "cell", 7))
  last = _checked(result([1.0], math.nan), "cell", 7)
  assert isinstance(last, ModelError) and "the last of 7 steps" in str(last)


def data_of(labels):
  labels = np.array(labels)
  return make_training_set(np.zeros((len(labels), 2, 2, 3), np.uint8), np.eye(3)[labels], seed=4)


def choose(labels, protocol="strict", losses=(), **changes):
  """Choose with given held-out losses of the pairs; return also the pairs that were tried."""
  method = SimpleNamespace(recipe=dataclasses.replace(RECIPE, **changes))
  asked, left = [], list(losses)

  def loss_of(method, data, held_out, place, length, rate):
    asked.append((length, rate))
    folds = stratified_folds(data.targets, 5, 4)
    np.testing.assert_array_equal(held_out, folds == np.unique(folds[folds >= 0])[0])
    assert held_out.any() and not held_out.all()
    return left.pop(0)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, "held_out_loss", loss_of)
    found, about = chosen(method, data_of(labels), None, protocol)
  return found, about, asked


TWO_EACH = [0, 0, 1, 1, 2, 2]


@pytest.mark.unchecked
def test_the_pair_with_the_smallest_held_out_loss_is_chosen():
  found, about, asked = choose(TWO_EACH, losses=[3.0, 1.0, 2.0, 1.0])
  assert asked == [(0.25, 0.5), (0.25, 1.0), (1.0, 0.5), (1.0, 1.0)]
  # Ties go to the first: a quarter of the steps at the full rate.
  assert (found.num_steps, found.recipe.learning_rate) == (5, 0.1)
  assert about["chosen_by"] == "held-out external images" and about["steps"] == 5
  assert about["held_out_losses"] == {
    "rate x0.5, steps x0.25": 3, "rate x1, steps x0.25": 1, "rate x0.5, steps x1": 2, "rate x1, steps x1": 1,
  }  # fmt: skip
  nan, _, _ = choose(TWO_EACH, losses=[math.nan, 3.0, 2.0, math.inf])
  assert (nan.num_steps, nan.recipe.learning_rate) == (20, 0.05)


@pytest.mark.unchecked
@pytest.mark.parametrize("classes", [[0, 0], [0, 0, 1], [0, 1, 2, 2], [0, 0, 1, 1]])
def test_images_are_held_out_wherever_the_folds_begin(classes):
  """A single class with two images is in two of the five folds."""
  for rolled in range(3):  # each class has a random first fold
    labels = [(label + rolled) % 3 for label in classes]
    assert choose(labels, losses=[4.0, 3.0, 2.0, 1.0])[1]["chosen_by"].startswith("held-out")


@pytest.mark.unchecked
@pytest.mark.parametrize(
  ("labels", "protocol", "losses", "changes", "steps", "rate"),
  [
    (TWO_EACH, "reference", (), {}, 20, 0.1),
    ([0, 1, 2], "strict", (), {}, 20, 0.1),  # nothing can be held out
    (TWO_EACH, "strict", [math.inf] * 4, {}, 20, 0.1),  # every training diverges
    (TWO_EACH, "strict", (), {"search_rates": ()}, 20, 0.1),
    (TWO_EACH, "strict", (), {"search_rates": (0.5,), "search_epochs": (0.25,)}, 5, 0.05),
    ([0, 1, 2], "strict", (), {"search_rates": (0.5,), "search_epochs": (0.25,)}, 5, 0.05),
  ],
)
def test_without_a_choice_the_recipe_is_used(labels, protocol, losses, changes, steps, rate):
  found, about, _ = choose(labels, protocol, losses, **changes)
  assert (found.num_steps, found.recipe.learning_rate) == (steps, pytest.approx(rate))
  assert about == {"learning_rate": pytest.approx(rate), "steps": steps, "chosen_by": "given"}


def test_the_loss_of_probabilities_is_the_cross_entropy():
  scores = np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]])
  one = np.array([[1.0, 0, 0], [0, 1, 0]])
  expected = -(np.log(0.5) + np.log(0.9)) / 2
  assert score_loss(scores, one, False) == pytest.approx(expected)
  several = np.array([[1.0, 1, 0], [0, 1, 0]])
  right = np.where(several > 0, scores, 1 - scores)
  assert score_loss(scores, several, True) == pytest.approx(-np.log(right).mean())
  wrong = np.array([[0.0, 1, 0], [0, 0, 1]])
  assert score_loss(np.array([[1.0, 0, 0]] * 2), wrong, False) == pytest.approx(-np.log(1e-12))
  assert score_loss(np.array([[0.0, 1, 1]]), np.array([[1.0, 0, 0]]), True) == pytest.approx(-np.log(1e-12), rel=1e-4)  # fmt: skip


@pytest.mark.unchecked
@pytest.mark.parametrize("losses", [[], [3.0, 2.0]])
def test_a_result_has_the_scores_and_the_last_loss(losses, monkeypatch):
  scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
  monkeypatch.setattr(module, "predict", lambda *given: scores)
  fit = Fit(Model({}, {}, {}), {"steps": 7}, np.array(losses))
  method = SimpleNamespace(problem=None)
  found = evaluated(method, fit, data_of([0, 0, 1]), None, np.array([0, 2]), "accuracy", None)
  assert (found["score"], found["n_test"], found["steps"]) == (0.5, 2, 7)
  assert (found["n_external"], found["missing_classes"]) == (3, [2])
  assert found.get("train_loss") == (losses[-1] if losses else None)
  scores[1, 2] = math.nan
  with pytest.raises(ModelError, match="scores of the test images are not numbers"):
    evaluated(method, fit, data_of([0, 0, 1]), None, np.array([0, 2]), "accuracy", None)
