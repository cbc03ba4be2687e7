"""Single-file checkpoints in the original layout: names, configurations from shapes, the same model as a folder."""

import gzip
import hashlib
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from genbench_jax.cells import image_sets
from genbench_jax.config import make_config
from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, open_clip, single_file
from genbench_jax.models.configuration import Settings
from genbench_jax.models.original_autoencoder import VAE_ATTENTION
from genbench_jax.models.original_text import TOWERS
from genbench_jax.models.original_unet import unet_config, unet_names
from genbench_jax.models.stable_diffusion import load_stable_diffusion, open_parts
from genbench_jax.models.unet_config import read_unet_config
from genbench_jax.pipeline.artifacts import image_folder, open_image_set
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.planning.models import diffusion_cost
from genbench_jax.run import Run, pins
from genbench_jax.zoo import tiny

NAMES = Path(__file__).parent.parent / "data" / "single_file_names.json.gz"
# Small versions of Stable Diffusion 2 and XL with heads of 64 channels, like the published ones.
WIDE = {"block_out_channels": [64, 128], "attention_head_dim": [1, 2]}


@pytest.fixture
def wide_autoencoder(monkeypatch):
  """Return an autoencoder whose norms have 32 groups, as in the original code."""
  wide = {"block_out_channels": [32, 64], "norm_num_groups": 32}
  monkeypatch.setattr(tiny, "VAE", tiny.VAE | wide)


@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "stable-diffusion-2.1", "sdxl-base-1.0"])
def test_names_match_diffusers_converter(published, name):
  wanted = json.loads(gzip.decompress(NAMES.read_bytes()))[name]
  assert unet_names(set(published[f"{name}/unet"]["shapes"])) == wanted


@pytest.mark.parametrize(
  "name", ["stable-diffusion-1.5", "stable-diffusion-2.1-base", "sdxl-base-1.0"]
)
def test_configurations_follow_from_the_shapes(published, name):
  record = published[f"{name}/unet"]
  shapes = {
    original: tuple(record["shapes"][ours])
    for original, ours in unet_names(set(record["shapes"])).items()
  }
  tensors = {key: lambda shape=shape: np.broadcast_to(0, shape) for key, shape in shapes.items()}
  found = unet_config(Path(name), tensors, "sdxl" in name)
  configs = [read_unet_config(Settings(config, Path("x"))) for config in (found, record["config"])]
  assert configs[0] == configs[1]


def original_layout(folder, open_clip):
  """Return the tensors of a pipeline's folder under the original code's names."""
  parts = open_parts(folder)
  tensors = {
    single_file.UNET + theirs: parts.weights["unet"][ours]()
    for theirs, ours in unet_names(set(parts.weights["unet"])).items()
  }
  levels = len(parts.configs["vae"].values["block_out_channels"])
  for name, read in parts.weights["vae"].items():
    original = original_vae_name(name, levels)
    tensor = read()
    is_matrix = ".attn_1." in original and tensor.ndim == 2
    tensors[single_file.VAE + original] = tensor[..., None, None] if is_matrix else tensor
  for part, prefix in open_clip.items():
    tower = {name: read() for name, read in parts.weights[part].items()}
    named = to_open_clip(tower) if TOWERS[prefix][1] else tower
    tensors |= {prefix + name: tensor for name, tensor in named.items()}
  return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def original_vae_name(name, levels):
  for index in range(levels):
    name = name.replace(f"up_blocks.{index}.", f"up.{levels - 1 - index}.")
    name = name.replace(f"down_blocks.{index}.", f"down.{index}.")
  for index in range(2):
    name = name.replace(f"mid_block.resnets.{index}.", f"mid.block_{index + 1}.")
  for ours, theirs in VAE_ATTENTION.items():
    name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
  renames = {
    "resnets.": "block.",
    "samplers.0.": "sample.",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
  }
  for ours, theirs in renames.items():
    name = name.replace(ours, theirs)
  return name


def to_open_clip(tower):
  above, found = "text_model.", {}
  found["token_embedding.weight"] = tower[f"{above}embeddings.token_embedding.weight"]
  found["positional_embedding"] = tower[f"{above}embeddings.position_embedding.weight"]
  for leaf in ("weight", "bias"):
    found[f"ln_final.{leaf}"] = tower[f"{above}final_layer_norm.{leaf}"]
    for layer in range(2):
      ours, theirs = f"{above}encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
      for name, original in open_clip.LAYER.items():
        found[f"{theirs}{original}.{leaf}"] = tower[f"{ours}{name}.{leaf}"]
      joined = [tower[f"{ours}self_attn.{x}_proj.{leaf}"] for x in "qkv"]
      found[f"{theirs}attn.in_proj_{leaf}"] = np.concatenate(joined)
  if "text_projection.weight" in tower:
    found["text_projection"] = tower["text_projection.weight"].T
  return found


def write(path, tensors):
  path.parent.mkdir(parents=True, exist_ok=True)
  tiny.write_tokenizer(path.parent / "tokenizer")
  save_file(tensors, path)
  return path


