"""New tokens: texts that contain them, files in diffusers' format, and the text tower."""

import copy
import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken

from genbench_jax.diffusion.inversion.embeddings import (
  FILE_NAME,
  LearnedEmbeddings,
  load_embedding,
  load_learned,
  save_embedding,
  tokenize_with,
)
from genbench_jax.diffusion.text import TextEncoder
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.diffusion_model import apply_text_encoders
from genbench_jax.models.tokenizer import tokenize

TEXTS = (
  "a photo of a <cat> cat.",
  "<cat>",
  "",
  "no new token",
  "<cat><dog-2> <cat>, a <DOG-2> photo",
  "a <cat" + " very long text" * 20,
)


@pytest.fixture(scope="module")
def learned():
  rows = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
  return LearnedEmbeddings({"<cat>": rows[:1], "<dog-2>": rows[1:2]})


def test_placeholders_are_one_id_and_all_else_is_as_transformers_has_it(tiny_diffusion):
  extended = copy.deepcopy(tiny_diffusion.tokenizer)
  extended.add_tokens([AddedToken(name, normalized=False) for name in ("<cat>", "<dog-2>")])
  names = {name: [extended.convert_tokens_to_ids(name)] for name in ("<cat>", "<dog-2>")}
  found = tokenize_with(tiny_diffusion.tokenizer, names, TEXTS, tiny_diffusion.max_tokens)
  np.testing.assert_array_equal(found, tokenize(extended, TEXTS, tiny_diffusion.max_tokens))
  assert "<cat>" not in tiny_diffusion.tokenizer.get_vocab()


def test_hostile_placeholders_are_taken_by_the_letter(tiny_diffusion):
  ids = {"a.*": [900], "a.*b": [901, 902], "(": [903], "\\": [904]}
  found = tokenize_with(tiny_diffusion.tokenizer, ids, ["a.*b a.* axx ( \\"], 24)[0].tolist()
  new = [token for token in found if token >= 900]
  assert new == [901, 902, 900, 903, 904]


def test_texts_are_cut_to_the_models_length(tiny_diffusion):
  found = tokenize_with(tiny_diffusion.tokenizer, {"<cat>": [900]}, ["<cat> " * 100], 24)[0]
  end = tiny_diffusion.tokenizer.eos_token_id
  assert found.tolist() == [tiny_diffusion.tokenizer.bos_token_id, *[900] * 22, end]


def test_the_tower_sees_the_new_rows_as_if_they_stood_in_its_table(tiny_diffusion, learned):
  (tower,) = tiny_diffusion.towers
  ids = learned.ids(tower.vocabulary)
  tokens = tokenize_with(tower.tokenizer, ids, TEXTS, tiny_diffusion.max_tokens)
  params = tiny_diffusion.params["text_encoder"]
  found = apply_text_encoders([tower], {"text_encoder": params}, [tokens], [learned.table])
  sizes = dataclasses.replace(tower.network.sizes, vocabulary=tower.vocabulary + 2)
  larger = dataclasses.replace(tower, network=tower.network.clone(sizes=sizes))
  name = "embeddings.token_embedding"
  table = np.concatenate([params["text_model"][name]["weight"], learned.table])
  grown = {"text_model": {**params["text_model"], name: {"weight": table}}}
  wanted = apply_text_encoders([larger], {"text_encoder": grown}, [tokens])
  np.testing.assert_array_equal(found.states, wanted.states)


def test_the_encoder_knows_placeholders_and_leaves_other_prompts_alone(
  tiny_diffusion, learned, one_device_mesh
):
  texts = ["a photo of a <cat> cat", "a photo"]
  plain = TextEncoder(tiny_diffusion, one_device_mesh)(texts).states
  found = TextEncoder(tiny_diffusion, one_device_mesh, learned=learned)(texts).states
  np.testing.assert_allclose(found[1], plain[1], atol=1e-6)
  assert np.abs(found[0] - plain[0]).max() > 0.1


