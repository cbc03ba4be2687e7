"""The cache of Tip-Adapter against its formulas."""

import dataclasses

import jax
import numpy as np
import pytest

from genbench_jax.recognizers import tip_adapter as module
from genbench_jax.recognizers.settings import TipAdapterSettings
from genbench_jax.recognizers.splits import stratified_folds
from genbench_jax.recognizers.tip_adapter import (
  CacheStrength,
  TipData,
  cache_logits,
  chosen,
  tip_adapter,
  trained_keys,
)

CLASSES, WIDTH = 3, 8
SETTINGS = TipAdapterSettings(train=False)


def unit(rows):
  return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def data_of(per_class=4, seed=0, noise=0.5, **changes):
  random = np.random.default_rng(seed)
  text = unit(random.normal(size=(CLASSES, WIDTH)))
  labels = np.arange(CLASSES * per_class) % CLASSES
  features = unit(text[labels] + noise * random.normal(size=(len(labels), WIDTH)))
  targets = np.eye(CLASSES, dtype=np.float32)[labels]
  made = TipData(features, targets, np.ones(len(labels), np.float32), text, 10.0, seed)
  return dataclasses.replace(made, **changes)


def by_hand(features, data, alpha, beta):
  affinities = np.exp(-beta * (1 - features @ data.features.T))
  votes = data.targets * data.weights[:, None]
  return data.scale * features @ data.text.T + alpha * affinities @ votes


def test_logits_are_zero_shot_plus_weighted_votes():
  """Zhang et al. 2022 (arXiv 2207.09519), eq. 4 to 6."""
  data = data_of()
  tests = unit(np.random.default_rng(5).normal(size=(7, WIDTH)))
  cache = data.cache()
  found = cache_logits(tests, cache.keys, data.frozen(cache.values, 1.3, 5.5))
  np.testing.assert_allclose(found, by_hand(tests, data, 1.3, 5.5), rtol=1e-4, atol=1e-4)


def test_an_equal_feature_votes_with_the_full_weight():
  data = data_of()
  cache = data.cache()
  sharp = cache_logits(data.features[:1], cache.keys, data.frozen(cache.values, 2.0, 1e3))
  zero_shot = data.scale * data.features[:1] @ data.text.T
  np.testing.assert_allclose(sharp - zero_shot, 2 * data.targets[:1], atol=1e-3)


def test_without_a_weight_the_cache_says_nothing():
  data = data_of()
  cache = data.cache()
  found = cache_logits(data.features, cache.keys, data.frozen(cache.values, 0.0, 5.5))
  np.testing.assert_allclose(found, data.scale * data.features @ data.text.T, rtol=1e-4, atol=1e-5)


def test_votes_are_shared_among_labels_and_multiplied_by_weights():
  data = data_of(1, weights=np.array([1, 2, 3], np.float32))
  several = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
  values = dataclasses.replace(data, targets=several).cache().values
  np.testing.assert_allclose(values, [[0.5, 0.5, 0], [0, 2, 0], [0, 0, 3]])


def test_a_cache_of_some_rows_has_their_votes():
  data = data_of()
  part = data.cache(np.array([4, 0]))
  np.testing.assert_array_equal(part.keys, data.features[[4, 0]])
  np.testing.assert_array_equal(part.values, data.targets[[4, 0]])


@pytest.mark.parametrize(
  ("data", "protocol", "changes"),
  [
    (data_of(), "reference", {}),
    (data_of(1), "strict", {}),
    (data_of(), "strict", {"search_alphas": (1.0,), "search_betas": (2.0,)}),
  ],
)
def test_the_given_pair_is_used_if_nothing_is_searched(data, protocol, changes):
  settings = dataclasses.replace(SETTINGS, alpha=0.7, beta=3.0, **changes)
  assert chosen(data, settings, protocol) == CacheStrength(0.7, 3.0, {})


def test_the_pair_with_the_smallest_held_out_loss_is_chosen():
  settings = dataclasses.replace(SETTINGS, search_alphas=(0.0, 2.0), search_betas=(1.0, 8.0))
  # Wrong texts make the cache worth listening to; wrong images make it worthless.
  data = data_of(8, noise=0.2)
  astray = dataclasses.replace(data, text=data.text[[1, 2, 0]])
  found = chosen(astray, settings, "strict")
  assert found.alpha == 2.0
  assert set(found.losses) == {f"alpha {a}, beta {b}" for a in (0, 2) for b in (1, 8)}
  assert min(found.losses.values()) == found.losses[f"alpha {found.alpha:g}, beta {found.beta:g}"]
  shuffled = dataclasses.replace(data, targets=np.roll(data.targets, 1, axis=1))
  assert chosen(shuffled, settings, "strict").losses["alpha 0, beta 1"] > 0


def test_losses_are_means_over_all_images_that_are_held_out_once(monkeypatch):
  monkeypatch.setattr(
    module, "_held_out_losses", lambda data, kept, held, pairs: [2.0] * len(pairs)
  )
  settings = dataclasses.replace(SETTINGS, search_alphas=(1.0, 2.0), search_betas=(1.0,))
  assert set(chosen(data_of(), settings, "strict").losses.values()) == {2.0}


