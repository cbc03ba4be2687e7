"""Write tests/data/golden_training.npz: PyTorch's gradients of the tiny diffusion model, and its parts in bfloat16.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 diffusers==0.42.1 transformers==5.24.0 safetensors
  PYTHONPATH=. torchenv/bin/python tools/golden_training.py

The gradient is that of textual inversion: of the mean squared error of the predicted noise, through U-Net and
text encoder, with respect to every token's embedding. The U-Net has a single level, so that the test compiles
quickly. bfloat16 outputs are stored as float32. Takes seconds.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from golden_diffusion import PROMPTS, channels_last, pipeline

from genbench_jax.zoo import tiny

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_training.npz"
TIME = 321


def inputs() -> dict[str, torch.Tensor]:
  """Return fixed random inputs: noisy latents, noise, a text, and latents for the decoder."""
  draw = np.random.default_rng(5)
  shapes = {"noisy": (2, 8, 8, 8), "noise": (2, 8, 8, 8), "text": (2, 24, 32), "latents": (1, 8, 8, 8)}  # fmt: skip
  return {
    name: torch.from_numpy(draw.standard_normal(shape, np.float32))
    for name, shape in shapes.items()
  }


def embedding_gradient(pipe, given: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
  """Return the loss and its gradient with respect to each token's embedding of each prompt."""
  tokens = pipe.tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
  table = pipe.text_encoder.get_input_embeddings()
  looked_up = []
  hook = table.register_forward_hook(lambda module, args, rows: looked_up.append(rows))
  states = pipe.text_encoder(tokens).last_hidden_state
  hook.remove()
  loss = (pipe.unet(given["noisy"], TIME, states).sample - given["noise"]).square().mean()
  (gradient,) = torch.autograd.grad(loss, looked_up)
  return {
    "tokens": tokens.numpy().astype(np.int32),
    "loss": loss.detach().numpy(),
    "embedding_gradient": gradient.numpy(),
  }


@torch.no_grad()
def outputs(pipe, given: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, np.ndarray]:
  """Return outputs of U-Net and decoder, computed in a dtype."""
  unet, vae = pipe.unet.to(dtype), pipe.vae.to(dtype)
  noisy, text, latents = (given[name].to(dtype) for name in ("noisy", "text", "latents"))
  made = {"unet": unet(noisy, TIME, text).sample, "decoded": vae.decode(latents).sample}
  name = str(dtype).removeprefix("torch.")
  return {f"{part}_{name}": channels_last(array.float()) for part, array in made.items()}


def main() -> None:
  given = inputs()
  golden = {"time": np.float32(TIME)} | embedding_gradient(pipeline(tiny.SHALLOW_UNET), given)
  pipe = pipeline()
  for dtype in (torch.float32, torch.bfloat16):
    golden |= outputs(pipe, given, dtype)
  for name, tensor in given.items():
    golden[name] = channels_last(tensor) if tensor.ndim == 4 else tensor.numpy()
  np.savez_compressed(OUT, **golden)
  print(f"{OUT}: {len(golden)} arrays, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
