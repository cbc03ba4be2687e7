"""Published checkpoints map completely, broken ones are named, and nothing is unpickled."""

import gzip
import importlib
import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from safetensors.numpy import load_file, save_file

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import checkpoints, flax_names, weights
from genbench_jax.models.checkpoints import fingerprint, locate
from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_stable_diffusion

KEYS = Path(__file__).parents[1] / "data" / "state_dict_keys.json.gz"


@pytest.fixture(scope="module")
def published():
  return json.loads(gzip.decompress(KEYS.read_bytes()))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
  return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def diffusion_folder(tmp_path_factory):
  return write_tiny_stable_diffusion(tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def clip_shapes(clip_folder):
  from genbench_jax.models.clip import parameter_shapes

  return parameter_shapes(clip_folder)


@pytest.fixture
def folder(clip_folder, tmp_path):
  """A copy of the tiny CLIP, to be damaged."""
  return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def load_params(folder, shapes):
  return weights.load(checkpoints.read_weights(folder), shapes, folder)


def write_config(path, config):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(config))


def expected(shapes):
  return {name: tuple(shape) for name, shape in shapes.items() if "position_ids" not in name}


# ---- published checkpoints ----------------------------------------------------------------------


@pytest.mark.parametrize(
  ("model", "name"), [("clip", "clip-vit-base-patch32"), ("dinov2", "dinov2-base")]
)
def test_the_shapes_of_a_folder_are_those_of_its_configuration(published, tmp_path, model, name):
  """The tensors of all published models are in test_clip_network.py and test_encoders.py."""
  module = importlib.import_module(f"genbench_jax.models.{model}")
  write_config(tmp_path / "config.json", published[name]["config"])
  found = weights.torch_shapes(module.parameter_shapes(tmp_path))
  assert found == expected(published[name]["shapes"])


def test_text_encoders_of_transformers_5_lack_a_prefix(published):
  names = published["stable-diffusion-1.5/text_encoder"]["shapes"]
  assert {checkpoints._today(name.removeprefix("text_model.")) for name in names} == set(names)
  others = [key for key in published if not key.endswith("text_encoder")]
  assert all(checkpoints._today(n) == n for key in others for n in published[key]["shapes"])


def test_old_names_of_the_autoencoders_attention_are_mapped():
  old = "encoder.mid_block.attentions.0."
  assert checkpoints._today(f"{old}proj_attn.bias") == f"{old}to_out.0.bias"
  assert checkpoints._today(f"{old}query.weight") == f"{old}to_q.weight"
  assert checkpoints._today(f"{old}group_norm.weight") == f"{old}group_norm.weight"


# ---- round trips --------------------------------------------------------------------------------


def leaves(tree):
  return dict(weights.leaves(tree))


def assert_equal_trees(tree, other):
  assert leaves(tree).keys() == leaves(other).keys()
  for path, leaf in leaves(tree).items():
    np.testing.assert_array_equal(leaf, leaves(other)[path], err_msg=path)


def test_round_trip_is_bit_exact(clip_folder, clip_shapes, tmp_path):
  params = load_params(clip_folder, clip_shapes)
  save_file(weights.to_torch(params), tmp_path / "model.safetensors")
  assert_equal_trees(load_params(tmp_path, clip_shapes), params)
  original = load_file(clip_folder / "model.safetensors")
  again = load_file(tmp_path / "model.safetensors")
  assert original.keys() == again.keys()
  assert all(np.array_equal(original[name], again[name]) for name in original)


def test_layouts_match_pytorch():
  kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
  tree = {"conv_1": {"kernel": kernel, "bias": np.ones(5)}, "fc": {"kernel": kernel[0, 0]}}
  state = flax_names.torch_state(tree)
  assert state["conv.1.weight"].shape == (5, 4, 2, 3)
  assert state["conv.1.weight"][4, 1, 0, 2] == kernel[0, 2, 1, 4]
  np.testing.assert_array_equal(state["fc.weight"], kernel[0, 0].T)
  assert all(tensor.flags.c_contiguous for tensor in state.values())


def as_stock_flax(state):
  """Return a tree like those of transformers' former Flax classes, which hub folders contain as msgpack."""
  tree = {}
  for name, tensor in state.items():
    *modules, leaf = name.split(".")
    if leaf == "weight":
      table = weights.is_table(".".join(modules)) and tensor.ndim == 2
      leaf = "embedding" if table else "scale" if tensor.ndim == 1 else "kernel"
      if leaf == "kernel":
        tensor = tensor.transpose({2: (1, 0), 4: (2, 3, 1, 0)}[tensor.ndim])
    node = tree
    for module in modules:
      node = node.setdefault(module, {})
    node[leaf] = tensor
  return tree


