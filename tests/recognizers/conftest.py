"""A tiny CLIP with random weights, shared by the tests of prompt tuning."""

import pytest


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory):
  from genbench_jax.testing import write_tiny_clip

  return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_folder):
  from genbench_jax.clip.model import load_clip

  return load_clip(tiny_clip_folder)
