"""Recognizers that train networks on images: learning, exact limits, and invalid arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.errors import ModelError, UsageError
from genbench_jax.models.clip import load_clip
from genbench_jax.recognizers import settings as s
from genbench_jax.recognizers.fine_tune import trained_leaves, wise_ft, without_weights
from genbench_jax.recognizers.lora import PUBLISHED, AdaptedLogits, method as lora_method

QUICK = s.Recipe(
  learning_rate=0.05, min_steps=30, epochs=0, batch_size=16, min_crop=0.6, flip=False,
  search_rates=(1.0,), search_epochs=(1.0,),
)  # fmt: skip
ADAM = dataclasses.replace(QUICK, optimizer="adamw", learning_rate=1e-3, min_steps=12)
SCRATCH = s.FromScratchSettings(network="resnet8", image_size=16, stem="small_half", recipe=QUICK)


def world(count=30, side=32, seed=0):
  """Return images of three classes: a bright square in one of three corners."""
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 90, (count, side, side, 3))
  labels = np.arange(count) % 3
  half = side // 2
  for image, label in zip(images, labels, strict=True):
    top, left = (0, 0, half)[label], (0, half, 0)[label]
    image[top : top + half, left : left + half] += 120
  return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def clip():
  return load_clip("zoo/clip")


@pytest.mark.slow
def test_a_network_learns_from_scratch():
  result = gb.from_scratch(*world(), *world(24, seed=1), settings=SCRATCH)
  assert result["score"] > 0.9 and result["scores"].shape == (24, 3)
  assert result["n_external"] == 30 and result["missing_classes"] == []
  assert (result["chosen_by"], result["steps"]) == ("given", 30)


def test_strict_selects_on_held_out_external_images():
  """A rate that learns nothing loses to one that learns; the test images have no say."""
  recipe = dataclasses.replace(QUICK, min_steps=20, search_rates=(1e-6, 1.0))
  chosen = dataclasses.replace(SCRATCH, recipe=recipe)
  images, labels = world()
  test = world(12, seed=1)
  result = gb.from_scratch(images, labels, *test, settings=chosen)
  assert result["chosen_by"] == "held-out external images"
  assert result["learning_rate"] == pytest.approx(0.05) and len(result["held_out_losses"]) == 2
  wrong = gb.from_scratch(images, labels, test[0], (test[1] + 1) % 3, settings=chosen)
  assert wrong["learning_rate"] == result["learning_rate"]
  np.testing.assert_array_equal(wrong["scores"], result["scores"])
  one_shot = gb.from_scratch(images[:3], labels[:3], *test, settings=chosen)
  assert one_shot["chosen_by"] == "given"


def test_a_diverging_training_is_reported():
  recipe = dataclasses.replace(QUICK, learning_rate=1e30)
  with pytest.raises(ModelError, match="from_scratch"):
    gb.from_scratch(*world(), *world(6), settings=dataclasses.replace(SCRATCH, recipe=recipe))


def test_several_labels(clip):
  images, labels = world()
  many = np.eye(3, dtype=bool)[labels] | np.eye(3, dtype=bool)[(labels + 1) % 3]
  result = gb.from_scratch(images, many, images, many, metric="map_11_point", settings=SCRATCH)
  assert result["score"] > 0.8


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"images": np.zeros((30, 8, 8), np.uint8)}, "uint8"),
    ({"images": np.zeros((30, 8, 8, 3), np.float32)}, "uint8"),
    ({"labels": np.arange(29)}, "labels"),
    ({"labels": np.full(30, -1)}, "lie in 0..2"),
    ({"protocol": "published"}, "strict"),
    ({"metric": "f1"}, "accuracy"),
    ({"settings": s.FromScratchSettings(network="alexnet")}, "resnet18"),
  ],
)
def test_inconsistent_arguments_are_rejected(change, words):
  images, labels = world()
  given = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
  with pytest.raises(UsageError, match=words):
    gb.from_scratch(**(given | change))


def test_settings_accept_the_names_of_papers():
  assert PUBLISHED.keys() == set(s.LORA_PAPERS)


# ---- fine-tuning and low rank -----------------------------------------------------------------


def shapes_world(clip, count, seed):
  images, labels = world(count, seed=seed)
  text = np.random.default_rng(0).normal(size=(3, clip.width)).astype(np.float32)
  return images, labels, text


@pytest.mark.slow
def test_fine_tuning_leaves_the_zero_shot_model_and_beats_it(clip):
  """WiSE-FT's weight 0 returns the scores of the zero-shot model itself."""
  images, labels, text = shapes_world(clip, 30, 0)
  test_images, test_labels = world(24, seed=1)
  tuned = s.FineTuneSettings(recipe=ADAM, layer_decay=0.9, blocks=2)
  run = lambda settings: gb.fine_tune(  # noqa: E731
    images, labels, test_images, test_labels, text, clip=clip, settings=settings
  )
  result, start = run(tuned), run(dataclasses.replace(tuned, wise_ft=0.0))
  assert result["score"] > max(0.6, start["score"])
  features = gb.embed_images(test_images, checkpoint="zoo/clip")
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  unit = text / np.linalg.norm(text, axis=1, keepdims=True)
  logits = np.exp(float(clip.params["logit_scale"])) * features @ unit.T
  wanted = np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))
  np.testing.assert_allclose(start["scores"], wanted, atol=2e-4)


