"""Write tests/data/golden_clip.npz: outputs of PyTorch's CLIP with the weights of genbench_jax.zoo.tiny.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors
  PYTHONPATH=. torchenv/bin/python tools/golden_clip.py

Takes seconds. The test suite reads the file and needs no torch.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from genbench_jax.zoo import tiny

OUT = Path(__file__).parent.parent / "tests" / "data" / "golden_clip.npz"
TEXTS = [
  "a photo of a dog",
  "7",
  "",
  "a sentence that is far longer than twenty-four tokens of bytes",
]


def clip(config: dict) -> CLIPModel:
  """Return the tiny CLIP in PyTorch."""
  model = CLIPModel(CLIPConfig.from_dict(config))
  shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
  weights = tiny.random_weights({k: v for k, v in shapes.items() if "position_ids" not in k})
  model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=True)
  return model.eval()


@torch.no_grad()
def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    tiny.write_tokenizer(Path(folder))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
  pixels = np.random.default_rng(3).standard_normal((4, 32, 32, 3), np.float32)
  tokens = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
  golden = {"pixels": pixels, "texts": np.array(TEXTS), "tokens": tokens.input_ids.numpy()}
  # OpenAI's checkpoints use quick_gelu and find the end of text by argmax; OpenCLIP's use gelu and the end id.
  for name, changes in {
    "own": {},
    "openai": {"eos_token_id": 2},
    "openclip": {"hidden_act": "gelu"},
  }.items():
    config = tiny.clip_config()
    config["text_config"] |= changes
    config["vision_config"] |= {k: v for k, v in changes.items() if k == "hidden_act"}
    model = clip(config)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    golden[f"{name}/image"] = model.get_image_features(images).numpy()
    golden[f"{name}/text"] = model.get_text_features(**tokens).numpy()
  OUT.parent.mkdir(exist_ok=True)
  np.savez_compressed(OUT, **golden)
  print(f"{OUT}: {len(golden)} arrays, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
  main()
