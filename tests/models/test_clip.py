"""CLIP agrees with PyTorch, and invalid checkpoints are rejected."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.embedding.embedder import image_features, text_features
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.clip import load_clip
from genbench_jax.models.tokenizer import tokenize


def edited(folder, to, edit):
  """Return a copy of a CLIP's folder with an edited `config.json`."""
  shutil.copytree(folder, to)
  config = json.loads((to / "config.json").read_text())
  edit(config)
  (to / "config.json").write_text(json.dumps(config))
  return to


def openai(config):
  config["text_config"]["eos_token_id"] = 2


def openclip(config):
  config["text_config"]["hidden_act"] = config["vision_config"]["hidden_act"] = "gelu"


@pytest.mark.parametrize(
  "name,edit", [("own", lambda _: None), ("openai", openai), ("openclip", openclip)]
)
def test_features_match_pytorch(
  tiny_clip_folder, golden_clip, one_device_mesh, tmp_path, name, edit
):
  clip = load_clip(edited(tiny_clip_folder, tmp_path / name, edit))
  np.testing.assert_array_equal(
    tokenize(clip.tokenizer, golden_clip["texts"].tolist(), clip.max_tokens), golden_clip["tokens"]
  )
  images = image_features(clip, golden_clip["pixels"], one_device_mesh)
  texts = text_features(clip, golden_clip["texts"].tolist(), one_device_mesh)
  # Features have magnitude one to three.
  np.testing.assert_allclose(images, golden_clip[f"{name}/image"], atol=1e-5)
  np.testing.assert_allclose(texts, golden_clip[f"{name}/text"], atol=1e-5)
  assert np.abs(golden_clip["own/image"] - golden_clip["openclip/image"]).max() > 1e-2


def test_model_attributes(tiny_clip):
  assert (tiny_clip.image_size, tiny_clip.max_tokens) == (32, 24)
  np.testing.assert_allclose(tiny_clip.image_mean, [0.48145466, 0.4578275, 0.40821073])
  np.testing.assert_allclose(tiny_clip.image_std, [0.26862954, 0.26130258, 0.27577711])


def test_openais_preprocessing_is_the_default(tiny_clip_folder, tiny_clip, tmp_path):
  folder = edited(tiny_clip_folder, tmp_path / "clip", lambda _: None)
  (folder / "preprocessor_config.json").unlink()
  clip = load_clip(folder)
  assert (clip.image_size, clip.image_mean) == (tiny_clip.image_size, tiny_clip.image_mean)


def test_bfloat16_is_close(tiny_clip_folder, golden_clip, one_device_mesh):
  clip = load_clip(tiny_clip_folder, dtype=jnp.bfloat16)
  features = image_features(clip, golden_clip["pixels"], one_device_mesh)
  wanted = golden_clip["own/image"]
  assert features.dtype == np.float32
  cosine = (
    np.sum(features * wanted, -1)
    / np.linalg.norm(features, axis=-1)
    / np.linalg.norm(wanted, axis=-1)
  )
  assert cosine.min() > 0.999


def test_other_models_are_rejected(tiny_clip_folder, tmp_path):
  other = edited(tiny_clip_folder, tmp_path / "t5", lambda config: config.update(model_type="t5"))
  with pytest.raises(RunError, match="type 't5', not 'clip'"):
    load_clip(other)
  large = edited(tiny_clip_folder, tmp_path / "large", lambda _: None)
  (large / "preprocessor_config.json").write_text('{"crop_size": {"height": 64, "width": 64}}')
  with pytest.raises(RunError, match="crops to 64 pixels, but the model takes 32"):
    load_clip(large)


def test_missing_parts_are_named(tiny_clip_folder, tmp_path):
  with pytest.raises(UsageError, match="no checkpoint at"):
    load_clip(str(tmp_path / "nothing"))
  folder = edited(tiny_clip_folder, tmp_path / "clip", lambda _: None)
  (folder / "merges.txt").unlink()
  with pytest.raises(RunError, match=r"merges\.txt is missing"):
    load_clip(folder)