# ---- file formats -------------------------------------------------------------------------------


def test_sharded_half_precision_and_msgpack_files_load(folder, clip_shapes):
  params = load_params(folder, clip_shapes)
  state = load_file(folder / "model.safetensors")
  (folder / "model.safetensors").unlink()

  names = sorted(state)
  shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
  for shard, part in shards.items():
    save_file({name: state[name] for name in part}, folder / shard)
  index = {name: shard for shard, part in shards.items() for name in part}
  index_file = folder / "model.safetensors.index.json"
  index_file.write_text(json.dumps({"weight_map": index}))
  assert_equal_trees(load_params(folder, clip_shapes), params)
  index_file.unlink()

  halves = {name: tensor.astype(np.float16) for name, tensor in state.items()}
  save_file(halves, folder / "model.fp16.safetensors")
  loaded = load_params(folder, clip_shapes)
  assert all(leaf.dtype == np.float32 for leaf in leaves(loaded).values())
  np.testing.assert_array_equal(
    loaded["visual_projection"]["weight"],
    params["visual_projection"]["weight"].astype(np.float16).astype(np.float32),
  )
  (folder / "model.fp16.safetensors").unlink()

  (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(as_stock_flax(state)))
  assert_equal_trees(load_params(folder, clip_shapes), params)


def test_bfloat16_files_load(folder, clip_shapes):
  state = load_file(folder / "model.safetensors")
  brief = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in state.items()}
  save_file(brief, folder / "model.safetensors")
  kernel = load_params(folder, clip_shapes)["text_projection"]["weight"]
  np.testing.assert_array_equal(kernel, brief["text_projection.weight"].astype(np.float32).T)


def test_stored_position_ids_are_ignored(folder, clip_shapes):
  state = load_file(folder / "model.safetensors")
  state["text_model.embeddings.position_ids"] = np.arange(24)[None]
  save_file(state, folder / "model.safetensors")
  load_params(folder, clip_shapes)


# ---- broken checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize(
  "change,message",
  [
    (lambda state: state.pop("logit_scale"), r"lacks logit_scale"),
    (lambda state: state.update(extra=np.zeros(2)), r"no place for: extra"),
    (
      lambda state: state.update({"visual_projection.weight": np.zeros((16, 31), np.float32)}),
      r"wrong shape: visual_projection\.weight \(in JAX's layout \(31, 16\), expected \(32, 16\)\)",
    ),
  ],
)
def test_missing_extra_and_misshapen_tensors_are_named(folder, clip_shapes, change, message):
  state = load_file(folder / "model.safetensors")
  change(state)
  save_file(state, folder / "model.safetensors")
  with pytest.raises(RunError, match=message):
    load_params(folder, clip_shapes)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_corrupt_files_are_named(folder, clip_shapes, content):
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
  with pytest.raises(RunError, match=r"model\.safetensors is corrupt or cut short"):
    load_params(folder, clip_shapes)


def test_corrupt_msgpack_is_named(folder, clip_shapes):
  (folder / "model.safetensors").unlink()
  (folder / "flax_model.msgpack").write_bytes(b"\xc1 nonsense")
  with pytest.raises(RunError, match=r"flax_model\.msgpack is corrupt"):
    load_params(folder, clip_shapes)


def test_missing_shards_are_named_and_indices_stay_in_their_folder(folder, clip_shapes):
  (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {"logit_scale": "../outside.safetensors"}}))
  with pytest.raises(RunError, match=r"missing: outside\.safetensors"):
    load_params(folder, clip_shapes)


def test_pickles_are_never_opened(folder, clip_shapes):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/no'\ntR.")
  with pytest.raises(
    RunError, match=r"only as pickles \(pytorch_model\.bin\), which are never opened"
  ):
    load_params(folder, clip_shapes)
  (folder / "pytorch_model.bin").unlink()
  with pytest.raises(RunError, match="has no weights"):
    load_params(folder, clip_shapes)


@pytest.mark.parametrize(
  "text,message",
  [
    ("{", "not valid JSON"),
    ("[]", "not contain a JSON object"),
    ('{"a":' + "9" * 5000 + "}", "not valid JSON"),
    ('{"a":' + "[" * 200000, "not valid JSON"),
  ],
  ids=["cut", "list", "digits", "nest"],
)
def test_broken_configurations_are_named(folder, text, message):
  (folder / "config.json").write_text(text)
  with pytest.raises(RunError, match=message):
    checkpoints.read_json(folder / "config.json")