@pytest.mark.slow
def test_an_xl_from_one_file_equals_its_folder(wide_autoencoder, tmp_path):
  # The width 256 of the size embeddings is a constant in the original code.
  sizes = {"addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 24 + 6 * 256}
  folder = tiny.write_tiny_sdxl(tmp_path / "xl", unet=tiny.UNET_XL | WIDE | sizes)
  config = json.loads((folder / "vae" / "config.json").read_text())
  towers = {
    "text_encoder": "conditioner.embedders.0.transformer.",
    "text_encoder_2": "conditioner.embedders.1.model.",
  }
  path = write(tmp_path / "one" / "xl.safetensors", original_layout(folder, towers))
  found, wanted = load_stable_diffusion(path), load_stable_diffusion(folder)
  assert jax.tree.structure(found.params) == jax.tree.structure(wanted.params)
  jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)
  assert found.unet.config.heads == wanted.unet.config.heads
  assert found.towers[1].tokenizer.pad_token == "!" and found.vae_dtype == np.float32
  assert found.vae.config.scaling_factor == 0.13025 and config["scaling_factor"] == 0.5
  assert found.schedule.scheduler == "EulerDiscreteScheduler" and found.zeros_for_empty


def test_a_stable_diffusion_2_omits_its_last_layer(wide_autoencoder, tmp_path):
  folder = tiny.write_tiny_stable_diffusion(tmp_path / "sd", unet=tiny.UNET | WIDE)
  towers = {"text_encoder": "cond_stage_model.model."}
  path = write(tmp_path / "one" / "sd.safetensors", original_layout(folder, towers))
  model = load_stable_diffusion(path)
  assert model.towers[0].network.sizes.encoder.layers == 1
  assert model.towers[0].network.sizes.encoder.activation == "gelu"
  assert model.schedule.prediction_type == "epsilon" and model.towers[0].tokenizer.pad_token == "!"


@pytest.fixture
def one_file(wide_autoencoder, tmp_path):
  shallow = tiny.SHALLOW_UNET | {"block_out_channels": [64], "attention_head_dim": 1}
  folder = tiny.write_tiny_stable_diffusion(tmp_path / "sd", unet=shallow)
  towers = {"text_encoder": "cond_stage_model.transformer."}
  return write(tmp_path / "one" / "sd.safetensors", original_layout(folder, towers))


def run_of(path, workdir):
  values = {
    "datasets": ("shapes",),
    "sources": ("generative",),
    "shots": (1,),
    "generation": {
      "checkpoint": str(path), "steps": 1, "guidance_scale": 1.0, "height": 16, "width": 16, "batch_per_device": 1,
    },
  }  # fmt: skip
  return Run(make_config(values), workdir)


@pytest.mark.slow
def test_a_run_makes_images_of_one_file(one_file, tmp_path):
  run = run_of(one_file, tmp_path / "run")
  run_stages(run.config, run.workdir, ("images",), "a test")
  (key,) = image_sets(run.config)
  assert Image.open(io.BytesIO(open_image_set(run, key)[7].image)).size == (16, 16)


def test_a_file_is_pinned_by_its_checksum_and_named_with_its_tokenizer(one_file, tmp_path):
  run = run_of(one_file, tmp_path / "run")
  (pin,) = [pin for pin in pins(run.config) if pin.checkpoint == str(one_file)]
  checksum = hashlib.sha256(one_file.read_bytes()).hexdigest()
  assert list(pin.lines()) == [f'config.generation.sha256 = "{checksum}"']
  before, folder = run.diffusion_fingerprint, image_folder(run, *image_sets(run.config))
  assert before == open_parts(one_file).fingerprint != checksum
  merges = one_file.parent / "tokenizer" / "merges.txt"
  merges.write_text("\n".join(merges.read_text().splitlines()[:-1]) + "\n")
  other = run_of(one_file, tmp_path / "run")
  assert other.diffusion_fingerprint != before
  assert image_folder(other, *image_sets(other.config)) != folder


def test_the_plan_reads_the_architecture_of_one_file(one_file, tmp_path):
  found = diffusion_cost(run_of(one_file, tmp_path).config.generation)
  assert found.folder == one_file.parent and found.pixels == 16 * 16
  parts = open_parts(one_file)
  tensors = sum(
    read().size for part in ("unet", "text_encoder") for read in parts.weights[part].values()
  )
  # The plan counts matrix products, not norms and biases, and only the decoder of the autoencoder.
  assert found.flops and 0.9 * tensors < found.weights < 2 * tensors


def test_damaged_and_other_files_are_rejected(tmp_path):
  path = write(tmp_path / "a.safetensors", {"model.weight": np.zeros(2, np.float32)})
  with pytest.raises(RunError, match="contains no U-Net in the original layout"):
    open_parts(path)
  path.write_bytes(b"nonsense")
  with pytest.raises(RunError, match="corrupt or cut short"):
    open_parts(path)


@pytest.mark.slow
def test_another_autoencoder_replaces_the_checkpoints(tmp_path):
  folder = tiny.write_tiny_stable_diffusion(tmp_path / "sd")
  other = tiny.write_tiny_stable_diffusion(tmp_path / "other", seed=3)
  plain, changed = open_parts(folder), open_parts(folder, autoencoder=other / "vae")
  assert (
    plain.fingerprint != changed.fingerprint == open_parts(folder, autoencoder=other).fingerprint
  )
  model = load_stable_diffusion(folder, autoencoder=other)
  wanted = load_stable_diffusion(other)
  jax.tree.map(np.testing.assert_array_equal, model.params["vae"], wanted.params["vae"])
  assert checkpoints.fingerprint(folder) == plain.fingerprint
