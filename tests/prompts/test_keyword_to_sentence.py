"""T5 writes sentences: logits, seeds, class names, and errors in checkpoints."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genbench_jax.errors import RunError
from genbench_jax.models.t5 import load_sentence_model
from genbench_jax.models.t5_network import relative_position_bucket
from genbench_jax.prompts.keyword_to_sentence import SENTENCES, write_sentences
from genbench_jax.zoo.tiny import write_tiny_t5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return write_tiny_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def model(folder):
  return load_sentence_model(str(folder))


@pytest.mark.slow
def test_logits_match_pytorch(model):
  golden = np.load(Path(__file__).parent / "t5.npz")
  tokens, mask, written = (jnp.asarray(golden[name]) for name in ("tokens", "mask", "written"))
  found = model.network.apply({"params": model.params}, tokens, mask > 0, written)
  scale = golden["logits"].std()
  np.testing.assert_allclose(found, golden["logits"], atol=1e-4 * scale)


def test_near_tokens_have_separate_biases_and_far_ones_share():
  """Computed by hand for 32 buckets: half per direction, and half of these for exact distances."""
  distance = jnp.array([[0, 1, 7, 8, 11, 12, 127, 128, 500, -1, -7, -8, -500]])
  expected = [[0, 17, 23, 24, 24, 25, 31, 31, 31, 1, 7, 8, 15]]
  assert relative_position_bucket(distance).tolist() == expected
  backwards = jnp.array([[3, 0, -1, -15, -16, -500]])
  assert relative_position_bucket(backwards, False).tolist() == [[0, 0, 1, 15, 16, 31]]


def test_sentences_are_seeded_distinct_and_contain_the_class_name(model):
  dogs = write_sentences(model, "dog", 0, "strict")
  assert dogs == write_sentences(model, "dog", 0, "strict")
  assert dogs != write_sentences(model, "dog", 1, "strict")
  assert len(set(dogs)) == len(dogs) <= SENTENCES["strict"]
  assert len(dogs) > 30
  assert all("dog" in sentence for sentence in dogs)


def test_reference_sentences_are_16_and_parts_are_continued_separately(model):
  assert len(write_sentences(model, "dog", 0, "reference")) == SENTENCES["reference"]
  joined = write_sentences(model, "a dog. the cat.", 0, "reference")
  alone = [model.sample(part, SENTENCES["reference"] + 50, 0) for part in ("a dog", "the cat")]
  assert set(joined) <= {" ".join(filter(None, pair)) for pair in zip(*alone, strict=True)}


def test_copies_of_the_embedding_are_accepted_and_other_tensors_rejected(folder, tmp_path):
  weights = load_file(folder / "model.safetensors")
  for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    (tmp_path / name).write_text((folder / name).read_text())
  copies = dict.fromkeys(
    ("encoder.embed_tokens.weight", "lm_head.weight"), weights["shared.weight"]
  )
  save_file(weights | copies, tmp_path / "model.safetensors")
  load_sentence_model(str(tmp_path))
  save_file(weights | {"stray": weights["shared.weight"]}, tmp_path / "model.safetensors")
  with pytest.raises(RunError, match="stray"):
    load_sentence_model(str(tmp_path))


def test_another_model_or_a_missing_tokenizer_is_named(folder, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
  with pytest.raises(RunError, match="a model of type 'bart', not 't5'"):
    load_sentence_model(str(tmp_path))
  (tmp_path / "config.json").write_text((folder / "config.json").read_text())
  save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors")
  with pytest.raises(RunError, match=r"tokenizer\.json is missing"):
    load_sentence_model(str(tmp_path))
