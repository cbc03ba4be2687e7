"""Weights of PIL's filters: fixed point, and equal to PIL's where a pixel lies on the filter's edge."""

import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding.filter_weights import filter_weights


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "hamming"])
def test_weights_have_22_fractional_bits(name):
  weights = filter_weights(61, 7, name).astype(np.float64) * 2**22
  np.testing.assert_array_equal(weights, weights.round())
  assert (weights % 2 == 1).any()
  np.testing.assert_allclose(weights.sum(1) / 2**22, 1, atol=1e-5)


@pytest.mark.parametrize("length", [2, 4, 6, 13, 19, 22, 26, 29, 35, 44])
@pytest.mark.parametrize("size", [7, 12, 24])
def test_a_box_holds_the_same_pixels_as_pils(length, size):
  """These lengths put centers of pixels on the edge of the box up to rounding."""
  pixels = np.random.default_rng(length).integers(0, 256, (1, length), np.uint8)
  wanted = Image.fromarray(pixels).resize((size, 1), Image.Resampling.BOX)
  found = filter_weights(length, size, "box") @ pixels[0].astype(np.float32)
  assert np.abs(np.floor(found + 0.5) - np.asarray(wanted, int)[0]).max() <= 1
