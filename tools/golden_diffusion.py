"""Write tests/data/golden_diffusion.npz: outputs of PyTorch's diffusers with the tiny models of genbench_jax.zoo.tiny.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 diffusers==0.39.0 transformers==4.57.6 safetensors
  PYTHONPATH=. torchenv/bin/python tools/golden_diffusion.py

Takes a minute. The test suite reads the file and needs no torch.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genbench_jax.zoo import tiny

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_diffusion.npz"
SCHEDULERS = {
  "pndm": diffusers.PNDMScheduler,
  "ddim": diffusers.DDIMScheduler,
  "dpmsolver++": diffusers.DPMSolverMultistepScheduler,
  "euler": diffusers.EulerDiscreteScheduler,
}
PREDICTIONS = ("epsilon", "v_prediction")
PROMPTS = ["a photo of a dog", "7"]
NEGATIVE = ["blurry, out of frame", ""]
EVALUATIONS = 10  # of the U-Net: PNDM makes one more than it has steps


def with_weights(model: torch.nn.Module) -> torch.nn.Module:
  """Load the fixed random weights, which depend on the published names of the tensors, into the model."""
  # transformers 5 drops the prefix that all published text encoders have.
  is_text = isinstance(model, CLIPTextModel)
  state = {name: value for name, value in model.state_dict().items() if "position_ids" not in name}
  published = {
    name: f"text_model.{name}" if is_text and not name.startswith("text_model.") else name
    for name in state
  }
  weights = tiny.random_weights({published[k]: tuple(v.shape) for k, v in state.items()})
  model.load_state_dict({k: torch.from_numpy(weights[published[k]]) for k in state}, strict=True)
  return model.eval()


def pipeline(unet: dict[str, Any] = tiny.UNET) -> diffusers.StableDiffusionPipeline:
  """Return the tiny Stable Diffusion in PyTorch."""
  with tempfile.TemporaryDirectory() as folder:
    tiny.write_tokenizer(Path(folder))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
  return diffusers.StableDiffusionPipeline(
    unet=with_weights(diffusers.UNet2DConditionModel.from_config(unet)),
    vae=with_weights(diffusers.AutoencoderKL.from_config(tiny.VAE)),
    text_encoder=with_weights(CLIPTextModel(CLIPTextConfig.from_dict(tiny.text_config()))),
    tokenizer=tokenizer,
    scheduler=diffusers.PNDMScheduler.from_config(tiny.SCHEDULER),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
  )


def channels_last(tensor: torch.Tensor) -> np.ndarray:
  return tensor.permute(0, 2, 3, 1).numpy()


def images(pipe: diffusers.StableDiffusionPipeline, latents: torch.Tensor) -> np.ndarray:
  """Return the pipeline's uint8 images from latents."""
  decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
  return np.stack([np.asarray(image) for image in pipe.image_processor.postprocess(decoded)])


def trajectories() -> dict[str, np.ndarray]:
  """Return each scheduler's results from eight numbers with a made-up model, for many settings."""
  golden = {}
  settings = itertools.product(
    SCHEDULERS, PREDICTIONS, ("leading", "linspace", "trailing"), (1, 2, 3, 7, 20, 50), (0, 1)
  )
  for name, prediction, spacing, count, offset in settings:
    if offset == 0 and spacing != "leading":
      continue
    config = tiny.SCHEDULER | {"prediction_type": prediction, "timestep_spacing": spacing}
    scheduler = SCHEDULERS[name].from_config(config | {"steps_offset": offset})
    scheduler.set_timesteps(count)
    x = torch.linspace(-2, 2, 8)[:, None] * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
      output = torch.sin(3 * scheduler.scale_model_input(x, t)) + t / 1000
      x = scheduler.step(output, t, x).prev_sample
    golden[f"trajectory/{name}/{prediction}/{spacing}/{count}/{offset}"] = x[:, 0].numpy()
  return golden


def pictures(
  pipe: diffusers.StableDiffusionPipeline, latents: torch.Tensor
) -> dict[str, np.ndarray]:
  """Return latents and images of the whole pipeline, over schedulers, predictions, guidance and negatives."""
  golden = {}
  for name, prediction, (guidance, negative) in itertools.product(
    SCHEDULERS, PREDICTIONS, ((1.0, False), (7.5, False), (7.5, True))
  ):
    config = tiny.SCHEDULER | {"prediction_type": prediction}
    pipe.scheduler = SCHEDULERS[name].from_config(config)
    result = pipe(
      PROMPTS,
      negative_prompt=NEGATIVE if negative else None,
      latents=latents.clone(),
      num_inference_steps=EVALUATIONS - (name == "pndm"),
      guidance_scale=guidance,
      output_type="latent",
    ).images
    key = f"{name}/{prediction}/{guidance}/{negative}"
    golden[f"latents/{key}"] = channels_last(result)
    golden[f"images/{key}"] = images(pipe, result)
  return golden


def parts(pipe: diffusers.StableDiffusionPipeline) -> dict[str, np.ndarray]:
  """Return single forward passes: U-Net on faint latents, where epsilons matter; VAE where side = channels."""
  draw = np.random.default_rng(2)
  faint = torch.from_numpy(0.01 * draw.standard_normal((2, 8, 8, 8), np.float32))
  text = torch.from_numpy(draw.standard_normal((2, 24, 32), np.float32))
  square = torch.from_numpy(draw.standard_normal((1, 8, 8, 8), np.float32))
  photo = torch.from_numpy(draw.uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32))
  tokens = pipe.tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
  return {
    "unet/latents": channels_last(faint),
    "unet/text": text.numpy(),
    "unet/output": channels_last(pipe.unet(faint, 321, text).sample),
    "vae/latents": channels_last(square),
    "vae/decoded": channels_last(pipe.vae.decode(square).sample),
    "vae/image": channels_last(photo),
    "vae/mean": channels_last(pipe.vae.encode(photo).latent_dist.mean),
    "vae/logvar": channels_last(pipe.vae.encode(photo).latent_dist.logvar),
    "text/tokens": tokens.numpy().astype(np.int32),
    "text/states": pipe.text_encoder(tokens).last_hidden_state.numpy(),
  }


@torch.no_grad()
def main() -> None:
  pipe = pipeline()
  pipe.set_progress_bar_config(disable=True)
  draw = np.random.default_rng(1)
  latents = torch.from_numpy(draw.standard_normal((2, 8, 8, 8), np.float32))
  golden = {"start": channels_last(latents), "evaluations": np.int32(EVALUATIONS)}
  golden |= {"prompts": np.array(PROMPTS), "negative_prompts": np.array(NEGATIVE)}
  golden |= trajectories() | pictures(pipe, latents) | parts(pipe)
  OUT.parent.mkdir(exist_ok=True)
  np.savez_compressed(OUT, **golden)
  print(f"{OUT}: {len(golden)} arrays, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
