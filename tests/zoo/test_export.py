"""Exporting the trained weights gives the files that ship."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import load_file

from genbench_jax.models.checkpoints import ZOO
from genbench_jax.models.clip import load_clip
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.zoo import export
from genbench_jax.zoo.train import _once


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  """What the command writes from a work folder with the weights that ship."""
  work = tmp_path_factory.mktemp("zoo")
  diffusion = load_stable_diffusion("zoo/diffusion").params
  for name, params in (
    ("clip", load_clip("zoo/clip").params), ("vae", diffusion["vae"]), ("unet", diffusion["unet"]),
  ):  # fmt: skip
    plain = jax.tree.map(np.asarray, params)
    (work / f"{name}.msgpack").write_bytes(serialization.msgpack_serialize(plain))
  shutil.copytree(ZOO / "diffusion" / "tokenizer", work / "tokenizer")
  (work / "tokenizer" / "tokenizer.json").write_text("{}")  # rebuilt by loading, so not copied
  config = json.loads((ZOO / "diffusion" / "vae" / "config.json").read_text())
  (work / "scale.txt").write_text(f"{config['scaling_factor']}\n")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", ["export", "--work", str(work), "--out", str(work / "out")])
    export.main()
  return work / "out"


@pytest.mark.parametrize("model", ["clip", "diffusion"])
def test_the_same_files_are_written(exported, model):
  found, shipped = (
    {path.relative_to(root / model) for path in (root / model).rglob("*") if path.is_file()}
    for root in (exported, ZOO)
  )
  assert found == shipped


@pytest.mark.parametrize("model", ["clip", "diffusion"])
def test_they_have_the_same_content(exported, model):
  for path in (ZOO / model).rglob("*"):
    other = exported / path.relative_to(ZOO)
    if path.name == "config.json":
      continue  # those that ship were written by transformers, with further keys
    if path.suffix == ".json":
      assert json.loads(other.read_text()) == json.loads(path.read_text()), path
    elif path.suffix == ".safetensors":
      ours, theirs = load_file(other), load_file(path)
      assert ours.keys() == theirs.keys()
      for name, tensor in theirs.items():
        assert ours[name].dtype == np.float16
        np.testing.assert_array_equal(ours[name], tensor, err_msg=f"{path} {name}")
    elif path.is_file():
      assert other.read_bytes() == path.read_bytes(), path


def test_configurations_describe_the_same_networks(exported):
  clip, ours = load_clip("zoo/clip"), load_clip(exported / "clip")
  assert (ours.module, ours.image_size, ours.image_mean) == (clip.module, clip.image_size, clip.image_mean)  # fmt: skip
  diffusion, ours = (load_stable_diffusion(place) for place in ("zoo/diffusion", exported / "diffusion"))  # fmt: skip
  assert ours.unet.config == diffusion.unet.config and ours.vae.config == diffusion.vae.config
  assert ours.towers[0].network.sizes == diffusion.towers[0].network.sizes
  assert ours.schedule.settings == diffusion.schedule.settings


def test_weights_are_made_once(tmp_path):
  calls = []

  def make():
    calls.append(1)
    return {"a": jax.numpy.arange(3.0)}

  for _ in range(2):
    found = _once(tmp_path / "a.msgpack", make)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
  assert len(calls) == 1
  assert [path.name for path in tmp_path.iterdir()] == ["a.msgpack"]
