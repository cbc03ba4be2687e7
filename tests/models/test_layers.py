"""The layers agree with plain NumPy, and their weights have PyTorch's names and layouts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from genbench_jax.errors import RunError
from genbench_jax.models import layers, weights
from genbench_jax.models.layers import Conv, Embed, GroupNorm, LayerNorm, Linear, RmsNorm


class Network(nn.Module):
  """A network with one of each layer, with dotted and nested names."""

  @nn.compact
  def __call__(self, tokens, image):
    hidden = Embed(5, 5, name="token_embedding")(tokens)
    hidden = Linear(8, name="encoder.layers.0.fc_1")(hidden)
    hidden = LayerNorm(name="encoder.layers.0.norm")(hidden)
    image = Conv(8, 3, padding=1, name="conv_in")(image)
    image = GroupNorm(2, name="norm_out")(image)
    return hidden.mean(), image.mean()


@pytest.fixture(scope="module")
def shapes():
  tokens = jax.ShapeDtypeStruct((1, 3), np.int32)
  image = jax.ShapeDtypeStruct((1, 4, 4, 3), np.float32)
  return weights.parameter_shapes(Network().init, tokens, image)


def random_state(shapes):
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal(shape, np.float32)
    for name, shape in weights.torch_shapes(shapes).items()
  }


def readers(state):
  return {name: (lambda tensor=tensor: tensor) for name, tensor in state.items()}


def draw(*shape):
  return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) + 1


# ---- weights ------------------------------------------------------------------------------------


def test_paths_match_pytorchs_names_and_shapes(shapes):
  assert weights.torch_shapes(shapes) == {
    "token_embedding.weight": (5, 5),
    "encoder.layers.0.fc_1.weight": (8, 5),
    "encoder.layers.0.fc_1.bias": (8,),
    "encoder.layers.0.norm.weight": (8,),
    "encoder.layers.0.norm.bias": (8,),
    "conv_in.weight": (8, 3, 3, 3),
    "conv_in.bias": (8,),
    "norm_out.weight": (8,),
    "norm_out.bias": (8,),
  }


def test_loading_transposes_by_rank_and_saving_inverts_it(shapes):
  state = random_state(shapes)
  params = weights.load(readers(state), shapes, "here")
  np.testing.assert_array_equal(
    params["encoder.layers.0.fc_1"]["weight"], state["encoder.layers.0.fc_1.weight"].T
  )
  np.testing.assert_array_equal(
    params["conv_in"]["weight"], state["conv_in.weight"].transpose(2, 3, 1, 0)
  )
  # A square table could be mistaken for a linear weight.
  np.testing.assert_array_equal(
    params["token_embedding"]["weight"], state["token_embedding.weight"]
  )
  again = weights.to_torch(params)
  assert again.keys() == state.keys()
  for name, tensor in state.items():
    np.testing.assert_array_equal(again[name], tensor)
    assert again[name].flags.c_contiguous


def test_dtype_and_place_are_respected(shapes):
  state = {name: tensor.astype(np.float16) for name, tensor in random_state(shapes).items()}
  kept = weights.load(readers(state), shapes, "here", dtype=None)
  assert {leaf.dtype for _, leaf in weights.leaves(kept)} == {np.dtype(np.float16)}
  placed = weights.load(readers(state), shapes, "here", jnp.bfloat16, place=jax.device_put)
  assert all(isinstance(leaf, jax.Array) for _, leaf in weights.leaves(placed))
  assert {leaf.dtype for _, leaf in weights.leaves(placed)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
  "change,message",
  [
    (lambda state: state.pop("conv_in.bias"), "in here lacks conv_in.bias"),
    (lambda state: state.update(more=np.zeros(2)), "no place for: more"),
    (
      lambda state: state.update({"conv_in.bias": np.zeros(7)}),
      r"wrong shape: conv_in.bias \(in JAX's layout \(7,\), expected \(8,\)\)",
    ),
  ],
)
def test_missing_extra_and_misshapen_tensors_are_named(shapes, change, message):
  state = random_state(shapes)
  change(state)
  with pytest.raises(RunError, match=message):
    weights.load(readers(state), shapes, "here")


def test_only_the_stated_extras_are_ignored(shapes):
  state = random_state(shapes) | {"position_ids": np.arange(3), "other": np.arange(3)}
  with pytest.raises(RunError, match="no place for: other"):
    weights.load(readers(state), shapes, "here", ignored=r"position_ids$")


def test_an_unreadable_tensor_is_named(shapes):
  def broken():
    raise ValueError("cut short")

  state = readers(random_state(shapes)) | {"conv_in.bias": broken}
  with pytest.raises(RunError, match=r"tensor conv_in.bias in here can't be read \(cut short\)"):
    weights.load(state, shapes, "here")


def test_a_table_with_an_unknown_name_is_rejected():
  with pytest.raises(ValueError, match="'words' is not known as a table"):
    Embed(3, 4, name="words").init(jax.random.key(0), jnp.zeros(2, jnp.int32))


# ---- arithmetic ---------------------------------------------------------------------------------


def test_norms_match_their_formulas():
  x, weight, bias = draw(2, 3, 8), draw(8), draw(8)
  centered = x - x.mean(-1, keepdims=True)
  wanted = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
  params = {"params": {"weight": weight, "bias": bias}}
  np.testing.assert_allclose(LayerNorm(eps=1e-5).apply(params, x), wanted, rtol=1e-5, atol=1e-5)
  rms = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight
  found = RmsNorm().apply({"params": {"weight": weight}}, x)
  np.testing.assert_allclose(found, rms, rtol=1e-5, atol=1e-5)
  parts = x.reshape(2, 3, 2, 4)
  parts = parts - parts.mean((1, 3), keepdims=True)
  groups = (parts / np.sqrt((parts**2).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)
  found = GroupNorm(2).apply(params, x)
  np.testing.assert_allclose(found, groups * weight + bias, rtol=1e-5, atol=1e-5)


def test_norms_are_accurate_far_from_zero_and_keep_the_dtype():
  x = draw(1, 6, 8)
  far = LayerNorm().apply({"params": {"weight": np.ones(8), "bias": np.zeros(8)}}, x + 1000)
  near = LayerNorm().apply({"params": {"weight": np.ones(8), "bias": np.zeros(8)}}, x)
  np.testing.assert_allclose(far, near, atol=1e-3)
  for norm in (LayerNorm(), GroupNorm(2), RmsNorm()):
    narrow = jnp.asarray(x, jnp.bfloat16)
    assert norm.apply(norm.init(jax.random.key(0), narrow), narrow).dtype == jnp.bfloat16


@pytest.mark.parametrize("stride,padding,groups", [(1, 1, 1), (2, 0, 2), (2, [(0, 1), (0, 1)], 1)])
def test_convolutions_are_sums_over_windows(stride, padding, groups):
  x, weight, bias = draw(1, 5, 5, 4), draw(3, 3, 4 // groups, 2), draw(2)
  layer = Conv(2, 3, stride, padding, groups)
  found = layer.apply({"params": {"weight": weight, "bias": bias}}, x)
  around = [(padding, padding)] * 2 if isinstance(padding, int) else padding
  padded = np.pad(x, [(0, 0), *around, (0, 0)])[0]
  side = (padded.shape[0] - 3) // stride + 1
  wanted = np.zeros((side, side, 2), np.float32)
  for row, column, out in np.ndindex(wanted.shape):
    window = padded[row * stride : row * stride + 3, column * stride : column * stride + 3]
    channels = window[..., out * 2 : out * 2 + 2] if groups == 2 else window
    wanted[row, column, out] = (channels * weight[..., out]).sum() + bias[out]
  np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-4)


def test_activations_match_their_formulas():
  x = np.linspace(-6, 6, 101).astype(np.float32)
  np.testing.assert_allclose(layers.gelu(x), x * (1 + erf(x / 2**0.5)) / 2, atol=1e-6)
  np.testing.assert_allclose(layers.quick_gelu(x), x / (1 + np.exp(-1.702 * x)), atol=1e-6)
  assert layers.activation("gelu") is layers.gelu
  with pytest.raises(RunError, match="'mish' is not supported; known are gelu"):
    layers.activation("mish")


def test_attention_matches_the_formula_and_may_be_causal():
  query, key, value = draw(1, 4, 2, 8), draw(1, 4, 2, 8) + 1, draw(1, 4, 2, 8) - 1
  scores = np.einsum("bqhd,bkhd->bhqk", query, key) / 8**0.5
  scores = np.where(np.tril(np.ones((4, 4), bool)), scores, -np.inf)
  shares = np.exp(scores - scores.max(-1, keepdims=True))
  shares /= shares.sum(-1, keepdims=True)
  wanted = np.einsum("bhqk,bkhd->bqhd", shares, value)
  found = layers.attend(query, key, value, layers.causal_bias(4))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
