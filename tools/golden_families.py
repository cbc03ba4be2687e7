"""Write tests/data/golden_families.npz: outputs of PyTorch's pipelines of tiny SDXL and few-step models.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 diffusers==0.42.0 transformers==5.24.0 safetensors peft
  PYTHONPATH=. torchenv/bin/python tools/golden_families.py

Models are those of `genbench_jax.zoo.tiny`, whose weights depend on names and shapes. The noise of each step is
NumPy's with seed 11. The test suite reads the file and needs no torch.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import (
  CLIPTextConfig,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  CLIPTokenizer,
)

from genbench_jax.zoo import tiny

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_families.npz"
PROMPTS, NEGATIVE = ["a photo of a dog", "7"], ["blurry", "out of frame"]
STEPS = 4
TRAILING = {"timestep_spacing": "trailing"}
LCM_UNET = tiny.UNET | {"time_cond_proj_dim": 16}
# Name -> pipeline, scheduler, its settings, guidance scale, whether to use negative prompts, call arguments.
CASES: dict[str, tuple[str, str, dict, float, bool, dict]] = {
  "sdxl": ("xl", "EulerDiscrete", {}, 5.0, False, {}),
  "sdxl-negative": ("xl", "EulerDiscrete", {}, 5.0, True, {}),
  "sdxl-rescaled": ("xl", "DDIM", {}, 5.0, True, {"guidance_rescale": 0.7}),
  "sdxl-turbo": ("xl", "EulerAncestralDiscrete", TRAILING, 0.0, False, {}),
  "sdxl-lightning": ("xl", "EulerDiscrete", TRAILING, 0.0, False, {}),
  "sdxl-lightning-1": (
    "xl", "EulerDiscrete", TRAILING | {"prediction_type": "sample"}, 0.0, False,
    {"num_inference_steps": 1},
  ),
  "hyper-sd-tcd": ("xl", "TCD", {}, 0.0, False, {"eta": 1.0}),
  "hyper-sd-ddim": ("xl", "DDIM", TRAILING, 0.0, False, {}),
  "dmd2": ("xl", "LCM", {}, 0.0, False, {"timesteps": [999, 749, 499, 249]}),
  "lcm-lora-sdxl": ("xl", "LCM", {}, 1.5, True, {}),
  "sd-turbo": ("sd", "EulerDiscrete", TRAILING, 0.0, False, {}),
  "ddim-eta": ("sd", "DDIM", {}, 7.5, True, {"eta": 0.6}),
  "guidance-below-one": ("sd", "DDIM", {}, 0.5, True, {}),
  "zero-snr-rescaled": (
    "sd", "DDIM",
    TRAILING | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, 7.5, True,
    {"guidance_rescale": 0.7},
  ),
  "karras": ("sd", "DPMSolverMultistep", {"use_karras_sigmas": True}, 7.5, True, {}),
  "lcm": ("lcm", "LCM", {}, 8.5, False, {}),
}  # fmt: skip

LORAS = {"peft": {"peft": 0.7}, "kohya": {"kohya": 1.3}, "both": {"peft": 0.5, "kohya": -0.4}}


def with_weights(model: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
  """Load the fixed random weights into the model; transformers 5 drops `prefix` from published names."""
  shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
  published = {
    name: name if name.startswith((prefix, "text_projection")) else prefix + name for name in shapes
  }
  named = {published[name]: shape for name, shape in shapes.items() if "position_ids" not in name}
  weights = tiny.random_weights(named)
  state = {name: torch.from_numpy(weights[published[name]]) for name in shapes}
  model.load_state_dict(state, strict=True)
  return model.eval()


def tokenizer(pad: str) -> CLIPTokenizer:
  with tempfile.TemporaryDirectory() as folder:
    tiny.write_tokenizer(Path(folder), pad)
    return CLIPTokenizer.from_pretrained(folder)


def pipeline(kind: str) -> Any:
  """Return `sd`, `lcm` or `xl`, with a scheduler that is replaced later."""
  unet = {"sd": tiny.UNET, "lcm": LCM_UNET, "xl": tiny.UNET_XL}[kind]
  parts = {
    "unet": with_weights(diffusers.UNet2DConditionModel.from_config(unet)),
    "vae": with_weights(diffusers.AutoencoderKL.from_config(tiny.VAE)),
    "text_encoder": with_weights(
      CLIPTextModel(CLIPTextConfig.from_dict(tiny.text_config())), "text_model."
    ),
    "tokenizer": tokenizer("<|endoftext|>"),
    "scheduler": diffusers.DDIMScheduler.from_config(tiny.SCHEDULER),
  }
  if kind == "xl":
    second = CLIPTextConfig.from_dict(tiny.second_text_config())
    tower = with_weights(CLIPTextModelWithProjection(second), "text_model.")
    return diffusers.StableDiffusionXLPipeline(
      **parts, text_encoder_2=tower, tokenizer_2=tokenizer("!"), add_watermarker=False
    )
  safety = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
  if kind == "lcm":
    return diffusers.LatentConsistencyModelPipeline(**parts, **safety)
  return diffusers.StableDiffusionPipeline(**parts, **safety)


def made(pipe: Any, case: tuple, latents: torch.Tensor) -> np.ndarray:
  """Return the uint8 images of a case."""
  _, scheduler, settings, guidance, negative, options = case
  kind = getattr(diffusers, f"{scheduler}Scheduler")
  pipe.scheduler = kind.from_config(tiny.SCHEDULER | settings)
  draws = iter(np.random.default_rng(11).standard_normal((STEPS, *latents.shape), np.float32))
  for module in (sys.modules[kind.__module__],):
    module.randn_tensor = lambda shape, **_: torch.from_numpy(next(draws))
  given = {"num_inference_steps": STEPS} | options
  if "timesteps" in given:
    del given["num_inference_steps"]
  if "negative_prompt" not in given and not isinstance(
    pipe, diffusers.LatentConsistencyModelPipeline
  ):
    given["negative_prompt"] = NEGATIVE if negative else None
  result = pipe(
    PROMPTS, latents=latents.clone(), guidance_scale=guidance, output_type="np", **given
  ).images
  return np.round(255 * np.clip(result, 0, 1)).astype(np.uint8)


def fuse_text(tower: torch.nn.Module, part: str, tensors: dict, weight: float) -> None:
  """Fuse a LoRA into a text encoder by its formula, since diffusers cannot do so with transformers 5."""
  for module in tiny.LORA_TARGETS[part]:
    kohya = f"{tiny.KOHYA[part]}_{module.replace('.', '_')}"
    if f"{kohya}.alpha" in tensors:
      down, up = (tensors[f"{kohya}.lora_{factor}.weight"] for factor in ("down", "up"))
      weight = weight * float(tensors[f"{kohya}.alpha"]) / len(down)
    else:
      down, up = (tensors[f"{part}.{module}.lora_{factor}.weight"] for factor in "AB")
    names = dict(tower.named_parameters())
    name = f"{module}.weight"
    parameter = names.get(name, names.get(name.removeprefix("text_model.")))
    parameter += weight * (up @ down)


def with_loras(latents: torch.Tensor) -> dict[str, np.ndarray]:
  """Return images of SDXL with a LoRA in each format, separately and together, as diffusers loads them."""
  golden = {}
  with tempfile.TemporaryDirectory() as folder:
    files = {
      "peft": tiny.write_tiny_lora(Path(folder) / "peft.safetensors"),
      "kohya": tiny.write_tiny_lora(Path(folder) / "kohya.safetensors", kohya=True, seed=6),
    }
    for name, weights in LORAS.items():
      pipe = pipeline("xl")
      pipe.set_progress_bar_config(disable=True)
      for adapter, weight in weights.items():
        tensors = load_file(files[adapter])
        unet = {key: t for key, t in tensors.items() if key.startswith(("unet.", "lora_unet_"))}
        pipe.load_lora_weights(unet, adapter_name=adapter)
        for part in ("text_encoder", "text_encoder_2"):
          fuse_text(getattr(pipe, part), part, tensors, weight)
      pipe.set_adapters(list(weights), list(weights.values()))
      golden[f"images/lora-{name}"] = made(pipe, CASES["sdxl-negative"], latents)
  return golden


@torch.no_grad()
def main() -> None:
  draw = np.random.default_rng(1).standard_normal((2, 8, 8, 8), np.float32)
  latents = torch.from_numpy(draw)
  pipes = {kind: pipeline(kind) for kind in ("sd", "lcm", "xl")}
  for pipe in pipes.values():
    pipe.set_progress_bar_config(disable=True)
  golden = {"start": draw.transpose(0, 2, 3, 1), "prompts": np.array(PROMPTS)}
  golden |= {"negative_prompts": np.array(NEGATIVE), "cases": np.array(json.dumps(CASES))}
  for name, case in CASES.items():
    golden[f"images/{name}"] = made(pipes[case[0]], case, latents)
    print(name, golden[f"images/{name}"].mean())
  golden |= with_loras(latents) | {"loras": np.array(json.dumps(LORAS))}
  np.savez_compressed(OUT, **golden)
  print(f"{OUT}: {len(golden)} arrays, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
