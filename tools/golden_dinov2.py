"""Write tests/data/golden_dinov2.npz: outputs of PyTorch's DINOv2 with the weights of genbench_jax.zoo.tiny.

  PYTHONPATH=. torchenv/bin/python tools/golden_dinov2.py

Uses the environment of tools/golden_clip.py. Takes seconds. The test suite reads the file and needs no torch.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BitImageProcessor, Dinov2Model

from genbench_jax.zoo import tiny

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_dinov2.npz"


@torch.no_grad()
def main() -> None:
  rng = np.random.default_rng(3)
  pixels = rng.standard_normal((4, 16, 16, 3), np.float32)
  golden = {"pixels": pixels, "image": rng.integers(0, 256, (40, 30, 3), np.uint8)}
  processor = BitImageProcessor(**tiny.DINOV2_PREPROCESSOR)
  golden["processed"] = (
    processor(Image.fromarray(golden["image"])).pixel_values[0].transpose(1, 2, 0)
  )
  for name, config in {"mlp": {}, "swiglu": {"use_swiglu_ffn": True}}.items():
    with tempfile.TemporaryDirectory() as folder:
      model = Dinov2Model.from_pretrained(tiny.write_tiny_dinov2(Path(folder), **config)).eval()
      images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
      golden[name] = model(images).pooler_output.numpy()
  np.savez_compressed(OUT, **golden)
  print(f"{OUT}: {len(golden)} arrays, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
