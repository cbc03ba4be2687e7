"""SigLIP, DINOv2, DINOv3 and T5 agree with PyTorch on random weights and with published tensor lists."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.configuration import Settings
from genbench_jax.models.dinov2_network import Dinov2Network, Dinov2Sizes
from genbench_jax.models.dinov3_network import Dinov3Network, Dinov3Sizes
from genbench_jax.models.positions import resampled
from genbench_jax.models.siglip_network import SiglipNetwork, SiglipTextSizes, read_vision
from genbench_jax.models.t5_network import SamplingSettings, T5Network, T5Sizes, sample
from genbench_jax.zoo import tiny


def siglip_of(config):
  settings = Settings(config, Path("config.json"))
  text = SiglipTextSizes.read(settings.section("text_config"))
  return SiglipNetwork(text, read_vision(settings.section("vision_config")))


def network_of(config):
  settings = Settings(config, Path("config.json"))
  kind = config["model_type"]
  if kind == "siglip":
    return siglip_of(config)
  if kind == "t5":
    return T5Network(T5Sizes.read(settings))
  if kind == "dinov3_vit":
    return Dinov3Network(Dinov3Sizes.read(settings))
  return Dinov2Network(Dinov2Sizes.read(settings))


def shapes_of(network):
  def tokens(length, dtype=np.int32):
    return jax.ShapeDtypeStruct((1, length), dtype)

  if isinstance(network, T5Network):
    return weights.parameter_shapes(network.init, tokens(2), tokens(2, bool), tokens(2))
  sizes = network.vision if isinstance(network, SiglipNetwork) else network.sizes
  pixels = jax.ShapeDtypeStruct((1, sizes.image_size, sizes.image_size, 3), np.float32)
  if isinstance(network, SiglipNetwork):
    return weights.parameter_shapes(network.init, pixels, tokens(network.text.positions))
  return weights.parameter_shapes(network.init, pixels)


def random_params(network):
  shapes = shapes_of(network)
  state = tiny.random_weights(weights.torch_shapes(shapes))
  return weights.load({name: (lambda t=t: t) for name, t in state.items()}, shapes, "tiny")


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_encoders")


@pytest.fixture(scope="module")
def build(golden):
  """Return network and parameters of a case in the golden file."""

  def built(name, **config):
    network = network_of(json.loads(str(golden[f"{name}/config"])) | config)
    return network, random_params(network)

  return built


def assert_close(found, wanted, bound=2e-5):
  assert found.shape == wanted.shape
  assert np.abs(found - wanted).max() < bound * np.abs(wanted).max()


@pytest.mark.parametrize(
  "name",
  [
    "dinov2/dinov2-small",
    "dinov2/dinov2-base",
    "dinov2/dinov2-large",
    "dinov2/dinov2-giant",
    "dinov2_with_registers/dinov2-with-registers-small",
    "dinov3_vit/dinov3-vits16-pretrain-lvd1689m",
    "dinov3_vit/dinov3-vith16plus-pretrain-lvd1689m",
    "siglip/siglip-base-patch16-224",
    "siglip/siglip2-base-patch16-224",
    "siglip/siglip2-so400m-patch14-384",
    "t5/t5-base",
    "t5/flan-t5-base",
  ],
)
def test_every_tensor_of_published_checkpoints_is_mapped(published, expected_shapes, name):
  shapes = shapes_of(network_of(published[name]["config"]))
  assert weights.torch_shapes(shapes) == expected_shapes(published[name]["shapes"])


# ---- image encoders -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dinov3", "dinov3_gated"])
def test_dinov3_matches_pytorch(golden, build, name):
  network, params = build(name)
  found = jax.jit(network.apply)({"params": params}, golden[f"{name}/pixels"])
  assert_close(found, golden[f"{name}/features"])


def test_dinov2_with_registers_matches_pytorch(golden, build):
  network, params = build("dinov2_with_registers")
  name = "embeddings.position_embeddings"
  params[name] = resampled(params[name], 4, antialias=True)
  found = jax.jit(network.apply)({"params": params}, golden["dinov2_with_registers/pixels"])
  assert_close(found, golden["dinov2_with_registers/features"])


def test_siglip_matches_pytorch(golden, build):
  network, params = build("siglip")
  apply = jax.jit(network.apply)
  images, texts = apply({"params": params}, golden["siglip/pixels"], golden["siglip/tokens"])
  assert_close(images, golden["siglip/image"])
  assert_close(texts, golden["siglip/text"])
  images, texts = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
  logits = np.exp(params["logit_scale"]) * images @ texts.T + params["logit_bias"]
  np.testing.assert_allclose(logits, golden["siglip/logits_per_image"], atol=2e-3)  # scale 100


def test_bfloat16_stays_within_its_bound(golden, build):
  """bfloat16 keeps 8 bits: over two layers, within 3 % of the features' magnitude."""
  network, params = build("dinov3")
  narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
  apply = jax.jit(network.clone(dtype=jnp.bfloat16).apply)
  assert_close(apply({"params": narrow}, golden["dinov3/pixels"]), golden["dinov3/features"], 0.03)