def test_files_without_a_placeholder_are_called_by_their_names(tmp_path):
  draw = np.random.default_rng(0)
  vectors = draw.standard_normal((2, 4)).astype(np.float32)
  save_file({"emb_params": vectors}, tmp_path / "mystar.safetensors")
  name, found = load_embedding(tmp_path / "mystar.safetensors")
  assert name == "mystar"
  np.testing.assert_array_equal(found, vectors)
  towers = {"clip_l": vectors[:, :3].copy(), "clip_g": vectors}
  save_file(towers, tmp_path / "twin.safetensors")
  name, found = load_embedding(tmp_path / "twin.safetensors")
  assert name == "twin" and found.shape == (2, 7)
  np.testing.assert_array_equal(found, np.concatenate([vectors[:, :3], vectors], axis=1))
  save_file({"clip_l": vectors[:1], "clip_g": vectors}, tmp_path / "odd.safetensors")
  with pytest.raises(RunError, match="different numbers of vectors"):
    load_embedding(tmp_path / "odd.safetensors")


def test_two_files_with_one_placeholder_are_refused(tmp_path):
  for name in ("one", "two"):
    save_embedding(tmp_path / f"{name}.safetensors", "<thing>", np.ones(4, np.float32))
  with pytest.raises(UsageError, match="'<thing>' also occurs in another file"):
    load_learned([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])


def test_two_towers_have_a_tensor_each(tmp_path):
  vector = np.arange(7, dtype=np.float32)
  save_embedding(tmp_path / FILE_NAME, "<a>", vector, (3, 4))
  assert {k: v.shape for k, v in load_file(tmp_path / FILE_NAME).items()} == {
    "clip_l": (3,),
    "clip_g": (4,),
  }
  name, found = load_embedding(tmp_path)
  assert name == "<a>"
  np.testing.assert_array_equal(found[0], vector)


def test_a_file_is_what_diffusers_reads(tmp_path):
  vector = np.arange(4, dtype=np.float32)
  save_embedding(tmp_path / "a" / FILE_NAME, "<a>", vector)
  tensors = load_file(tmp_path / "a" / FILE_NAME)
  assert list(tensors) == ["<a>"]
  np.testing.assert_array_equal(tensors["<a>"], vector)
  for path in (tmp_path / "a", tmp_path / "a" / FILE_NAME):
    name, vectors = load_embedding(path)
    assert name == "<a>" and vectors.shape == (1, 4)


def test_files_without_an_embedding_are_rejected(tmp_path):
  with pytest.raises(UsageError, match="0 safetensors files"):
    load_embedding(tmp_path)
  (tmp_path / "learned_embeds.bin").write_bytes(b"pickle")
  with pytest.raises(UsageError, match="pickles are never opened"):
    load_embedding(tmp_path)
  path = tmp_path / FILE_NAME
  path.write_bytes(b"nonsense")
  with pytest.raises(RunError, match="can't be read as safetensors"):
    load_embedding(path)
  save_file({"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}, path)
  with pytest.raises(RunError, match="has 2 tensors"):
    load_embedding(path)
  save_file({"a": np.zeros((2, 3, 4), np.float32)}, path)
  with pytest.raises(RunError, match="shape"):
    load_embedding(path)


@pytest.mark.parametrize("name", ["", " x", "x "])
def test_placeholders_without_a_name_are_refused(name):
  with pytest.raises(UsageError, match="is empty, or begins or ends"):
    LearnedEmbeddings({name: np.zeros((1, 4), np.float32)})


def test_embeddings_of_another_model_and_known_tokens_are_refused(tiny_diffusion, one_device_mesh):
  wide = LearnedEmbeddings({"<a>": np.zeros((1, 33), np.float32)})
  with pytest.raises(UsageError, match="33 wide, but the model's tokens are 32"):
    TextEncoder(tiny_diffusion, one_device_mesh, learned=wide)
  known = LearnedEmbeddings({"photo</w>": np.zeros((1, 32), np.float32)})
  with pytest.raises(UsageError, match="is already a token of the model"):
    TextEncoder(tiny_diffusion, one_device_mesh, learned=known)


def test_fingerprints_tell_embeddings_apart(learned):
  other = dataclasses.replace(learned, vectors={k: v + 1 for k, v in learned.vectors.items()})
  assert learned.fingerprint != other.fingerprint
  assert learned.fingerprint == dataclasses.replace(learned).fingerprint
