"""Write hidden states, pooled features and gradients of PyTorch's CLIP for the tiny checkpoint.

  python tools/golden_clip_towers.py tests/data/golden_clip_towers.npz

Requires torch and transformers >= 5 in a separate environment. Inputs are those of tests/data/golden_clip.npz.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from genbench_jax.zoo import tiny

INPUTS = Path(__file__).parent.parent / "tests" / "data" / "golden_clip.npz"


def tiny_model() -> CLIPModel:
  """Return the tiny CLIP with the weights of `write_tiny_clip`."""
  model = CLIPModel(CLIPConfig(**tiny.clip_config())).eval()
  state = model.state_dict()
  drawn = tiny.random_weights({name: tuple(t.shape) for name, t in state.items()})
  drawn = {name: torch.tensor(drawn[name]) for name in state if "position_ids" not in name}
  model.load_state_dict(drawn, strict=False)
  return model


def main(path: str) -> None:
  model = tiny_model()
  with np.load(INPUTS) as file:
    pixels = torch.tensor(file["pixels"].transpose(0, 3, 1, 2))
    tokens = torch.tensor(file["tokens"])
    wanted = file["own/image"]
  text = model.text_model(tokens, output_hidden_states=True)
  golden = {f"hidden/{index}": state for index, state in enumerate(text.hidden_states)}
  golden["last"] = text.last_hidden_state
  images = model.visual_projection(model.vision_model(pixels).pooler_output)
  np.testing.assert_allclose(images.detach().numpy(), wanted, atol=1e-5)
  texts = model.text_projection(text.pooler_output)
  # A loss without symmetry: every pair's cosine has its own weight.
  cosines = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
  weights = torch.linspace(-1, 2, cosines.numel()).reshape(cosines.shape)
  (cosines * weights).sum().backward()
  for name, parameter in model.named_parameters():
    if parameter.grad is not None:
      golden[f"gradient/{name}"] = parameter.grad
  arrays = {name: tensor.detach().numpy() for name, tensor in golden.items()}
  np.savez_compressed(path, **arrays)


if __name__ == "__main__":
  main(sys.argv[1])
