"""Our own convolutions agree with the definition."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.models.convolution import (
  MIN_CHANNELS,
  Conv,
  patch_product,
  suits_winograd,
  winograd,
)


def by_definition(hidden, kernel, padding, strides=1):
  """Convolve in float64: each tap shifts the image and mixes its channels."""
  rows, columns = kernel.shape[:2]
  around = [(side, side) for side in padding]
  padded = np.pad(hidden.astype(np.float64), ((0, 0), *around, (0, 0)))
  height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
  whole = sum(
    padded[:, row : row + height, column : column + width] @ kernel[row, column]
    for row in range(rows)
    for column in range(columns)
  )
  return whole[:, ::strides, ::strides]


def drawn(*shape):
  return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.slow
@given(
  st.integers(1, 2), st.integers(3, 9), st.integers(3, 9), st.integers(1, 9), st.integers(0, 1)
)
@settings(max_examples=20, deadline=None)
def test_winograd_matches_the_definition(batch, height, width, channels, padding):
  hidden, kernel = drawn(batch, height, width, channels), drawn(3, 3, channels, 5)
  found = jax.jit(winograd, static_argnums=2)(hidden, kernel, padding)
  np.testing.assert_allclose(found, by_definition(hidden, kernel, (padding, padding)), atol=3e-5)


@pytest.mark.parametrize("sides", [(3, 3), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_product_of_patches_matches_the_definition(sides, strides):
  hidden, kernel, padding = drawn(2, 9, 8, 4), drawn(*sides, 4, 5), (sides[0] // 2, sides[1] // 2)
  found = patch_product(hidden, kernel, strides, padding)
  np.testing.assert_allclose(found, by_definition(hidden, kernel, padding, strides), atol=3e-5)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("side", [23, 24])
@pytest.mark.parametrize("strides", [1, 2])
def test_every_convolution_matches_the_compilers(size, side, strides):
  module = Conv(MIN_CHANNELS, size, strides, padding=size // 2, platform="cpu")
  hidden = np.random.default_rng(0).normal(size=(1, side, side, MIN_CHANNELS)).astype(np.float32)
  variables = jax.jit(module.init)(jax.random.key(0), hidden)
  variables["params"]["bias"] += np.arange(MIN_CHANNELS, dtype=np.float32)
  plain = module.clone(platform="gpu").apply(variables, hidden)
  np.testing.assert_allclose(module.apply(variables, hidden), plain, atol=2e-5)


def test_other_convolutions_use_the_compiler():
  kernel = np.zeros((3, 3, MIN_CHANNELS, MIN_CHANNELS), np.float32)
  even = np.zeros((8, 8, 10, MIN_CHANNELS), np.float32)
  assert suits_winograd(even, kernel)
  assert not suits_winograd(even[:, :3], kernel)
  assert not suits_winograd(even[..., 1:], kernel[:, :, 1:])
  assert not suits_winograd(even.astype(np.float16), kernel.astype(np.float16))
  assert not suits_winograd(even, kernel[:1])
  assert not suits_winograd(even[:1], kernel)


def test_a_broken_image_is_isolated_and_kernels_are_not_duplicated():
  module = Conv(MIN_CHANNELS, platform="cpu")
  hidden = np.random.default_rng(0).normal(size=(2, 16, 16, MIN_CHANNELS)).astype(np.float32)
  hidden[0, 0, 0, 0] = np.nan
  variables = jax.jit(module.init)(jax.random.key(0), hidden)
  assert np.isfinite(module.apply(variables, hidden)[1]).all()

  def steps(variables, hidden):
    def step(hidden, _):
      for kernels in variables:
        hidden = module.apply(kernels, hidden)
      return hidden, None

    return jax.lax.scan(step, hidden, None, length=3)[0]

  def temporaries(layers):
    compiled = jax.jit(steps).lower([variables] * layers, hidden).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  # 16 x 128 x 128 floats: the size of one more transformed kernel, if it were kept over the loop.
  assert temporaries(6) - temporaries(3) < 1.5 * 16 * MIN_CHANNELS**2 * 4