def test_programs_are_cached_by_an_encoder_without_layers(clip):
  light = without_weights(clip)
  assert light is without_weights(clip) and light is not clip
  assert set(light.params) == {"logit_scale"} and light.logit_scale == clip.logit_scale
  assert "vision_model" in clip.params


def test_both_ends_of_wise_ft_are_exact():
  generator = np.random.default_rng(0)
  one, other = ({"a": generator.normal(size=(4, 3)).astype(np.float32)} for _ in range(2))
  np.testing.assert_array_equal(wise_ft(one, other, 0.0)["a"], one["a"])
  np.testing.assert_array_equal(wise_ft(one, other, 1.0)["a"], other["a"])


def test_only_the_last_blocks_are_trained(clip):
  last = trained_leaves(clip.params, 1)
  assert any(".layers.2." in name for name in last) and not any(
    ".layers.1." in name for name in last
  )
  assert any("post_layernorm" in name for name in last)
  assert len(trained_leaves(clip.params, 0)) > len(last)
  with pytest.raises(UsageError, match="blocks"):
    trained_leaves(clip.params, 9)


@pytest.mark.slow
def test_merged_updates_equal_separate_ones(clip):
  """Merged low-rank updates give the same logits as separate ones without dropout, and only then."""
  method = lora_method(s.LoraSettings(), clip, ("circle", "square", "star"), "a {}", 4, 3, False)
  model = method.start(0)
  generator = np.random.default_rng(1)
  moved = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) * 0.05, model.variables)  # fmt: skip
  pixels = jnp.asarray(generator.normal(size=(5, clip.image_size, clip.image_size, 3)), jnp.float32)
  wet, _ = method.problem.logits(moved, {}, model.frozen, pixels, jax.random.key(0))
  logits = dataclasses.replace(method.problem.logits, dropout=0.0)
  assert isinstance(logits, AdaptedLogits)
  beside, _ = logits(moved, {}, model.frozen, pixels, jax.random.key(0))
  merged, _ = logits(moved, {}, model.frozen, pixels, None)
  start, _ = logits(model.variables, {}, model.frozen, pixels, None)
  assert np.abs(beside - start).max() > 0.1 and np.abs(wet - beside).max() > 1e-3
  np.testing.assert_allclose(beside, merged, atol=2e-4)
  log_odds, _ = dataclasses.replace(logits, multi_label=True)(moved, {}, model.frozen, pixels, None)
  np.testing.assert_allclose(log_odds, merged - merged.mean(axis=1, keepdims=True), atol=2e-4)


