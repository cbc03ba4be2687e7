"""VPT: without prompts, the tower is the stock one; only prompts are trained."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.embedding.embedder import image_features, unit_norm
from genbench_jax.errors import UsageError
from genbench_jax.models import clip_towers
from genbench_jax.recognizers import visual_prompts, vpt_search
from genbench_jax.recognizers.settings import VptSettings
from genbench_jax.recognizers.visual_prompts import learn_visual_prompts, micro_batches, vpt_loss
from genbench_jax.recognizers.visual_tokens import (
  Variables,
  VisualPrompts,
  first_head,
  first_prompts,
  frozen_tower,
  load_visual_prompts,
  prompted_scores,
  save_visual_prompts,
)
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.zoo.tiny import pixel_reader

SETTINGS = VptSettings(prompt_length=3, steps=10, batch_size=12, learning_rate=0.05, warmup=2)


@pytest.fixture(scope="module")
def data(tiny_clip):
  """Return images of three colors, and the text prototypes to match."""
  generator = np.random.default_rng(0)
  labels = np.arange(24) % 3
  pixels = (
    generator.normal(size=(24, 32, 32, 3)).astype(np.float32) + np.eye(3)[labels][:, None, None]
  )
  text = unit_norm(image_features(tiny_clip, pixels[:3])[[1, 2, 0]])
  return pixels.astype(np.float32), np.eye(3, dtype=np.float32)[labels], text


def test_without_prompts_it_is_the_stock_tower(tiny_clip, data):
  none = jnp.zeros((1, 0, 32))
  ours = clip_towers.image_features(tiny_clip.module, tiny_clip.params, data[0], none)
  np.testing.assert_allclose(ours, unit_norm(image_features(tiny_clip, data[0])), atol=1e-5)


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_gradients_agree_with_finite_differences(tiny_clip, data, depth):
  pixels, targets, text = data
  tokens = jnp.asarray(first_prompts(tiny_clip, dataclasses.replace(SETTINGS, depth=depth)))
  assert len(tokens) == {"shallow": 1, "deep": 2}[depth]
  frozen = frozen_tower(tiny_clip, text, data_mesh(jax.devices()[:1]))
  weights = (np.arange(24) < 20) / np.float32(20)
  # One program for the loss and its gradient.
  both = jax.jit(jax.value_and_grad(
    lambda t: vpt_loss(tiny_clip.module, Variables(t), frozen, pixels, targets, weights)
  ))  # fmt: skip
  gradient = both(tokens)[1]
  assert all(np.linalg.norm(layer) > 0 for layer in gradient)
  direction = gradient / jnp.linalg.norm(gradient)
  step = 2e-3
  above, below = (both(tokens + sign * step * direction)[0] for sign in (1, -1))
  difference = (above - below) / (2 * step)
  assert float(difference) == pytest.approx(float(jnp.vdot(gradient, direction)), rel=0.01)


@pytest.mark.slow
def test_learning_lowers_the_loss_in_micro_batches_and_over_devices(
  tiny_clip, data, two_device_mesh
):
  pixels, targets, text = data
  before = jax.tree.map(np.copy, tiny_clip.params)
  prompts = learn_visual_prompts(tiny_clip, text, pixel_reader(pixels), targets, SETTINGS)
  assert prompts.losses[-3:].mean() < 0.8 * prompts.losses[:3].mean()
  jax.tree.map(np.testing.assert_array_equal, before, tiny_clip.params)
  micro = dataclasses.replace(SETTINGS, images_at_once=5, steps=3)
  accumulated = learn_visual_prompts(tiny_clip, text, pixel_reader(pixels), targets, micro)
  np.testing.assert_allclose(accumulated.losses[:2], prompts.losses[:2], rtol=1e-4)
  split = learn_visual_prompts(
    tiny_clip, text, pixel_reader(pixels), targets, micro, two_device_mesh
  )
  np.testing.assert_allclose(split.losses[:2], prompts.losses[:2], rtol=1e-4)


def test_prompts_are_saved_to_a_file_and_score_the_same(tiny_clip, data, tmp_path, two_device_mesh):
  pixels, _, text = data
  prompts = VisualPrompts(first_prompts(tiny_clip, SETTINGS), tiny_clip.fingerprint)
  save_visual_prompts(tmp_path / "prompts.safetensors", prompts)
  loaded = load_visual_prompts(tmp_path / "prompts.safetensors")
  scores = [
    prompted_scores(tiny_clip, text, p, pixel_reader(pixels), 24, images_at_once=count)
    for p, count in ((prompts, 24), (loaded, 24), (loaded, 10))
  ]
  np.testing.assert_array_equal(scores[0], scores[1])
  np.testing.assert_allclose(scores[0], scores[2], atol=1e-5)
  split = prompted_scores(
    tiny_clip, text, loaded, pixel_reader(pixels), 24, two_device_mesh, images_at_once=5
  )
  np.testing.assert_allclose(scores[0], split, atol=1e-5)
  np.testing.assert_allclose(scores[0].sum(axis=1), 1, atol=1e-5)


def test_bad_input(tiny_clip, data):
  pixels, targets, text = data
  with pytest.raises(UsageError, match="unknown depth of visual prompts 'middle'"):
    first_prompts(tiny_clip, dataclasses.replace(SETTINGS, depth="middle"))
  with pytest.raises(UsageError, match="do not fit 2 text prototypes"):
    learn_visual_prompts(tiny_clip, text[:2], pixel_reader(pixels), targets, SETTINGS)


def test_shallow_tokens_flow_on_and_deep_ones_are_replaced(tiny_clip, data):
  """In the shallow form what comes out of the first layer goes into the second."""
  tokens = np.random.default_rng(0).normal(size=(1, 3, 32)).astype(np.float32)
  features = [
    clip_towers.image_features(tiny_clip.module, tiny_clip.params, data[0], jnp.asarray(each))
    for each in (tokens, np.concatenate([tokens, tokens]), np.concatenate([tokens, -tokens]))
  ]
  shallow, same, other = map(np.asarray, features)
  assert np.abs(shallow - same).max() > 1e-3
  assert np.abs(same - other).max() > 1e-3


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_is_the_weighted_cross_entropy(tiny_clip, data, multi_label):
  pixels, targets, text = data
  tokens = jnp.asarray(first_prompts(tiny_clip, SETTINGS))
  frozen = frozen_tower(tiny_clip, text, data_mesh(jax.devices()[:1]))
  weights = np.where(np.arange(24) < 20, 0.25 + np.arange(24) % 2, 0).astype(np.float32)
  features = clip_towers.image_features(tiny_clip.module, tiny_clip.params, pixels, tokens)
  logits = float(frozen.logit_scale) * np.asarray(features, np.float64) @ text.T
  losses = np.log(np.exp(logits).sum(1)) - (logits * targets).sum(1)
  if multi_label:
    logits -= logits.mean(axis=1, keepdims=True)
    losses = (np.log1p(np.exp(logits)) - targets * logits).mean(axis=1)
  found = vpt_loss(
    tiny_clip.module, Variables(tokens), frozen, pixels, targets, weights, multi_label
  )
  assert float(found) == pytest.approx((weights * losses).sum(), rel=1e-3)


def test_micro_batches_have_the_requested_size(data, mesh):
  """Two images on each of eight devices: 24 images are two micro-batches of 16, the last one
  padded."""
  weights = np.ones(24, np.float32)
  batches = micro_batches(data[0], data[1], weights, 2, mesh)
  assert batches.pixels.shape == (2, 16, 32, 32, 3)
  assert np.asarray(batches.weights).sum() == pytest.approx(1)
  assert np.count_nonzero(batches.weights) == 24
  assert micro_batches(data[0], data[1], weights, 100, mesh).pixels.shape[:2] == (1, 24)


def test_the_defaults_equal_those_of_the_protocol():
  assert VptSettings() == VptSettings("deep", 8, 1000, 32, 32, 0.002, 50, 1e-4)


def test_the_papers_head_is_trained_with_the_prompts_and_saved(tiny_clip, data, tmp_path):
  """Ten epochs of one batch are warm-up; the head starts at random and knows nothing of the
  texts."""
  pixels, targets, text = data
  settings = dataclasses.replace(SETTINGS, paper=True, batch_size=24, learning_rate=0.5)
  prompts = learn_visual_prompts(tiny_clip, text, pixel_reader(pixels), targets, settings)
  assert len(prompts.losses) == 100 and prompts.losses[-1] < 0.8 * prompts.losses[0]
  assert prompts.head.weights.shape == text.shape
  scores = prompted_scores(tiny_clip, text, prompts, pixel_reader(pixels), 24)
  assert np.mean(scores.argmax(1) == targets.argmax(1)) > 0.6
  save_visual_prompts(tmp_path / "p.safetensors", prompts)
  loaded = load_visual_prompts(tmp_path / "p.safetensors")
  elsewhere = prompted_scores(tiny_clip, -text, loaded, pixel_reader(pixels), 24)
  np.testing.assert_array_equal(scores, elsewhere)


def test_the_search_selects_the_rate_by_held_out_accuracy(tiny_clip, data, monkeypatch):
  pixels, targets, text = data
  monkeypatch.setattr(vpt_search, "VPT_RATES", (1e-8, 1.0))
  monkeypatch.setattr(vpt_search, "VPT_DECAYS", (0.0,))
  settings = dataclasses.replace(SETTINGS, search=True, steps=15)
  found = learn_visual_prompts(tiny_clip, text, pixel_reader(pixels), targets, settings)
  assert (found.learning_rate, found.weight_decay) == (1.0 * 12 / 256, 0.0)


def test_a_fifth_of_each_class_is_held_out():
  shares = np.eye(3)[np.repeat(np.arange(3), [10, 5, 4])]
  held = vpt_search.held_out(shares, 0)
  assert np.bincount(shares[held].argmax(1), minlength=3).tolist() == [2, 1, 0]
  assert len(vpt_search.held_out(np.eye(4), 0)) == 1
  with pytest.raises(UsageError, match="at least 2 images"):
    vpt_search.held_out(np.eye(1), 0)


VISION = SimpleNamespace(patch_size=4, encoder=SimpleNamespace(width=48, layers=3))
SHAPES = SimpleNamespace(module=SimpleNamespace(vision=VISION))


@pytest.mark.unchecked
@pytest.mark.parametrize(("depth", "layers"), [("shallow", 1), ("deep", 3)])
def test_the_first_prompts_are_uniform_within_the_papers_bound(depth, layers):
  """sqrt(6 / (3 x 4^2 + 48)) = 1/4."""
  found = first_prompts(SHAPES, VptSettings(depth=depth, prompt_length=20), 1)
  assert found.shape == (layers, 20, 48)
  assert 0.24 < np.abs(found).max() <= 0.25
  assert found.std() == pytest.approx(0.25 / 3**0.5, rel=0.05) and abs(found.mean()) < 0.02
  same = first_prompts(SHAPES, VptSettings(depth=depth, prompt_length=20), 0)
  np.testing.assert_array_equal(
    same, first_prompts(SHAPES, VptSettings(depth=depth, prompt_length=20))
  )


def test_the_first_head_is_that_of_pytorchs_linear_layers():
  head = first_head(40, 25, 1)
  assert head.weights.shape == (40, 25) and head.bias.shape == (40,)
  for numbers in (head.weights, head.bias):
    assert 0.15 < np.abs(numbers).max() <= 0.2
    assert numbers.std() == pytest.approx(0.2 / 3**0.5, rel=0.2)
  np.testing.assert_array_equal(first_head(2, 3).weights, first_head(2, 3, 0).weights)


@pytest.mark.parametrize("paper", [False, True])
def test_prompts_are_trained_by_adamw_or_the_papers_sgd(paper, one_device_mesh):
  settings = VptSettings(steps=4, warmup=1, learning_rate=0.5, weight_decay=0.25, paper=paper)
  optimizer = visual_prompts._program(None, settings, False, one_device_mesh).optimizer
  weights, gradient = np.array([2.0], np.float32), np.array([1.0], np.float32)
  state, found = optimizer.init(weights), []
  for _ in range(3):
    update, state = optimizer.update(gradient, state, weights)
    found.append(float(update[0]))
  directions = np.array([1.5, 1.5 * 1.9, 1.5 * 2.71]) if paper else np.full(3, 1 + 0.25 * 2)
  np.testing.assert_allclose(found, -np.array([0, 0.5, 0.375]) * directions, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
  ("images", "at_once", "shape", "padding"),
  [(5, 2, (3, 2), 1), (5, 5, (1, 5), 0), (5, 9, (1, 5), 0), (1, 1, (1, 1), 0), (4, 3, (2, 3), 2)],
)
def test_micro_batches_are_filled_with_images_without_weight(
  images, at_once, shape, padding, one_device_mesh
):
  pixels, targets = np.ones((images, 2, 2, 3), np.float32), np.ones((images, 4), np.float32)
  weights = np.arange(1, images + 1, dtype=np.float32)
  found = micro_batches(pixels, targets, weights, at_once, one_device_mesh)
  assert found.pixels.shape == (*shape, 2, 2, 3) and found.targets.shape == (*shape, 4)
  expected = np.append(weights / images, np.zeros(padding))
  np.testing.assert_allclose(np.ravel(found.weights), expected, rtol=1e-6)
