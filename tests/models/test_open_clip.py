"""OpenCLIP's own layout agrees with OpenCLIP on random weights, and other models are rejected by name."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genbench_jax.embedding.embedder import image_features
from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.clip import Clip, load_clip
from genbench_jax.models.image_encoder import load_image_encoder
from genbench_jax.models.open_clip import load_open_clip
from genbench_jax.zoo.tiny import random_weights, write_tiny_clip, write_tokenizer


@pytest.fixture(scope="module")
def golden(load_golden):
  return load_golden("golden_open_clip")


def written(folder, golden, **model):
  """Write a checkpoint in OpenCLIP's layout; return its folder."""
  write_tokenizer(folder)
  config = {
    "model_cfg": json.loads(str(golden["model"])) | model,
    "preprocess_cfg": {"mean": [0.5] * 3},
  }
  (folder / "open_clip_config.json").write_text(json.dumps(config))
  shapes = {name: tuple(shape) for name, shape in json.loads(str(golden["shapes"])).items()}
  tensors = random_weights(shapes)
  save_file(tensors, folder / "open_clip_model.safetensors")
  return folder


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
  return written(tmp_path_factory.mktemp("open") / "clip", golden)


@pytest.mark.parametrize("quick", [False, True])
def test_features_match_openclip(golden, folder, tmp_path, one_device_mesh, quick):
  place = written(tmp_path / "quick", golden, quick_gelu=True) if quick else folder
  clip = load_image_encoder(place)
  assert isinstance(clip, Clip)
  name = "quick" if quick else "gelu"
  found = image_features(clip, golden["pixels"], one_device_mesh)
  texts = clip.embed_tokens(clip.params, golden["tokens"].astype(np.int32))
  for features, wanted in ((found, golden[f"{name}/image"]), (texts, golden[f"{name}/text"])):
    assert np.abs(features - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_preprocessing_follows_the_configuration(folder):
  clip = load_open_clip(folder)
  assert clip.input.mean == (0.5, 0.5, 0.5) and clip.input.keep_aspect and clip.input.size == 32
  assert clip.input.std == pytest.approx((0.26862954, 0.26130258, 0.27577711))
  assert load_image_encoder(f"openclip:{folder}").fingerprint == clip.fingerprint
  assert clip.tokenize(["a photo"]).shape == (1, 24)


def test_other_weights_are_another_checkpoint(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / "copy")
  assert checkpoints.fingerprint(copy) == checkpoints.fingerprint(folder)
  path = copy / "open_clip_model.safetensors"
  tensors = load_file(path)
  tensors["ln_final.bias"] += 1
  save_file(tensors, path)
  assert checkpoints.fingerprint(copy) != checkpoints.fingerprint(folder)


def test_a_folder_with_both_layouts_is_read_as_transformers(golden, tmp_path):
  both = written(write_tiny_clip(tmp_path / "both"), golden)
  assert load_image_encoder(both).input == load_clip(both).input


def change(folder, part, **settings):
  path = folder / "open_clip_config.json"
  config = json.loads(path.read_text())
  (config["model_cfg"][part] if part else config["model_cfg"]).update(settings)
  path.write_text(json.dumps(config))


def without(folder, name):
  path = folder / "open_clip_model.safetensors"
  tensors = load_file(path)
  del tensors[name]
  save_file(tensors, path)


@pytest.mark.parametrize(
  "break_it,message",
  [
    (lambda f: change(f, "vision_cfg", timm_model_name="vit"), "vision_cfg.timm_model_name is 'vit'"),
    (lambda f: change(f, "text_cfg", hf_model_name="roberta"), "only the towers of CLIP"),
    (lambda f: change(f, "vision_cfg", layers=[3, 4, 6, 3]), "layers is .3, 4, 6, 3.; expected a whole"),
    (lambda f: change(f, "vision_cfg", pool_type="avg"), "pool_type is 'avg'; only the towers"),
    (lambda f: change(f, "vision_cfg", head_width=64), "num_attention_heads is 0; expected a whole"),
    (lambda f: change(f, "", embed_dim=None), "embed_dim is None; expected a whole number"),
    (lambda f: without(f, "visual.ln_pre.bias"), r"lacks 'visual\.ln_pre\.bias'"),
    (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"x"), "is corrupt or cut short"),
  ],
)  # fmt: skip
def test_other_models_give_one_line(folder, tmp_path, break_it, message):
  copy = shutil.copytree(folder, tmp_path / "copy")
  break_it(copy)
  with pytest.raises(RunError, match=message):
    load_open_clip(copy)
