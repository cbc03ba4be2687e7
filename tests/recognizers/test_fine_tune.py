"""Which weights of a pretrained network learn, and how fast."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.models.classifier_shapes import ResNetConfig, VitConfig
from genbench_jax.recognizers import fine_tune
from genbench_jax.recognizers.fine_tune import (
  _averaged,
  _published_blocks,
  block_rates,
  method,
  num_blocks,
  trained_leaves,
  wise_ft,
)
from genbench_jax.recognizers.problem import Model
from genbench_jax.recognizers.settings import FineTuneSettings
from genbench_jax.recognizers.train_step import _rates


def params(depth=3):
  leaf = {"weight": np.ones((2, 2), np.float32)}
  layers = {str(index): {"mlp": leaf} for index in range(depth)}
  return {
    "logit_scale": np.float32(0.0),
    "text_model": {"layer": leaf},
    "vision_model": {
      "embeddings": leaf, "pre_layrnorm": leaf, "post_layernorm": leaf,
      "encoder": {"layers": layers},
    },
    "visual_projection": leaf,
  }  # fmt: skip


def test_rates_decay_by_the_distance_from_the_head():
  found = dict(block_rates(3, 0.5))
  assert found == {
    ".layers.0.": 0.125, ".layers.1.": 0.25, ".layers.2.": 0.5,
    "vision_model.embeddings": 0.0625, "vision_model.pre_layrnorm": 0.0625,
  }  # fmt: skip
  assert set(dict(block_rates(2, 1.0)).values()) == {1.0}


def test_all_of_the_tower_learns_or_its_last_blocks():
  blocks = [f"vision_model.encoder.layers.{index}.mlp.weight" for index in range(3)]
  behind = ["vision_model.post_layernorm.weight", "visual_projection.weight"]
  front = ["vision_model.embeddings.weight", "vision_model.pre_layrnorm.weight"]
  assert set(trained_leaves(params(), 0)) == {*blocks, *behind, *front}
  assert set(trained_leaves(params(), 1)) == {blocks[2], *behind}
  assert set(trained_leaves(params(), 3)) == {*blocks, *behind}
  with pytest.raises(UsageError, match="blocks is 4, but the tower has 3"):
    trained_leaves(params(), 4)
  with pytest.raises(UsageError, match="CLIP and SigLIP"):
    trained_leaves({"backbone": {"weight": np.ones(2)}}, 0)
  assert (
    num_blocks({"vision_model.encoder.layers.10.a": 0, "vision_model.encoder.layers.1.b": 0}) == 2
  )


def test_weights_are_averaged_by_the_share_of_the_fine_tuned_ones():
  first, second = {"a": np.array([1.0, 2.0])}, {"a": np.array([5.0, 0.0])}
  np.testing.assert_allclose(wise_ft(first, second, 0.25)["a"], [2.0, 1.5])
  model = Model(second, {"mean": 3}, {"frozen": 4})
  found = _averaged(Model(first, {"mean": 7}, {}), 0.25, model)
  np.testing.assert_allclose(found.variables["a"], [2.0, 1.5])
  assert (found.stats, found.frozen) == ({"mean": 6}, {"frozen": 4})


class Encoder:
  """An encoder of two dimensions whose logit scale is 10."""

  params, logit_scale, width = params(), 10.0, 2
  input = SimpleNamespace(size=4, mean=(0.5,) * 3, std=(0.5,) * 3)


TEXT = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], np.float32)


def test_prototypes_are_those_of_the_encoder_and_classes():
  for text, said in ((TEXT[:, :1], "must be 2 wide"), (TEXT * np.nan, "NaN")):
    with pytest.raises(UsageError, match=said):
      method(FineTuneSettings(), Encoder(), text, 3, False)
  images, labels = np.zeros((3, 4, 4, 3), np.uint8), np.arange(3)
  with pytest.raises(UsageError, match="num_classes is 5, but there are 3 text prototypes"):
    fine_tune.fine_tune(images, labels, images, labels, TEXT, clip=Encoder(), num_classes=5)


@pytest.mark.unchecked
@pytest.mark.parametrize("multi_label", [False, True])
def test_the_first_head_is_the_zero_shot_classifier(multi_label):
  made = method(FineTuneSettings(layer_decay=0.5, blocks=2), Encoder(), TEXT, 3, multi_label)
  first = made.start(0)
  kernel = 10 * np.array([[0.6, 0.0, 1.0], [0.8, 1.0, 0.0]])
  if multi_label:
    kernel = kernel - kernel.mean(axis=1, keepdims=True)
  np.testing.assert_allclose(first.variables["head"]["weight"], kernel, rtol=1e-6)
  np.testing.assert_array_equal(first.variables["head"]["bias"], np.zeros(3))
  assert len(first.variables["tower"]) == 4 and first.frozen is Encoder.params
  assert made.problem.layer_rates == block_rates(3, 0.5)
  assert made.problem.multi_label == multi_label


@pytest.mark.unchecked
def test_the_reference_trains_all_weights_at_one_rate_by_the_published_recipe():
  given = FineTuneSettings(layer_decay=0.5, blocks=2, wise_ft=0.5)
  made = method(given, Encoder(), TEXT, 3, False, "reference")
  assert made.recipe == fine_tune.PUBLISHED
  assert len(made.start(0).variables["tower"]) == 7
  assert {rate for _, rate in made.problem.layer_rates} == {1.0}
  moved = made.finish(Model({"tower": {}, "head": {}}, {}, {})._replace(
    variables={
      part: {name: leaf + 2 for name, leaf in leaves.items()}
      for part, leaves in made.start(0).variables.items()
    }
  ))  # fmt: skip
  np.testing.assert_allclose(moved.variables["head"]["bias"], np.ones(3))


@pytest.mark.parametrize("share", [-0.01, 1.01])
def test_shares_outside_0_and_1_are_rejected(share):
  with pytest.raises(UsageError, match="wise_ft is"):
    method(FineTuneSettings(wise_ft=share), None, None, 3, False)
  for edge in (0.0, 1.0):  # these are not
    with pytest.raises(UsageError, match="needs an encoder and text prototypes"):
      method(FineTuneSettings(wise_ft=edge), None, TEXT, 3, False)


def test_the_blocks_of_published_networks_are_named_in_order():
  assert _published_blocks(ResNetConfig("basic", (2, 1))) == ["layer1.0.", "layer1.1.", "layer2.0."]
  assert _published_blocks(VitConfig(patch_size=2, width=8, depth=2, heads=1)) == [
    "blocks.0.",
    "blocks.1.",
  ]


@pytest.mark.unchecked
@pytest.mark.parametrize(("blocks", "frozen"), [(0, 0), (1, 2), (3, 0)])
def test_the_first_blocks_of_published_networks_are_frozen(monkeypatch, blocks, frozen):
  """A stem without any frozen block learns as well, at the lowest rate."""
  config = ResNetConfig("basic", (2, 1))
  classifier = SimpleNamespace(network=SimpleNamespace(config=config))
  monkeypatch.setattr(fine_tune, "make_classifier", lambda *given: classifier)
  asked = []
  monkeypatch.setattr(fine_tune, "load_published", lambda *given: asked.append(given) or ({}, {}))
  given = FineTuneSettings(checkpoint="weights", blocks=blocks, layer_decay=0.5, image_size=32)
  made = method(given, None, None, 3, False)
  rates = made.problem.layer_rates
  decayed = (("layer1.0.", 0.125), ("layer1.1.", 0.25), ("layer2.0.", 0.5))
  stem = [(name, 0.0 if frozen else 0.0625) for name in fine_tune.STEM]
  assert rates == (*((name, 0.0) for name, _ in decayed[:frozen]), *decayed[frozen:], *stem)
  assert made.problem.view.size == 32 and asked[0][1] == "weights" and asked[0][3] is None
  named = dataclasses.replace(given, revision="abc")
  method(named, None, None, 3, False)
  assert asked[1][3] == "abc"
  with pytest.raises(UsageError, match="blocks is 4, but the network has 3"):
    method(dataclasses.replace(given, blocks=4), None, None, 3, False)


@pytest.mark.unchecked
def test_a_trained_block_has_layers_of_the_stems_names():
  """`layer2.0.conv1` is no stem: the first match of a name counts."""
  settings = FineTuneSettings(checkpoint="weights", blocks=1, layer_decay=0.5)
  rates = fine_tune._published_rates(ResNetConfig("basic", (2, 1)), settings)
  problem = SimpleNamespace(layer_rates=rates)
  leaf = {"conv1": {"weight": 0}, "bn1": {"bias": 0}}
  blocks = {"layer1.0": leaf, "layer1.1": leaf, "layer2.0": leaf}
  found = _rates(problem, {**leaf, **blocks, "fc": {"weight": 0}})
  zero, half = ({"conv1": {"weight": r}, "bn1": {"bias": r}} for r in (0.0, 0.5))
  assert found == {
    **zero, "layer1.0": zero, "layer1.1": zero, "layer2.0": half, "fc": {"weight": 1.0},
  }  # fmt: skip
