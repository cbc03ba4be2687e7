"""The cost of a training step, and the defaults of a place."""

from types import SimpleNamespace

import numpy as np
import pytest

from genbench_jax.recognizers import method as module
from genbench_jax.recognizers.method import Method, Place, step_flops
from genbench_jax.recognizers.problem import Model, Problem, View
from genbench_jax.recognizers.settings import Recipe


def logits(variables, stats, frozen, pixels, key):
  assert key is None
  return pixels.reshape(len(pixels), -1) @ variables["w"], stats


def test_a_step_costs_three_forward_passes(monkeypatch):
  seen = []
  monkeypatch.setattr(module, "operations_of", lambda f, *shapes: seen.append(shapes) or 600.0)
  problem = Problem(logits, View(2, (0.5,) * 3, (0.5,) * 3))
  start = lambda seed: Model({"w": np.ones((12, 3))}, {}, {})  # noqa: E731
  method = Method("name", problem, start, Recipe(batch_size=5))
  assert step_flops(method) == 3 * 600 / 5
  model, pixels = seen[0]
  assert pixels.shape == (5, 2, 2, 3) and model.variables["w"].shape == (12, 3)
  assert method.finish("model") == "model"


@pytest.mark.unchecked
def test_the_defaults_of_a_place():
  place = Place(SimpleNamespace())
  assert (place.name, place.directory, place.save_every, place.at_once) == ("images", None, 100, 1)
