"""Low-rank updates: how they start, how they merge, and what they compute."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.models.layers import Linear, LowRank
from genbench_jax.recognizers.low_rank import adapted, initial_adapters, merged

Q = "layers.0.q_proj"


class Network(nn.Module):
  """Two layers; only the first, whose name has dots, matches the pattern of the tests."""

  @nn.compact
  def __call__(self, x):
    return Linear(4, name="head")(nn.tanh(Linear(6, name="layers.0.q_proj")(x)))


@pytest.fixture(scope="module")
def network():
  network = Network()
  params = network.init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
  return network, jax.tree.map(np.asarray, params)


@pytest.fixture
def adapters(network):
  """Updates of the first layer that change it, unlike initial ones."""
  found = initial_adapters(network[1], "q_proj$", rank=2)
  random = np.random.default_rng(1)
  found[Q]["b"] = random.normal(size=(2, 6)).astype(np.float32)
  return found


def test_updates_start_at_zero_with_the_bound_of_the_papers(network):
  found = initial_adapters(network[1], "q_proj$", rank=400, seed=3)
  assert list(found) == [Q]
  down, up = found[Q]["a"], found[Q]["b"]
  assert (down.shape, up.shape) == ((5, 400), (400, 6))
  assert not up.any()
  bound = 1 / math.sqrt(5)
  assert 0.99 * bound < np.abs(down).max() <= bound
  assert down.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_the_seed_decides_the_first_factor(network):
  first, same, other = (
    initial_adapters(network[1], "proj|head", 2, seed)["head"]["a"] for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, same)
  assert (first != other).any()


def test_a_pattern_without_matches_adapts_nothing(network):
  assert initial_adapters(network[1], "k_proj", 2) == {}


def test_merged_weights_are_w_plus_scale_a_b(network, adapters):
  found = merged(network[1], adapters, 0.5)
  pair = adapters[Q]
  expected = network[1][Q]["weight"] + 0.5 * pair["a"] @ pair["b"]
  np.testing.assert_allclose(found[Q]["weight"], expected, rtol=1e-6)
  np.testing.assert_array_equal(found["head"]["weight"], network[1]["head"]["weight"])
  np.testing.assert_array_equal(found[Q]["bias"], network[1][Q]["bias"])


def test_a_small_update_is_added_in_float32():
  """1 + 2^-8 + 2^-9 rounds to 1 + 2^-7 in bfloat16; a sum in bfloat16 would stay at 1 + 2^-8."""
  params = {"layer": {"weight": jnp.full((1, 1), 1.0, jnp.bfloat16)}}
  pair = {"a": np.full((1, 1), 2.0**-8 + 2.0**-9, np.float32), "b": np.ones((1, 1), np.float32)}
  found = merged(params, {"layer": pair}, 1.0)["layer"]["weight"]
  assert found.dtype == jnp.bfloat16
  assert float(found[0, 0]) == 1 + 2.0**-7


def test_an_adapted_network_is_the_network_with_merged_weights(network, adapters):
  module, params = network
  x = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)
  found, expected = (
    module.apply({"params": form(params, adapters, 0.5)}, x) for form in (adapted, merged)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert not np.allclose(module.apply({"params": params}, x), expected)


def test_gradients_of_updates_beside_and_within_the_weights_are_equal(network, adapters):
  module, params = network
  x = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)

  def gradient(form):
    total = lambda pairs: jnp.sin(module.apply({"params": form(params, pairs, 0.5)}, x)).sum()  # noqa: E731
    return jax.tree.leaves(jax.grad(total)(adapters))

  for found, expected in zip(gradient(adapted), gradient(merged), strict=True):
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dropout_needs_a_key_and_changes_only_the_update(network, adapters):
  module, params = network
  x = np.ones((3, 5), np.float32)

  def outputs(**settings):
    return np.asarray(module.apply({"params": adapted(params, adapters, 0.5, **settings)}, x))

  np.testing.assert_array_equal(outputs(dropout=0.9), outputs())
  assert (outputs(dropout=0.9, key=jax.random.key(0)) != outputs()).any()
  everything = outputs(dropout=1 - 1e-7, key=jax.random.key(0))
  np.testing.assert_allclose(everything, module.apply({"params": params}, x), rtol=1e-5)


def test_dropout_keeps_the_expectation():
  identity = LowRank(jnp.eye(50), jnp.eye(50), 0.3, jax.random.key(0))
  found = np.asarray(identity(jnp.ones((400, 50))))
  assert set(np.unique(found)) == {0.0, np.float32(1 / 0.7)}
  # 20,000 draws: the standard error of the mean is .0046.
  assert found.mean() == pytest.approx(1, abs=0.02)
  assert (found == 0).mean() == pytest.approx(0.3, abs=0.02)