@pytest.mark.slow
def test_low_rank_learns_and_repeats_itself(clip):
  images, labels, _ = shapes_world(clip, 30, 0)
  settings = s.LoraSettings(recipe=dataclasses.replace(ADAM, learning_rate=2e-2, min_steps=25))
  names = ("circle", "square", "star")
  result = gb.lora(images, labels, *world(24, seed=1), names, clip=clip, settings=settings)
  assert result["score"] > 0.6 and result["train_loss"] < 1.0
  again = gb.lora(images, labels, *world(24, seed=1), names, clip=clip, settings=settings)
  np.testing.assert_array_equal(result["scores"], again["scores"])


def test_unknown_matrices_are_rejected(clip):
  images, labels, _ = shapes_world(clip, 6, 0)
  with pytest.raises(UsageError, match="matrices"):
    gb.lora(images, labels, images, labels, ("a", "b", "c"), clip=clip, settings=s.LoraSettings(matrices="x"))  # fmt: skip
  with pytest.raises(UsageError, match="class names"):
    lora_method(s.LoraSettings(), clip, ("a",), "{}", 1, 3, False)


# ---- the cache --------------------------------------------------------------------------------


def blobs(count, seed):
  generator = np.random.default_rng(seed)
  labels = np.arange(count) % 4
  return (3 * np.eye(16)[labels] + generator.normal(size=(count, 16))).astype(np.float32), labels


def test_the_cache_is_the_published_formula():
  features, labels = blobs(12, 0)
  test, test_labels = blobs(20, 1)
  text = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
  given = s.TipAdapterSettings(alpha=2.0, beta=3.0)
  result = gb.tip_adapter(features, labels, test, test_labels, text, "reference", settings=given, logit_scale=10.0)  # fmt: skip
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
  affinity = np.exp(-3.0 * (1 - unit(test) @ unit(features).T))
  logits = 10 * unit(test) @ unit(text).T + 2.0 * affinity @ np.eye(4)[labels]
  wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(result["scores"], wanted, atol=1e-5)


def test_the_cache_of_images_with_several_labels():
  """Sigmoids of the centered logits; training lowers the binary cross-entropy."""
  features, labels = blobs(24, 0)
  test, test_labels = blobs(20, 1)
  many = np.eye(4, dtype=bool)[labels] | np.eye(4, dtype=bool)[(labels + 1) % 4]
  wanted = np.eye(4, dtype=bool)[test_labels] | np.eye(4, dtype=bool)[(test_labels + 1) % 4]
  text = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
  given = s.TipAdapterSettings(alpha=4.0, beta=3.0, learning_rate=0.05)
  run = lambda settings: gb.tip_adapter(  # noqa: E731
    features, many, test, wanted, text, "reference", metric="map_11_point", settings=settings,
    logit_scale=2.0,
  )  # fmt: skip
  free, trained = run(given), run(dataclasses.replace(given, train=True))
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
  affinity = np.exp(-3.0 * (1 - unit(test) @ unit(features).T))
  logits = 2 * unit(test) @ unit(text).T + 4.0 * affinity @ (many / 2)
  logits -= logits.mean(axis=1, keepdims=True)
  np.testing.assert_allclose(free["scores"], 1 / (1 + np.exp(-logits)), atol=1e-5)
  losses = [
    -np.log(np.where(wanted, found["scores"], 1 - found["scores"])).mean()
    for found in (free, trained)
  ]
  assert losses[1] < losses[0] and trained["score"] > 0.8


def test_the_cache_is_tuned_and_trained_on_external_images():
  features, labels = blobs(48, 0)
  test, test_labels = blobs(40, 1)
  text = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
  free = gb.tip_adapter(features, labels, test, test_labels, text, logit_scale=5.0)
  assert len(free["held_out_losses"]) == 25 and free["alpha"] >= 1
  other = gb.tip_adapter(features, labels, test, (test_labels + 1) % 4, text, logit_scale=5.0)
  assert (other["alpha"], other["beta"]) == (free["alpha"], free["beta"])
  trained = gb.tip_adapter(features, labels, test, test_labels, text, settings=s.TipAdapterSettings(train=True), logit_scale=5.0)  # fmt: skip
  assert np.abs(trained["keys"] - free["keys"]).max() > 1e-4
  assert min(free["score"], trained["score"]) > 0.8
