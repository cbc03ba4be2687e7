"""CoOp: the context has its position, only it is trained, and it can be saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.embedding.embedder import text_features, unit_norm
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import clip_towers
from genbench_jax.recognizers import prompt_tuning
from genbench_jax.recognizers.prompt_layout import class_blocks, class_prompts, prompt_layout
from genbench_jax.recognizers.prompt_tuning import (
  Batch,
  Context,
  CoopSettings,
  context_text_features,
  coop_loss,
  first_context,
  frozen_tower,
  learn_context,
  load_context,
  save_context,
)
from genbench_jax.runtime.mesh import data_mesh

NAMES = ("red circle", "blue ring", "cat", "a very old photo of rain", "dog")
SETTINGS = CoopSettings(context_length=4, steps=12, batch_size=8, learning_rate=0.05, warmup=2)


@pytest.fixture(scope="module")
def images(tiny_clip):
  """Return features near a different wording, so that there is something to learn."""
  generator = np.random.default_rng(0)
  labels = np.arange(40) % len(NAMES)
  centers = unit_norm(text_features(tiny_clip, [f"an ink print: {name}" for name in NAMES]))
  features = centers[labels] + 0.05 * generator.normal(size=(40, centers.shape[1]))
  return features.astype(np.float32), np.eye(len(NAMES), dtype=np.float32)[labels]


@pytest.mark.parametrize(
  ("position", "expected"),
  [("end", [1, 0, 0, 0, 7, 8, 5, 2, 2, 2]), ("middle", [1, 0, 7, 8, 0, 0, 5, 2, 2, 2])],
)
def test_the_layout(position, expected):
  layout = prompt_layout(
    [[7, 8, 5], [9, 9, 9, 9, 9, 9, 5]], 3, position, start=1, end=2, max_tokens=10
  )
  assert layout.tokens[0].tolist() == expected
  assert layout.ends.tolist() == [7, 9]
  assert sorted(layout.slots[0][layout.slots[0] >= 0]) == [0, 1, 2]
  assert layout.tokens[1, layout.ends[1] - 1] == 5  # a long name keeps its full stop


def test_a_context_that_is_too_long_is_rejected():
  with pytest.raises(UsageError, match="does not fit into 10 tokens"):
    prompt_layout([[7, 5]], 8, "end", 1, 2, 10)
  with pytest.raises(UsageError, match="got 'front'"):
    prompt_layout([[7, 5]], 2, "front", 1, 2, 10)


def test_the_template_as_context_is_the_stock_text_tower(tiny_clip):
  settings = CoopSettings(template="a photo of a")
  context = Context(first_context(tiny_clip, settings, 5), "end", tiny_clip.fingerprint)
  ours = context_text_features(tiny_clip, NAMES, context)
  stock = unit_norm(text_features(tiny_clip, [f"a photo of a {name}." for name in NAMES]))
  np.testing.assert_allclose(ours, stock, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [False, True])
def test_gradients_agree_with_finite_differences(tiny_clip, images, per_class):
  settings = dataclasses.replace(SETTINGS, per_class=per_class, position="middle")
  context = jnp.asarray(10 * first_context(tiny_clip, settings, len(NAMES)))
  mesh = data_mesh(jax.devices()[:1])
  blocks = class_blocks(class_prompts(tiny_clip, NAMES, 4, "middle"), 2, mesh)
  frozen = frozen_tower(tiny_clip, blocks, mesh)
  batch = Batch(*map(jnp.asarray, images), jnp.ones(len(images[0])))
  # One program for the loss and its gradient.
  both = jax.jit(jax.value_and_grad(lambda c: coop_loss(tiny_clip.module, c, frozen, batch)))
  gradient = both(context)[1]
  direction = gradient / jnp.linalg.norm(gradient)
  step = 2e-3
  above, below = (both(context + sign * step * direction)[0] for sign in (1, -1))
  difference = (above - below) / (2 * step)
  assert float(difference) == pytest.approx(float(jnp.vdot(gradient, direction)), rel=0.01)


@pytest.mark.slow
def test_learning_lowers_the_loss_and_touches_the_context_only(tiny_clip, images, two_device_mesh):
  before = jax.tree.map(np.copy, tiny_clip.params)
  context = learn_context(tiny_clip, NAMES, *images, SETTINGS)
  assert context.losses[-3:].mean() < 0.8 * context.losses[:3].mean()
  jax.tree.map(np.testing.assert_array_equal, before, tiny_clip.params)
  split = learn_context(tiny_clip, NAMES, *images, SETTINGS, mesh=two_device_mesh)
  np.testing.assert_allclose(split.losses[0], context.losses[0], rtol=1e-4)
  np.testing.assert_allclose(split.losses, context.losses, rtol=0.05)


def test_weights_and_order_of_a_mixture_reach_the_context(tiny_clip, images):
  """All in the program of the test above: the same seed starts the same context."""
  first = np.arange(len(images[0])) < 20
  plain, heavy, ordered = (
    learn_context(tiny_clip, NAMES, *images, SETTINGS, **mixture)
    for mixture in ({}, {"weights": np.where(first, 3.0, 1.0)}, {"later": ~first})
  )
  # The first step sees the same images with other weights, or others.
  assert abs(heavy.losses[0] - plain.losses[0]) > 1e-4
  assert abs(ordered.losses[0] - plain.losses[0]) > 1e-4
  alone = learn_context(tiny_clip, NAMES, *(each[first] for each in images), SETTINGS)
  np.testing.assert_allclose(ordered.losses[0], alone.losses[0], rtol=1e-5)


def test_a_context_is_saved_to_a_file(tiny_clip, tmp_path, two_device_mesh):
  vectors = first_context(tiny_clip, SETTINGS, len(NAMES))
  context = Context(vectors, "middle", tiny_clip.fingerprint)
  save_context(tmp_path / "context.safetensors", context)
  loaded = load_context(tmp_path / "context.safetensors")
  np.testing.assert_array_equal(
    context_text_features(tiny_clip, NAMES, loaded),
    context_text_features(tiny_clip, NAMES, context),
  )
  np.testing.assert_allclose(
    context_text_features(tiny_clip, NAMES, loaded, two_device_mesh),
    context_text_features(tiny_clip, NAMES, context),
    atol=1e-5,
  )
  with pytest.raises(UsageError, match="learned for CLIP other"):
    context_text_features(tiny_clip, NAMES, dataclasses.replace(loaded, fingerprint="other"))
  (tmp_path / "broken").write_bytes(b"no safetensors")
  with pytest.raises(RunError, match="can't be read"):
    load_context(tmp_path / "broken")


def test_the_first_context_is_noise_of_a_fiftieth(tiny_clip):
  context = first_context(tiny_clip, CoopSettings(context_length=200), 3)
  assert context.std() == pytest.approx(0.02, rel=0.05)
  assert abs(context.mean()) < 0.002


def test_the_defaults_equal_those_of_the_protocol():
  assert CoopSettings() == CoopSettings(16, False, "end", "", 1000, 32, 0.002, 50, 5e-4, 32)


def test_the_papers_length_depends_on_the_shots():
  """CoOp: 50, 100 and 200 epochs of batches of 32; VPT: 100 epochs, a tenth of them warm-up."""
  from genbench_jax.recognizers import settings

  own = settings.CoopSettings(paper=True)
  found = {n: own.for_images(n, 10) for n in (10, 40, 160)}
  assert {n: (one.steps, one.warmup) for n, one in found.items()} == {
    10: (50, 1), 40: (200, 2), 160: (1000, 5)
  }  # fmt: skip
  schedule = prompt_tuning._schedule(found[160])
  assert float(schedule(0)) == pytest.approx(1e-5) and float(schedule(5)) == pytest.approx(0.002)
  vpt = settings.VptSettings(paper=True).for_images(160)
  assert (vpt.steps, vpt.warmup) == (500, 50)


def test_targets_fit_images_and_class_names(tiny_clip, images):
  features, targets = images
  for wrong in ((features[1:], targets, NAMES), (features, targets, NAMES[1:])):
    with pytest.raises(UsageError, match="do not fit"):
      learn_context(tiny_clip, wrong[2], wrong[0], wrong[1], SETTINGS)


def test_a_context_per_class_is_for_as_many_classes(tiny_clip):
  vectors = first_context(tiny_clip, dataclasses.replace(SETTINGS, per_class=True), len(NAMES))
  assert vectors.shape[:2] == (5, 4)
  np.testing.assert_array_equal(vectors[0], vectors[4])
  np.testing.assert_array_equal(vectors[0], first_context(tiny_clip, SETTINGS, 9))
  context = Context(vectors, "end", tiny_clip.fingerprint)
  with pytest.raises(UsageError, match="the context has 5 classes, not 2"):
    context_text_features(tiny_clip, NAMES[:2], context)


@pytest.mark.parametrize(("paper", "rates"), [(False, {0: 0, 1: 1, 2: 2, 6: 1, 10: 0}), (True, {0: 5e-6, 1: 5e-6, 2: 1, 6: 0.5, 10: 0})])  # fmt: skip
def test_rates_warm_up_linearly_or_at_the_papers_constant(paper, rates):
  settings = CoopSettings(steps=10, warmup=2, learning_rate=2.0, paper=paper)
  schedule = prompt_tuning._schedule(settings)
  scale = 2 if paper else 1
  found = {step: float(schedule(step)) for step in rates}
  assert found == pytest.approx({step: scale * rate for step, rate in rates.items()}, abs=1e-6)


def test_the_context_is_trained_by_sgd_with_momentum_and_l2(one_device_mesh):
  settings = CoopSettings(steps=4, warmup=1, learning_rate=0.5, weight_decay=0.25)
  optimizer = prompt_tuning._program(None, settings, False, one_device_mesh).optimizer
  weights, gradient = np.array([2.0], np.float32), np.array([1.0], np.float32)
  state = optimizer.init(weights)
  found = []
  for _ in range(3):
    update, state = optimizer.update(gradient, state, weights)
    found.append(float(update[0]))
  # The gradient is 1 + .25 x 2 each time; rates are 0, .5 and .375.
  velocity = np.array([1.5, 1.5 * 1.9, 1.5 * 2.71])
  np.testing.assert_allclose(found, -np.array([0, 0.5, 0.375]) * velocity, rtol=1e-5, atol=1e-9)


def test_embeddings_have_the_context_in_its_places(tiny_clip):
  width = tiny_clip.module.text.encoder.width
  tokens = np.array([[1, 0, 0, 5], [1, 7, 0, 5]], np.int32)
  slots = np.array([[-1, 0, 1, -1], [-1, -1, 1, -1]], np.int32)
  words = np.asarray(clip_towers.token_embeddings(tiny_clip.params, jnp.asarray(tokens)))
  shared = np.random.default_rng(0).normal(size=(2, width)).astype(np.float32)
  each = np.stack([shared, 3 * shared])
  for context, own in ((shared, (shared, shared)), (each, each)):
    found = np.asarray(prompt_tuning.prompt_embeddings(tiny_clip.params, context, tokens, slots))
    expected = words.copy()
    expected[0, 1], expected[0, 2], expected[1, 2] = own[0][0], own[0][1], own[1][1]
    np.testing.assert_array_equal(found, expected)
