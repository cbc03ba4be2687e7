"""The tiny CLIP and what PyTorch made of the same weights."""

from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def golden():
  with np.load(DATA / "golden_clip.npz") as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
  from genbench_jax.testing import write_tiny_clip

  return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def tiny(tiny_folder):
  from genbench_jax.clip.model import load_clip

  return load_clip(tiny_folder)
