"""Defaults of retrieval."""

import dataclasses

from genbench_jax.retrieval.settings import Retrieval


def test_the_defaults_of_retrieval():
  assert dataclasses.asdict(Retrieval()) == {
    "pool": "", "image_root": "", "queries": "text_to_text", "query_shots": 1, "images_per_prompt": 30,
    "ranking": "mean", "duplicate_threshold": 0.97, "leak_threshold": 0.95, "recall_target": 1,
  }  # fmt: skip
