"""CLIP's towers agree with PyTorch on random weights: hidden states, features, gradients, tensor lists."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.clip_network import (
  ClipNetwork,
  ClipText,
  TextSizes,
  VisionSizes,
  end_positions,
)
from genbench_jax.models.configuration import Settings
from genbench_jax.zoo import tiny


def network_of(config):
  settings = Settings(config, Path("config.json"))
  return ClipNetwork(
    text=TextSizes.read(settings.section("text_config")),
    vision=VisionSizes.read(settings.section("vision_config")),
    projection=settings.integer("projection_dim", 512),
  )


def shapes_of(network):
  side, length = network.vision.image_size, network.text.positions
  pixels = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  tokens = jax.ShapeDtypeStruct((1, length), np.int32)
  return weights.parameter_shapes(
    network.init, pixels, tokens, jax.ShapeDtypeStruct((1,), np.int32)
  )


@pytest.fixture(scope="module")
def network():
  return network_of(tiny.clip_config())


@pytest.fixture(scope="module")
def params(network):
  shapes = shapes_of(network)
  state = tiny.random_weights(weights.torch_shapes(shapes))
  return weights.load({name: (lambda t=t: t) for name, t in state.items()}, shapes, "tiny")


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_clip") | load_golden("golden_clip_towers")


@pytest.fixture(scope="module")
def ends(golden):
  return end_positions(golden["tokens"], tiny.clip_config()["text_config"]["eos_token_id"])


def relative(found, wanted):
  """Return the largest difference relative to the magnitude of the wanted values."""
  return np.abs(np.asarray(found, np.float32) - wanted).max() / np.abs(wanted).max()


# ---- published checkpoints ----------------------------------------------------------------------

CLIPS = (
  "clip-vit-base-patch32",
  "clip-vit-base-patch16",
  "clip-vit-large-patch14",
  "clip-vit-large-patch14-336",
  "CLIP-ViT-H-14-laion2B-s32B-b79K",
  "clip/CLIP-ViT-bigG-14-laion2B-39B-b160k",
)
TEXT_ENCODERS = {
  "stable-diffusion-1.5/text_encoder": 0,
  "stable-diffusion-2.1/text_encoder": 0,
  "clip_text/sdxl-text_encoder": 0,
  "clip_text_with_projection/sdxl-text_encoder_2": 1280,
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_tensor_of_published_clips_is_mapped(published, expected_shapes, name):
  found = weights.torch_shapes(shapes_of(network_of(published[name]["config"])))
  assert found == expected_shapes(published[name]["shapes"])


@pytest.mark.parametrize(("name", "projection"), TEXT_ENCODERS.items())
def test_every_tensor_of_text_encoders_is_mapped(published, expected_shapes, name, projection):
  sizes = TextSizes.read(Settings(published[name]["config"], Path("config.json")))
  tokens = jax.ShapeDtypeStruct((1, sizes.positions), np.int32)
  found = weights.torch_shapes(weights.parameter_shapes(ClipText(sizes, projection).init, tokens))
  assert found == expected_shapes(published[name]["shapes"])


# ---- parity -------------------------------------------------------------------------------------


def test_every_hidden_state_of_the_text_tower_matches_pytorch(network, params, golden):
  text = ClipText(network.text)
  own = {"text_model": params["text_model"]}
  states = jax.jit(text.apply)({"params": own}, golden["tokens"])
  assert len(states.hidden) == network.text.encoder.layers + 1
  for index, hidden in enumerate(states.hidden):
    assert relative(hidden, golden[f"hidden/{index}"]) < 2e-5, index
  assert relative(states.last, golden["last"]) < 2e-5


@pytest.mark.parametrize("activation", ["own", "openclip"])
def test_features_match_pytorch(golden, params, ends, activation):
  config = tiny.clip_config()
  if activation == "openclip":
    config["text_config"]["hidden_act"] = config["vision_config"]["hidden_act"] = "gelu"
  network = network_of(config)
  apply = jax.jit(network.apply)
  images, texts, scale = apply({"params": params}, golden["pixels"], golden["tokens"], ends)
  assert relative(images, golden[f"{activation}/image"]) < 2e-5
  assert relative(texts, golden[f"{activation}/text"]) < 2e-5
  assert float(scale) == pytest.approx(100, rel=1e-5)


def test_projected_text_of_a_text_encoder_matches_clip(network, params, golden, ends):
  text = ClipText(network.text, network.projection)
  own = {name: params[name] for name in ("text_model", "text_projection")}

  def pooled(module, tokens):
    return module.pooled(module(tokens), ends)

  found = text.apply({"params": own}, golden["tokens"], method=pooled)
  assert relative(found, golden["own/text"]) < 2e-5


def test_gradients_match_pytorch(network, params, golden, ends):
  """Gradient of a weighted sum of cosines by every parameter of both towers, with rematerialization."""
  network = network.clone(remat=True)

  def loss(params):
    images, texts, _ = network.apply({"params": params}, golden["pixels"], golden["tokens"], ends)
    images, texts = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
    cosines = jnp.matmul(images, texts.T, precision="highest")
    return (cosines * jnp.linspace(-1, 2, cosines.size).reshape(cosines.shape)).sum()

  gradients = weights.to_torch(jax.jit(jax.grad(loss))(params))
  wanted = {k.removeprefix("gradient/"): v for k, v in golden.items() if k.startswith("gradient/")}
  assert gradients.keys() - wanted.keys() == {"logit_scale"}
  for name, gradient in wanted.items():
    # The keys' biases shift all scores of a query equally, so their gradient is zero up to rounding.
    scale = 1.0 if name.endswith("k_proj.bias") else np.abs(gradient).max()
    assert np.abs(gradients[name] - gradient).max() < 1e-4 * scale, name


def test_bfloat16_stays_within_its_bound(network, params, golden, ends):
  """bfloat16 keeps 8 bits: 4e-3 per rounding. Over two layers, features stay within 3 % of their magnitude."""
  narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
  apply = jax.jit(network.clone(dtype=jnp.bfloat16).apply)
  images, texts, _ = apply({"params": narrow}, golden["pixels"], golden["tokens"], ends)
  assert images.dtype == texts.dtype == jnp.float32
  assert relative(images, golden["own/image"]) < 0.03
  assert relative(texts, golden["own/text"]) < 0.03


# ---- inputs -------------------------------------------------------------------------------------


def test_only_learned_tokens_get_a_gradient(network, params):
  vocabulary = network.text.vocabulary
  learned = np.ones((2, network.text.encoder.width), np.float32)
  tokens = np.array([[5, vocabulary, vocabulary + 1, 7]])

  def embed(params, learned):
    return network.apply({"params": params}, tokens, learned, method="token_embeddings")

  found = embed(params, learned)
  np.testing.assert_array_equal(found[0, 1:3], learned)
  np.testing.assert_array_equal(
    found[0, 0], params["text_model"]["embeddings.token_embedding"]["weight"][5]
  )
  gradient = jax.grad(lambda rows: embed(params, rows)[0, 1].sum())(learned)
  np.testing.assert_array_equal(gradient, [np.ones_like(learned[0]), np.zeros_like(learned[0])])


def test_prompts_flow_on_or_are_replaced_per_layer(network, params, golden):
  rng = np.random.default_rng(0)
  deep = rng.standard_normal((2, 3, network.vision.encoder.width)).astype(np.float32)

  apply = jax.jit(functools.partial(network.apply, method="image_features"))

  def features(prompts):
    return apply({"params": params}, golden["pixels"], prompts)

  plain, none = features(None), features(deep[:1, :0])
  np.testing.assert_allclose(plain, none, atol=1e-5)
  shallow = features(deep[:1])
  assert relative(shallow, np.asarray(plain)) > 1e-2
  assert relative(features(deep), np.asarray(shallow)) > 1e-3


def test_text_ends_at_the_first_end_token():
  tokens = np.array([[1, 5, 9, 9, 9], [1, 9, 9, 9, 9], [1, 5, 6, 7, 9]])
  assert end_positions(tokens, 9).tolist() == [2, 1, 4]


# ---- damaged configurations ---------------------------------------------------------------------


@pytest.mark.parametrize(
  "section,setting,message",
  [
    ("text_config", {"num_hidden_layers": 200000}, "num_hidden_layers is 200000; expected a whole"),
    ("text_config", {"num_hidden_layers": -1}, "from 1 to 256"),
    ("vision_config", {"hidden_size": 10**9}, "vision_config.hidden_size is 1000000000"),
    ("vision_config", {"image_size": 10**7}, "image_size is 10000000; expected .* from 1 to 4096"),
    ("vision_config", {"patch_size": 0}, "patch_size is 0"),
    ("vision_config", {"num_channels": 4}, "num_channels is 4; only 3 is supported"),
    ("text_config", {"num_attention_heads": 0}, "num_attention_heads is 0"),
    ("text_config", {"num_attention_heads": 5}, "it must divide the width, 32"),
    ("text_config", {"num_attention_heads": "8"}, "num_attention_heads is '8'"),
    ("text_config", {"num_attention_heads": True}, "num_attention_heads is True"),
    ("text_config", {"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    ("text_config", {"hidden_act": "evil"}, "hidden_act is 'evil'; supported: gelu"),
    ("text_config", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
    ("text_config", {"layer_norm_eps": "small"}, "layer_norm_eps is 'small'; expected a number"),
  ],
)
def test_damaged_configurations_give_one_line(section, setting, message):
  config = tiny.clip_config()
  config[section] |= setting
  with pytest.raises(RunError, match=message):
    network_of(config)


def test_a_section_that_is_not_an_object_is_rejected():
  with pytest.raises(RunError, match=r"text_config is \[\]; expected a JSON object"):
    network_of(tiny.clip_config() | {"text_config": []})
