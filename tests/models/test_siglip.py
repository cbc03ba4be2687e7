"""SigLIP from its folder: features agree with PyTorch; its tokenizer, prototypes, and big_vision's arrays."""

import json
import shutil

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import genbench_jax as gb
from genbench_jax.embedding.embedder import image_features, text_prototypes
from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.image_encoder import TextEncoder, load_image_encoder
from genbench_jax.models.siglip import load_siglip, parameter_shapes
from genbench_jax.zoo.tiny import random_weights


def write_words(folder, special=("<pad>", "<eos>", "<bos>", "<unk>")):
  """Write a tokenizer of whole words with Gemma's special tokens."""
  from tokenizers import Tokenizer, models, pre_tokenizers

  words = [*special, "a", "photo", "of", "red", "blue", "cat", "dog", "!"]
  tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_encoders")


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
  folder = tmp_path_factory.mktemp("siglip")
  (folder / "config.json").write_text(str(golden["siglip/config"]))
  write_words(folder)
  save_file(
    random_weights(weights.torch_shapes(parameter_shapes(folder))), folder / "model.safetensors"
  )
  return folder


@pytest.fixture
def copy(folder, tmp_path):
  return shutil.copytree(folder, tmp_path / "copy")


def test_features_from_a_folder_match_pytorch(golden, folder, one_device_mesh):
  encoder = load_image_encoder(folder)
  found = image_features(encoder, golden["siglip/pixels"], one_device_mesh)
  scale = np.abs(golden["siglip/image"]).max()
  assert np.abs(found - golden["siglip/image"]).max() < 2e-5 * scale
  assert isinstance(encoder, TextEncoder)
  assert encoder.input.ways[0] == "crop" and not encoder.input.keep_aspect
  assert encoder.logit_scale == pytest.approx(100, rel=1e-5)
  assert isinstance(encoder.logit_bias, float)


def test_texts_are_lowercased_padded_and_keep_their_end(folder):
  encoder = load_siglip(folder)
  tokens = encoder.tokenize(["A Photo of\na CAT!", "", "a " * 30])
  assert tokens[0].tolist() == [4, 5, 6, 4, 9, 11, 1, 0, 0, 0, 0, 0]
  assert tokens[1].tolist() == [1] + [0] * 11
  assert tokens[2].tolist() == [4] * 11 + [1]


def test_the_first_siglip_drops_punctuation(copy):
  write_words(copy, ("</s>", "<unk>", "x", "y"))
  tokens = load_siglip(copy).tokenize(["a cat!"])
  assert tokens[0].tolist() == [4, 9] + [0] * 10


def test_prototypes_and_zero_shot_use_cosines(folder, one_device_mesh):
  """The class with the largest cosine has the largest sigmoid, because scale and bias are shared."""
  encoder = load_siglip(folder)
  names, templates = ("cat", "dog"), ("a photo of a {}", "a {}!")
  prototypes = text_prototypes(encoder, names, templates, one_device_mesh)
  features = gb.embed_texts(["a photo of a cat", "a cat!"], str(folder))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  mean = features.mean(0)
  np.testing.assert_allclose(prototypes[0], mean / np.linalg.norm(mean), atol=1e-5)
  cosines = np.random.default_rng(0).normal(size=(5, 64)) @ np.ones((64, 2))
  logits = encoder.logit_scale * cosines + encoder.logit_bias
  np.testing.assert_array_equal(cosines.argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
  "break_it,message",
  [
    (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "the tokenizer in .* can't be read"),
    (lambda f: write_words(f, ("<unk>", "b", "c", "d")), "no end-of-text token"),
    (lambda f: edit(f, "text_config", vocab_size=11), "ids up to 11, but the model has 11"),
    (lambda f: edit(f, "text_config", projection_size=16), "features of different widths"),
    (lambda f: edit(f, None, model_type="clip"), "type 'clip', not 'siglip'"),
    (
      lambda f: (f / "preprocessor_config.json").write_text('{"size": 32}'),
      "resizes to 32 pixels, but the model takes 16",
    ),
    (
      lambda f: (f / "model.npz").write_bytes(b"PK"),
      "is not a readable .npz in big_vision's format",
    ),
    (lambda f: np.savez(f / "model.npz", **{"params/x/kernel": np.ones(2)}), "contains no SigLIP"),
  ],
)
def test_damaged_checkpoints_give_one_line(copy, break_it, message):
  break_it(copy)
  with pytest.raises(RunError, match=message):
    load_siglip(copy)


def edit(folder, section, **change):
  config = json.loads((folder / "config.json").read_text())
  (config[section] if section else config).update(change)
  (folder / "config.json").write_text(json.dumps(config))


# ---- big_vision ---------------------------------------------------------------------------------


class BigVisionTower(nn.Module):
  """big_vision's vision tower, built from Flax's own layers: two layers with two heads."""

  stacked: bool = False

  @nn.compact
  def __call__(self, pixels):
    x = nn.Conv(32, (4, 4), (4, 4), padding="VALID", name="embedding")(pixels)
    x = x.reshape(len(x), -1, 32)
    x = x + self.param("pos_embedding", nn.initializers.normal(0.5), (1, 16, 32))
    for index in range(2):
      x = BigVisionLayer(name=f"Transformer/encoderblock_{index}")(x)
    x = nn.LayerNorm(name="Transformer/encoder_norm")(x)
    return BigVisionPooling(name="MAPHead_0")(x)


