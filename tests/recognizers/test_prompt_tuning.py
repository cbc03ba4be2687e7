"""CoOp: the context has its position, only it is trained, and it can be saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.embedding.embedder import text_features, unit_norm
from genbench_jax.errors import RunError, UsageError
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
  from genbench_jax.recognizers import prompt_tuning, settings

  own = settings.CoopSettings(paper=True)
  found = {n: own.for_images(n, 10) for n in (10, 40, 160)}
  assert {n: (one.steps, one.warmup) for n, one in found.items()} == {
    10: (50, 1), 40: (200, 2), 160: (1000, 5)
  }  # fmt: skip
  schedule = prompt_tuning._schedule(found[160])
  assert float(schedule(0)) == pytest.approx(1e-5) and float(schedule(5)) == pytest.approx(0.002)
  vpt = settings.VptSettings(paper=True).for_images(160)
  assert (vpt.steps, vpt.warmup) == (500, 50)
