"""Training of the zoo: separate data, true captions, a resumable loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.benchmark.captions import BLURRY, HIDDEN, NOISY, all_phrases, caption
from genbench_jax.benchmark.worlds import COLORS, SHAPE_NAMES, UNSEEN_SHAPE, world_example
from genbench_jax.zoo import data as zoo_data
from genbench_jax.zoo.tokenizer import MAX_TOKENS, train_tokenizer
from genbench_jax.zoo.training import fit


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  from genbench_jax.models.tokenizer import load_tokenizer

  folder = tmp_path_factory.mktemp("tokenizer")
  train_tokenizer(all_phrases(), folder)
  return load_tokenizer(folder)


@pytest.mark.parametrize("world", ["digits", "digits_hard", "shapes", "signs"])
def test_captions_are_true(world):
  rng = np.random.default_rng(0)
  for index in range(150):
    example = world_example(world, "zoo", index)
    text = caption(world, example, rng)
    named_colors = set(COLORS) & set(text.replace(",", " ").split())
    assert named_colors <= {example.color}
    if world == "shapes":
      assert SHAPE_NAMES[example.label] in text
      assert example.noisy or not any(word in text for word in NOISY)
      assert example.blurry or not any(word in text for word in BLURRY)
      assert example.hidden or not any(word in text for word in HIDDEN)


def test_caption_words_are_single_tokens_and_any_text_can_be_encoded(tokenizer):
  assert tokenizer.tokenize("a photo of a pentagon") == [
    "a</w>",
    "photo</w>",
    "of</w>",
    "a</w>",
    "pentagon</w>",
  ]
  ids = tokenizer("xylophone ß")["input_ids"]
  assert tokenizer.decode(ids, skip_special_tokens=True) == "xylophone ß"
  assert tokenizer.unk_token_id not in ids[1:-1]
  restrictive = "a colored digit three, partly hidden.,highly detailed,hires,8k,sharp focus"
  assert len(tokenizer(restrictive)["input_ids"]) <= MAX_TOKENS


def test_the_diffusion_model_never_saw_the_unseen_shape_nor_either_model_signs(monkeypatch):
  monkeypatch.setattr(zoo_data, "world_size", lambda world, split: 16)
  monkeypatch.setattr(zoo_data, "VARIANTS", dict.fromkeys(zoo_data.VARIANTS, 1))
  unseen = SHAPE_NAMES.index(UNSEEN_SHAPE)
  labels = lambda data: [e.label for world, e in data.examples if world == "shapes"]  # noqa: E731
  everything = zoo_data.training_set(with_unseen_shape=True)
  assert unseen in labels(everything)
  assert {world for world, _ in everything.examples} == {"digits", "digits_hard", "shapes"}
  data = zoo_data.training_set(with_unseen_shape=False)
  assert unseen not in labels(data)
  assert len(labels(data)) == 14
  assert data.weights.sum() == pytest.approx(1)


def test_resumed_training_gives_the_same_weights(tmp_path):
  def loss(params, batch, key):
    return jnp.square(params["w"] @ batch["x"] - 1).sum()

  def batch_of(step):
    return {"x": np.random.default_rng(step).normal(size=3).astype(np.float32)}

  def stopped_at_5(step):
    if step == 5:
      raise KeyboardInterrupt
    return batch_of(step)

  settings = {"steps": 8, "learning_rate": 0.01, "save_every": 2}
  start = {"w": jnp.zeros((2, 3))}
  whole = fit(loss, start, batch_of, folder=tmp_path / "whole", **settings)
  with pytest.raises(KeyboardInterrupt):
    fit(loss, start, stopped_at_5, folder=tmp_path / "stopped", **settings)
  resumed = fit(loss, start, batch_of, folder=tmp_path / "stopped", **settings)
  np.testing.assert_array_equal(np.asarray(whole["w"]), np.asarray(resumed["w"]))


@pytest.mark.slow
def test_the_clip_is_trained_in_its_shipped_layout(monkeypatch, tokenizer, tmp_path):
  from genbench_jax.models.checkpoints import ZOO
  from genbench_jax.models.clip import load_clip
  from genbench_jax.models.weights import torch_shapes
  from genbench_jax.zoo.train_clip import train_clip

  monkeypatch.setattr(zoo_data, "world_size", lambda world, split: 16)
  params = train_clip(zoo_data.training_set(True), tokenizer, tmp_path / "clip", steps=2)
  trained, shipped = torch_shapes(params), torch_shapes(load_clip(str(ZOO / "clip")).params)
  table = "text_model.embeddings.token_embedding.weight"  # one row per token
  assert trained.keys() == shipped.keys()
  assert {name: trained[name] for name in trained if name != table} == {
    name: shipped[name] for name in shipped if name != table
  }