class BigVisionLayer(nn.Module):
  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm(name="LayerNorm_0")(x)
    x = x + nn.MultiHeadDotProductAttention(2, name="MultiHeadDotProductAttention_0")(y, y)
    return x + big_vision_mlp(nn.LayerNorm(name="LayerNorm_1")(x))


class BigVisionPooling(nn.Module):
  @nn.compact
  def __call__(self, x):
    probe = self.param("probe", nn.initializers.normal(0.5), (1, 1, 32))
    probe = jnp.tile(probe, (len(x), 1, 1))
    x = nn.MultiHeadDotProductAttention(2, name="MultiHeadDotProductAttention_0")(probe, x)
    return (x + big_vision_mlp(nn.LayerNorm(name="LayerNorm_0")(x)))[:, 0]


def big_vision_mlp(x):
  y = nn.gelu(nn.Dense(48, name="MlpBlock_0/Dense_0")(x))
  return nn.Dense(32, name="MlpBlock_0/Dense_1")(y)


def flat(tree, above=""):
  for name, value in tree.items():
    yield from (
      flat(value, f"{above}{name}/") if isinstance(value, dict) else [(above + name, value)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_big_visions_arrays_match_flaxs_own_layers(copy, golden, stacked):
  """big_vision's files keep heads apart and number the layers or stack them in one array."""
  import jax

  edit(copy, "vision_config", layer_norm_eps=1e-6)
  tower, pixels = BigVisionTower(), golden["siglip/pixels"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: (leaf + 0.1 * rng.normal(size=leaf.shape)).astype(np.float32),
    tower.init(jax.random.key(0), pixels)["params"],
  )
  arrays = {f"params/img/{name}": np.asarray(leaf) for name, leaf in flat(params)}
  own = load_siglip(copy).params
  arrays |= text_of_big_vision(own["text_model"])
  arrays |= {"params/t": np.float32(2.0), "params/b": np.float32(-10.0)}
  if stacked:
    arrays = stack_layers(arrays)
  np.savez(copy / "model.npz", **arrays)
  encoder = load_siglip(copy)
  found = encoder.embed_pixels(encoder.params, pixels)
  np.testing.assert_allclose(found, tower.apply({"params": params}, pixels), atol=2e-5)
  np.testing.assert_array_equal(
    weights.to_torch(encoder.params["text_model"])["encoder.layers.1.self_attn.out_proj.weight"],
    weights.to_torch(own["text_model"])["encoder.layers.1.self_attn.out_proj.weight"],
  )
  assert encoder.logit_scale == pytest.approx(np.exp(2), rel=1e-5)


def text_of_big_vision(params):
  """Return the text tower's parameters under big_vision's names."""
  layer = {
    "layer_norm1": "LayerNorm_0", "layer_norm2": "LayerNorm_1", "mlp.fc1": "MlpBlock_0/Dense_0",
    "mlp.fc2": "MlpBlock_0/Dense_1", "self_attn.q_proj": "MultiHeadDotProductAttention_0/query",
    "self_attn.k_proj": "MultiHeadDotProductAttention_0/key",
    "self_attn.v_proj": "MultiHeadDotProductAttention_0/value",
    "self_attn.out_proj": "MultiHeadDotProductAttention_0/out",
  }  # fmt: skip
  arrays = {}
  for name, leaf in weights.leaves(params):
    leaf, (*module, kind) = np.asarray(leaf), name.split(".")
    module = ".".join(module)
    kind = "bias" if kind == "bias" else "kernel" if leaf.ndim == 2 else "scale"
    if module.startswith("encoder.layers."):
      number, own = module.removeprefix("encoder.layers.").split(".", 1)
      place = f"txt/Encoder_0/encoderblock_{number}/{layer[own]}/{kind}"
      if "self_attn" in own and kind == "kernel":
        leaf = leaf.reshape(2, 16, 32) if own.endswith("out_proj") else leaf.reshape(32, 2, 16)
      elif "self_attn" in own and not own.endswith("out_proj"):
        leaf = leaf.reshape(2, 16)
    else:
      place = {
        "embeddings.token_embedding": "txt/Embed_0/embedding",
        "embeddings.position_embedding": "txt/pos_embedding",
        "final_layer_norm": f"txt/Encoder_0/encoder_norm/{kind}",
        "head": f"txt/head/{kind}",
      }[module]
      leaf = leaf[None] if place.endswith("pos_embedding") else leaf
    arrays[f"params/{place}"] = leaf
  return arrays


def stack_layers(arrays):
  """Stack all layers of a tower along a first axis."""
  stacked = {}
  for name, array in arrays.items():
    if "encoderblock_0/" in name:
      other = arrays[name.replace("encoderblock_0/", "encoderblock_1/")]
      stacked[name.replace("encoderblock_0/", "encoderblock/")] = np.stack([array, other])
    elif "encoderblock_1/" not in name:
      stacked[name] = array
  return stacked
