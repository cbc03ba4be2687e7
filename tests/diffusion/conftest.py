"""The tiny model and what PyTorch made of the same weights."""

from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def golden():
  with np.load(DATA / "golden_diffusion.npz") as file:
    return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
  from genbench_jax.testing import write_tiny_stable_diffusion

  return write_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "epsilon")


@pytest.fixture(scope="session")
def tiny(tiny_folder):
  from genbench_jax.diffusion.model import load_stable_diffusion

  return load_stable_diffusion(tiny_folder)
