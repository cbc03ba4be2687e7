"""A tiny pipeline of PyTorch's diffusers through the backend, against calling it by hand; run by test_backends."""

import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genbench_jax.diffusion.backends import load_pipeline
from genbench_jax.errors import RunError, UsageError
from genbench_jax.zoo import tiny


def pipeline(folder: Path) -> None:
  """Saves a tiny Stable Diffusion with random weights."""
  torch.manual_seed(0)
  tiny.write_tokenizer(folder / "words")
  diffusers.StableDiffusionPipeline(
    unet=diffusers.UNet2DConditionModel.from_config(tiny.UNET),
    vae=diffusers.AutoencoderKL.from_config(tiny.VAE),
    text_encoder=CLIPTextModel(CLIPTextConfig.from_dict(tiny.text_config())),
    tokenizer=CLIPTokenizer.from_pretrained(folder / "words"),
    scheduler=diffusers.DDIMScheduler.from_config(tiny.SCHEDULER),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
  ).save_pretrained(folder / "model")


def main() -> None:
  prompts, negatives, seeds = ["a dog", "a cat"], ["blurry", ""], [3, 4]
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    pipeline(folder)
    made = load_pipeline(str(folder / "model"), 3, 5.0)(prompts, negatives, seeds, (16, 16))
    by_hand = diffusers.DiffusionPipeline.from_pretrained(folder / "model")
    for bad, error in (("float8", UsageError), ("float32", RunError)):
      try:
        load_pipeline(str(folder / "words"), 3, 5.0, bad)
      except error:
        continue
      raise AssertionError(bad)
  for row, seed in enumerate(seeds):
    image = by_hand(
      prompts[row],
      negative_prompt=negatives[row],
      num_inference_steps=3,
      guidance_scale=5.0,
      height=16,
      width=16,
      generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    # In a batch of two matrix products round otherwise than in one of one.
    assert np.abs(np.asarray(image).astype(int) - made[row]).max() <= 1


if __name__ == "__main__":
  main()