def test_pipes_are_rejected_without_waiting(folder):
  (folder / "config.json").unlink()
  os.mkfifo(folder / "config.json")
  with pytest.raises(RunError, match=r"config\.json is not a regular file"):
    checkpoints.read_json(folder / "config.json")


@pytest.mark.parametrize("index", ['{"weight_map": [1]}', "{}"])
def test_an_index_without_a_map_is_named(folder, clip_shapes, index):
  (folder / "model.safetensors").unlink()
  (folder / "model.safetensors.index.json").write_text(index)
  with pytest.raises(RunError, match="no `weight_map`"):
    load_params(folder, clip_shapes)


def test_unsupported_architectures_are_rejected(diffusion_folder, tmp_path):
  from genbench_jax.models.stable_diffusion import load_stable_diffusion

  copy = Path(shutil.copytree(diffusion_folder, tmp_path / "copy"))
  original = json.loads((copy / "unet" / "config.json").read_text())
  write_config(copy / "unet" / "config.json", original | {"class_embed_type": "timestep"})
  with pytest.raises(RunError, match="class_embed_type is 'timestep'; only None is supported"):
    load_stable_diffusion(copy)
  write_config(copy / "unet" / "config.json", original | {"in_channels": 9})
  with pytest.raises(RunError, match="inpainting and depth models are not supported"):
    load_stable_diffusion(copy)


# ---- location -----------------------------------------------------------------------------------


def test_only_safe_files_are_downloaded_at_the_pinned_revision(monkeypatch, tmp_path):
  from genbench_jax.models.clip import DOWNLOADS

  asked = {}

  def download(name, **options):
    asked.update(options, name=name)
    return str(tmp_path)

  monkeypatch.setattr("huggingface_hub.snapshot_download", download)
  assert checkpoints.locate("owner/model", "abc123", DOWNLOADS) == tmp_path
  assert asked["name"] == "owner/model" and asked["revision"] == "abc123"
  assert not any(".bin" in pattern or pattern.endswith("*") for pattern in asked["allow_patterns"])


def test_being_offline_gives_one_line(monkeypatch):
  from huggingface_hub.errors import LocalEntryNotFoundError

  def download(*_, **__):
    raise LocalEntryNotFoundError("no network, and a long story")

  monkeypatch.setattr("huggingface_hub.snapshot_download", download)
  with pytest.raises(UsageError) as error:
    checkpoints.locate("owner/model", "abc123")
  assert "'owner/model' at revision 'abc123'" in str(error.value)
  assert "path of a downloaded folder" in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "a/b/c", "../../etc/passwd x"])
def test_impossible_checkpoint_names_are_rejected(name):
  with pytest.raises(UsageError, match="no checkpoint at"):
    checkpoints.locate(name)


# ---- identity -----------------------------------------------------------------------------------


def test_fingerprint_depends_on_content_not_location(clip_folder, folder):
  assert fingerprint(folder) == fingerprint(clip_folder)
  state = load_file(folder / "model.safetensors")
  state["logit_scale"] = np.array(5, np.float32)
  save_file(state, folder / "model.safetensors")
  assert fingerprint(folder) != fingerprint(clip_folder)


def test_fingerprint_of_a_pipeline_covers_every_part(diffusion_folder, tmp_path):
  copy = Path(shutil.copytree(diffusion_folder, tmp_path / "copy"))
  seen = {fingerprint(copy)}
  for part in ("scheduler/scheduler_config.json", "tokenizer/vocab.json", "unet/config.json"):
    path = copy / part
    path.write_text(path.read_text() + "\n")
    seen.add(fingerprint(copy))
  (copy / "tokenizer_2").mkdir()
  for part in ("tokenizer_2/vocab.json", "tokenizer_2/spiece.model"):
    (copy / part).write_text("{}")
    seen.add(fingerprint(copy))
  assert len(seen) == 6
  (copy / ".cache").mkdir()
  (copy / ".cache" / "download.json").write_text("{}")
  assert fingerprint(copy) in seen


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux")
def test_files_do_not_stay_mapped(clip_folder):
  """Pages of a mapped file count as memory of the process: a full-size model would exist twice."""
  reads = checkpoints.read_weights(clip_folder)
  tensors = [read() for read in reads.values()]
  assert tensors
  assert "model.safetensors" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer/tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_broken_file_is_not_taken_for_a_missing_one(tmp_path, name, kind):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  (tmp_path / ".cache.json").symlink_to("nowhere")
  assert locate(str(tmp_path)) == tmp_path
  path.symlink_to("nowhere") if kind == "link" else os.mkfifo(path)
  with pytest.raises(RunError, match=f"{name} is a broken link or not a regular file"):
    locate(str(tmp_path))
