"""Seeds give the orders, divisions and initial weights that they gave before: stopped trainings are resumed.

The numbers were computed by this package. A change here changes published rows, and belongs in the changelog.
"""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from genbench_jax.recognizers.augment import Examples, mixed, random_crop
from genbench_jax.recognizers.linear_probe import CheckedData, _first_head
from genbench_jax.recognizers.low_rank import initial_adapters
from genbench_jax.recognizers.prompt_tuning import first_context
from genbench_jax.recognizers.random_views import RandomViews, resized_crop, scaled_crop
from genbench_jax.recognizers.reference_probe import batch_order
from genbench_jax.recognizers.settings import CoopSettings, Recipe, VptSettings
from genbench_jax.recognizers.splits import stratified_folds
from genbench_jax.recognizers.training import batch_rows, mixed_rows
from genbench_jax.recognizers.training_set import make_training_set
from genbench_jax.recognizers.visual_tokens import first_head, first_prompts
from genbench_jax.recognizers.vpt_search import held_out

VISION = SimpleNamespace(patch_size=4, encoder=SimpleNamespace(width=8, layers=2))
CLIP = SimpleNamespace(
  module=SimpleNamespace(vision=VISION, text=SimpleNamespace(encoder=VISION.encoder))
)
TARGETS = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [7, 4, 1])]
VIEWS = RandomViews([], 8, 5, 0.2)


def of_orders():
  later = np.arange(12) % 3 == 0
  data = make_training_set(np.zeros((12, 2, 2, 3), np.uint8), TARGETS, later=later, seed=5)
  curriculum = data.curriculum(Recipe(batch_size=4, epochs=1, min_steps=2))
  return [*curriculum.rows(0), *curriculum.rows(2), *curriculum.rows(3)]


def of_crops():
  random = np.random.default_rng(2)
  return [n for cut in (resized_crop, scaled_crop) for n in cut(40, 30, VIEWS, random)]


def of_head():
  data = CheckedData([], np.zeros((2, 4), np.float32), np.zeros(2, int), None, 3, False, [])
  head = _first_head(data, 5)
  return [*np.ravel(head.weights), *head.bias]


def of_adapters():
  params = {"q": {"weight": np.zeros((4, 2), np.float32)}}
  return initial_adapters(params, "q", 2, 7)["q"]["a"].ravel()


def of_mixture():
  examples = Examples(np.zeros((2, 4, 4, 3)), np.eye(2), np.ones(2))
  keys = [jax.random.key(seed) for seed in range(4)]
  shares = [mixed(key, examples, 0.4, 1.0).targets[0, 0] for key in keys]
  return [*shares, *random_crop(keys[0], 32, 0.3)]


GIVEN = {
  "batches": lambda: np.concatenate([batch_rows(number, 5, 7, 3) for number in (0, 1, 9)]),
  "phases": lambda: mixed_rows(4, 7, 5, np.arange(9) < 4, 9, 3),
  "orders": of_orders,
  "folds": lambda: stratified_folds(TARGETS, 3, 5),
  "held out": lambda: held_out(TARGETS, 5),
  "reference order": lambda: batch_order(70, 2, 2, 5)[1, 0, :9],
  "prompts": lambda: first_prompts(CLIP, VptSettings(prompt_length=1), 5).ravel()[:4],
  "vpt head": lambda: [*first_head(2, 2, 5).weights.ravel(), *first_head(2, 2, 5).bias],
  "context": lambda: first_context(CLIP, CoopSettings(context_length=1), 3, 5).ravel()[:4],
  "crops": of_crops,
  "probe head": of_head,
  "adapters": of_adapters,
  "mixture": of_mixture,
}
EXPECTED: dict[str, list[float]] = {
  "batches": [5, 6, 2, 1, 4, 3, 0, 2, 1, 4, 0, 3, 4, 2, 4],
  "phases": [1, 2, 3, 0, 3],
  "orders": [2, 7, 4, 5, 0, 9, 3, 6, 6, 3, 0, 9],
  "folds": [2, 2, 1, 2, 0, 1, 0, 2, 0, 1, 1, -1],
  "held out": [0],
  "reference order": [19, 60, 53, 35, 39, 18, 17, 6, 2],
  "prompts": [0.199671, 0.201595, 0.0100329, -0.140226],
  "vpt head": [-0.448536, 0.144008, 0.683385, 0.0179485, 0.117505, -0.654466],
  "context": [-0.0160386, -0.0264872, -0.00496723, 0.0084089],
  "crops": [8, 6, 29, 29, 1.26384, 2.25038, 27.5138, 28.5004],
  "probe head": [
    0.305003,
    0.307941,
    0.0153256,
    -0.214199,
    -0.446069,
    -0.116631,
    -0.0915268,
    -0.454725,
    -0.451242,
    0.499176,
    0.152369,
    -0.26549,
    -0.0650524,
    0.474186,
    0.397678,
  ],
  "adapters": [
    0.125095,
    0.397214,
    0.275686,
    -0.274793,
    -0.199834,
    0.373553,
    -0.494735,
    0.321228,
  ],
  "mixture": [0.546022, 0.804341, 0.00657963, 0.875, 8, 4, 24, 18],
}


@pytest.mark.unchecked
@pytest.mark.parametrize("name", GIVEN)
def test_a_seed_gives_what_it_gave(name):
  found = np.asarray(GIVEN[name](), float)
  np.testing.assert_allclose(found, EXPECTED[name], rtol=2e-4, atol=1e-6)
