"""Defaults of an encoder."""

import dataclasses

from genbench_jax.embedding.settings import Encoder


def test_the_defaults_of_an_encoder():
  assert dataclasses.asdict(Encoder()) == {
    "checkpoint": "zoo/clip", "revision": "", "sha256": "", "batch_per_device": 64,
  }  # fmt: skip
