import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.testing import write_tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
  return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def png():
  """seed -> the bytes of a small image."""

  def encoded(seed, side=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()

  return encoded