def test_training_moves_the_keys_and_lowers_the_loss(one_device_mesh):
  data = data_of(4, noise=1.0)
  settings = dataclasses.replace(SETTINGS, min_steps=20, epochs=1, learning_rate=1e-2)
  strength = CacheStrength(1.0, 5.5, {})
  keys = trained_keys(data, settings, strength, one_device_mesh)
  assert keys.shape == data.features.shape and (keys != data.features).any()

  def loss(keys):
    frozen = data.frozen(data.cache().values, 1.0, 5.5)
    logits = jax.nn.log_softmax(cache_logits(data.features, keys, frozen))
    return -float(np.mean(np.sum(data.targets * np.asarray(logits), axis=1)))

  assert loss(keys) < loss(data.features)


def test_the_score_is_that_of_the_formula(one_device_mesh):
  data, test = data_of(6), data_of(10, seed=0, noise=0.9)
  labels, test_labels = data.targets.argmax(1), test.targets.argmax(1)
  settings = dataclasses.replace(SETTINGS, alpha=1.0, beta=5.5)
  found = tip_adapter(
    data.features, labels, test.features, test_labels, data.text, "reference",
    settings=settings, logit_scale=10.0, mesh=one_device_mesh,
  )  # fmt: skip
  expected = by_hand(test.features, data, 1.0, 5.5).argmax(1) == test_labels
  assert found["score"] == pytest.approx(expected.mean())


@pytest.mark.parametrize(
  ("least", "epochs", "batch", "steps"),
  [(20, 1, 4, 20), (0, 2, 5, 5), (0, 0.1, 5, 1), (3, 4, 999, 4)],
)
def test_a_training_has_its_epochs_but_a_least_number_of_steps(
  least, epochs, batch, steps, one_device_mesh, monkeypatch
):
  """Of twelve images; a batch has no more of them than there are."""
  asked = {}

  def learn(program, start, frozen, batches, count, *others):
    asked.update(steps=count, size=len(next(batches(0)).features))
    return start, None

  monkeypatch.setattr(module, "learn", learn)
  settings = dataclasses.replace(SETTINGS, min_steps=least, epochs=epochs, batch_size=batch)
  trained_keys(data_of(4), settings, CacheStrength(1.0, 5.5, {}), one_device_mesh)
  assert asked == {"steps": steps, "size": min(batch, 12)}


@pytest.mark.parametrize("steps", [1, 2])
def test_keys_are_trained_by_the_published_optimizer(steps, one_device_mesh):
  """AdamW with epsilon 1e-4 and decay 1e-2; the rate is 0 at the first step and then falls from its peak."""
  program = module._program(0.1, steps, False, one_device_mesh)
  keys, gradient = np.full((1, 2), 2.0, np.float32), np.array([[1e-4, 1.0]], np.float32)
  state = program.optimizer.init(keys)
  moved = []
  for _ in range(2):
    found, state = program.optimizer.update(gradient, state, keys)
    moved.append(np.asarray(found))
  direction = gradient / (gradient + 1e-4) + 1e-2 * keys
  rates = (0.1, 0.0) if steps == 1 else (0.0, 0.1)
  for rate, found in zip(rates, moved, strict=True):
    np.testing.assert_allclose(found, -rate * direction, rtol=1e-3, atol=1e-9)


def test_two_pairs_are_searched_and_the_first_of_equal_ones_is_taken(monkeypatch):
  asked = []

  def losses(data, kept, held, pairs):
    asked.append((len(kept), len(held), list(pairs)))
    return [1.0 for _ in pairs]

  monkeypatch.setattr(module, "_held_out_losses", losses)
  settings = dataclasses.replace(SETTINGS, search_alphas=(3.0,), search_betas=(7.0, 5.0))
  found = chosen(data_of(2), settings, "strict")
  assert (found.alpha, found.beta) == (3, 7)
  assert sum(held for _, held, _ in asked) == 6 and all(kept + held == 6 for kept, held, _ in asked)
  assert all(pairs == [(3, 7), (3, 5)] for _, _, pairs in asked)


def test_losses_of_parts_are_weighted_by_their_images(monkeypatch):
  """Folds of one class of four images have one or two of them: the mean is over images."""
  monkeypatch.setattr(module, "_held_out_losses", lambda data, kept, held, pairs: [len(held), 1.0])
  settings = dataclasses.replace(SETTINGS, search_alphas=(1.0, 2.0), search_betas=(1.0,))
  data = data_of(4)
  counts = np.bincount(stratified_folds(data.targets, 3, data.seed), minlength=3)
  found = list(chosen(data, settings, "strict").losses.values())
  assert found == pytest.approx([np.sum(counts**2) / 12, 1.0])


def test_held_out_images_are_scored_by_the_cache_of_the_others():
  data = data_of(3)
  kept, held = np.array([0, 1, 2, 5, 6]), np.array([3, 4])
  (found,) = module._held_out_losses(data, kept, held, [(1.3, 5.5)])
  others = dataclasses.replace(
    data, features=data.features[kept], targets=data.targets[kept], weights=data.weights[kept]
  )
  logits = by_hand(data.features[held], others, 1.3, 5.5)
  chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  expected = -np.mean(np.sum(data.targets[held] * np.log(chances), axis=1))
  assert found == pytest.approx(expected, rel=1e-4)