# ---- T5 -----------------------------------------------------------------------------------------


def test_a_gated_t5_with_untied_logits_matches_pytorch(golden, build):
  network, params = build("t5_gated")
  inputs = [golden[f"t5_gated/{name}"] for name in ("tokens", "mask", "written")]
  found = jax.jit(network.apply)({"params": params}, inputs[0], inputs[1] > 0, inputs[2])
  assert_close(found, golden["t5_gated/logits"])


def test_step_by_step_logits_match_the_full_pass(golden, build):
  network, params = build("t5_gated")
  tokens, mask, written = (golden[f"t5_gated/{name}"] for name in ("tokens", "mask", "written"))

  def steps(network):
    crossed = network.cross(network.encode(tokens, mask > 0))
    cache, logits = network.empty_cache(2, 7), []
    for place in range(7):
      row = (written[:, place], jnp.asarray(place), cache, crossed, mask > 0)
      found, cache = network.step(*row)
      logits.append(found)
    return jnp.stack(logits, axis=1)

  apply = jax.jit(lambda params: network.apply({"params": params}, method=steps))
  assert_close(apply(params), golden["t5_gated/logits"])


def test_sampling_is_seeded_ends_and_uses_top_k(golden, build):
  network, params = build("t5_gated")
  tokens, mask = golden["t5_gated/tokens"], golden["t5_gated/mask"] > 0
  tokens, mask = np.repeat(tokens, 40, 0), np.repeat(mask, 40, 0)
  sampling = SamplingSettings(start=0, end=1, pad=0, length=12, likeliest=8)
  run = jax.jit(sample, static_argnames=("network", "sampling"))
  first, again, other = (
    run(network, params, tokens, mask, jax.random.key(seed), sampling) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()
  assert first.shape == (80, 12) and (first[:, 0] == 0).all()
  ended = np.cumsum(first == 1, axis=1) - (first == 1)
  assert (np.asarray(first)[ended > 0] == 0).all()
  greedy = run(network, params, tokens, mask, jax.random.key(5), sampling._replace(likeliest=1))
  assert all((row == greedy[0]).all() for row in greedy[:40])


@pytest.mark.parametrize(
  "kind,setting,message",
  [
    ("t5", {"feed_forward_proj": "gated-evil"}, "feed_forward_proj is 'gated-evil'"),
    ("t5", {"feed_forward_proj": 3}, "feed_forward_proj is 3"),
    ("t5", {"num_layers": 10**9}, "num_layers is 1000000000"),
    ("dinov2", {"mlp_ratio": "x"}, "mlp_ratio is 'x'"),
    ("dinov2", {"use_swiglu_ffn": 1}, "use_swiglu_ffn is 1; expected true or false"),
    ("dinov3_vit", {"num_attention_heads": 64}, "multiple of 4"),
    ("dinov3_vit", {"patch_size": 0}, "patch_size is 0"),
    (
      "siglip",
      {"vision_config": {"vision_use_head": False}},
      "vision_use_head is False; only True",
    ),
  ],
)
def test_damaged_configurations_give_one_line(kind, setting, message):
  with pytest.raises(RunError, match=message):
    network_of({"model_type": kind, **setting})
