"""Write tests/prompts/t5.npz: logits of PyTorch's T5 for the tiny checkpoint of `genbench_jax.zoo.tiny`.

  python tools/golden_t5.py

Requires torch, unlike the package and its tests.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import T5ForConditionalGeneration

from genbench_jax.zoo.tiny import write_tiny_t5

TARGET = Path(__file__).parent.parent / "tests" / "prompts" / "t5.npz"


def main() -> None:
  with tempfile.TemporaryDirectory() as temporary:
    folder = write_tiny_t5(Path(temporary) / "t5")
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
  rng = np.random.default_rng(0)
  # Longer than 128 tokens, from where all distances share a bias.
  tokens, written = rng.integers(2, 39, (2, 150)), rng.integers(2, 39, (2, 12))
  mask = np.ones_like(tokens)
  mask[1, 40:] = 0
  with torch.no_grad():
    logits = model(
      input_ids=torch.tensor(tokens),
      attention_mask=torch.tensor(mask),
      decoder_input_ids=torch.tensor(written),
    ).logits.numpy()
  np.savez_compressed(TARGET, tokens=tokens, mask=mask, written=written, logits=logits)


if __name__ == "__main__":
  main()
