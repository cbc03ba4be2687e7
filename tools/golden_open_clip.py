"""Write tests/data/golden_open_clip.npz: outputs of OpenCLIP's own CLIP with the weights of genbench_jax.zoo.tiny.

  PYTHONPATH=. TORCH_PYTHON tools/golden_open_clip.py tests/data/golden_open_clip.npz

Needs torch and open_clip_torch. Takes seconds. The test suite reads the file and needs neither.
"""

import json
import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import numpy as np
import torch

from genbench_jax.zoo import tiny

# open_clip imports these for preprocessing, its tokenizer and residual networks.
TORCHVISION = ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional")
for name in ("ftfy", *(f"torchvision{part}" for part in TORCHVISION)):
  sys.modules.setdefault(name, MagicMock(__spec__=ModuleSpec(name, None)))
from open_clip.model import CLIP  # noqa: E402

MODEL = {
  "embed_dim": 16,
  "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
  "text_cfg": {"context_length": 24, "vocab_size": len(tiny.vocabulary()), "width": 32, "heads": 2, "layers": 2},
}  # fmt: skip


def main(path: str) -> None:
  random = np.random.default_rng(0)
  pixels = random.standard_normal((3, 32, 32, 3)).astype(np.float32)
  # The end-of-text token has the highest id; OpenCLIP pads with zeros.
  tokens = random.integers(1, 500, (3, 24))
  for row, length in zip(tokens, (5, 20, 24), strict=True):
    row[length - 1], row[length:] = MODEL["text_cfg"]["vocab_size"] - 1, 0
  arrays = {"pixels": pixels, "tokens": tokens}
  for name, quick in (("gelu", False), ("quick", True)):
    model = CLIP(**MODEL, quick_gelu=quick)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k != "attn_mask"}
    state = {k: torch.from_numpy(v) for k, v in tiny.random_weights(shapes).items()}
    model.load_state_dict(state, strict=False)
    model.eval()
    with torch.no_grad():
      images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
      arrays[f"{name}/image"] = model.encode_image(images).numpy()
      arrays[f"{name}/text"] = model.encode_text(torch.from_numpy(tokens)).numpy()
  arrays["model"] = np.array(json.dumps(MODEL))
  arrays["shapes"] = np.array(json.dumps(shapes))
  np.savez_compressed(path, **arrays)


if __name__ == "__main__":
  main(sys.argv[1])
