"""SDXL and the few-step families against PyTorch's pipelines on the same random weights (tools/golden_families.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.diffusion.generate import keys_of
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import UsageError
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.zoo.tiny import (
  UNET,
  write_tiny_lora,
  write_tiny_sdxl,
  write_tiny_stable_diffusion,
)

with np.load(Path(__file__).parent.parent / "data" / "golden_families.npz") as file:
  GOLDEN = {name: file[name] for name in file.files}
CASES = json.loads(str(GOLDEN["cases"]))
STEPS = 4
NAMES = {
  "EulerDiscrete": "euler",
  "EulerAncestralDiscrete": "euler_ancestral",
  "DDIM": "ddim",
  "TCD": "tcd",
  "LCM": "lcm",
  "DPMSolverMultistep": "dpmsolver++",
}


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory):
  return write_tiny_sdxl(tmp_path_factory.mktemp("families") / "xl")


@pytest.fixture(scope="module")
def lora_files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("loras")
  return {
    "peft": write_tiny_lora(folder / "peft.safetensors"),
    "kohya": write_tiny_lora(folder / "kohya.safetensors", kohya=True, seed=6),
  }


@pytest.fixture(scope="module")
def models(tmp_path_factory, xl_folder):
  folder = tmp_path_factory.mktemp("families")
  lcm = UNET | {"time_cond_proj_dim": 16}
  folders = {
    "sd": write_tiny_stable_diffusion(folder / "sd"),
    "xl": xl_folder,
    "lcm": write_tiny_stable_diffusion(folder / "lcm", unet=lcm),
  }
  return {kind: load_stable_diffusion(each) for kind, each in folders.items()}


def step_noise(evaluations):
  """PyTorch's draws, channels last."""
  draws = np.random.default_rng(11).standard_normal((STEPS, 2, 8, 8, 8), np.float32)
  return draws.transpose(0, 1, 3, 4, 2)[:evaluations]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_images_are_pytorchs(models, one_device_mesh, name):
  kind, scheduler, settings, guidance, negative, options = CASES[name]
  steps = options.get("num_inference_steps", STEPS)
  given = {key: options[key] for key in ("eta", "guidance_rescale", "timesteps") if key in options}
  sampler = Sampler(
    models[kind],
    one_device_mesh,
    2,
    steps,
    guidance,
    NAMES[scheduler],
    scheduler_settings=settings,
    **given,
  )
  negatives = GOLDEN["negative_prompts"].tolist() if negative else ["", ""]
  noise = step_noise(sampler.evaluations)
  made = sampler(GOLDEN["prompts"].tolist(), negatives, None, GOLDEN["start"], noise)
  wanted = GOLDEN[f"images/{name}"].astype(int)
  assert np.abs(made.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("name", json.loads(str(GOLDEN["loras"])))
def test_images_with_loras_are_pytorchs(lora_files, xl_folder, one_device_mesh, name):
  weights = json.loads(str(GOLDEN["loras"]))[name]
  loras = [(lora_files[kind], weight) for kind, weight in weights.items()]
  model = load_stable_diffusion(xl_folder, loras=loras)
  sampler = Sampler(model, one_device_mesh, 2, STEPS, 5.0, "euler")
  negatives = GOLDEN["negative_prompts"].tolist()
  made = sampler(GOLDEN["prompts"].tolist(), negatives, None, GOLDEN["start"])
  wanted = GOLDEN[f"images/lora-{name}"].astype(int)
  assert np.abs(made.astype(int) - wanted).max() <= 2
  assert np.abs(wanted - GOLDEN["images/sdxl-negative"]).max() > 4


@pytest.mark.slow
def test_noise_comes_from_the_images_keys_whatever_the_mesh(models, mesh, one_device_mesh):
  prompts, keys = ["a", "b", "c"], keys_of([5, 6, 7])
  settings = {"steps": STEPS, "guidance_scale": 0, "scheduler": "lcm"}
  wide = Sampler(models["sd"], mesh, 1, **settings)(prompts, [""] * 3, keys)
  narrow = Sampler(models["sd"], one_device_mesh, 3, **settings)
  alone = narrow(prompts[::-1], [""] * 3, keys[::-1])[::-1]
  assert np.abs(wide.astype(int) - alone).max() <= 2
  other = narrow(prompts, [""] * 3, keys_of([5, 6, 8]))
  assert np.abs(other[:2].astype(int) - wide[:2]).max() <= 2
  assert np.abs(other[2].astype(int) - wide[2]).max() > 2


def test_noise_of_the_wrong_shape_or_from_nowhere_is_refused(models, one_device_mesh):
  sampler = Sampler(models["sd"], one_device_mesh, 2, STEPS, 0, "lcm")
  start = GOLDEN["start"]
  with pytest.raises(UsageError, match=r"expected \[4, n, 8, 8, 8\]"):
    sampler(["a", "b"], ["", ""], None, start, step_noise(3))
  with pytest.raises(UsageError, match="adds noise"):
    sampler(["a", "b"], ["", ""], None, start)


def test_parts_that_do_not_fit_are_refused(models, tmp_path):
  folder = write_tiny_sdxl(tmp_path / "xl")
  config = json.loads((folder / "unet" / "config.json").read_text())
  (folder / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 32}))
  with pytest.raises(RuntimeError, match="the text encoders' states have width 80"):
    load_stable_diffusion(folder)
