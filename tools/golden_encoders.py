"""Write outputs of PyTorch's tiny encoders with random weights: SigLIP, DINOv2 with registers, DINOv3, gated T5.

  python tools/golden_encoders.py tests/data/golden_encoders.npz

Requires torch and transformers >= 5 in a separate environment. Each model is written as a checkpoint in the
published layout and read by `from_pretrained`, which also tests names and layouts. The golden file contains
the configurations.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers.core_model_loading import revert_weight_conversion

from genbench_jax.zoo import tiny

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGLIP_TOWER = {**SMALL, "intermediate_size": 48}
DINOV3 = {
  **SMALL,
  "intermediate_size": 48,
  "image_size": 16,
  "patch_size": 4,
  "num_register_tokens": 3,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
  "siglip": (
    "SiglipModel",
    {
      "model_type": "siglip",
      "text_config": {
        **SIGLIP_TOWER, "vocab_size": 40, "max_position_embeddings": 12, "projection_size": 32,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
      },
      "vision_config": {**SIGLIP_TOWER, "image_size": 16, "patch_size": 4},
    },
  ),
  "dinov2_with_registers": (
    "Dinov2WithRegistersModel",
    {
      "model_type": "dinov2_with_registers", **SMALL, "mlp_ratio": 2, "image_size": 28, "patch_size": 4,
      "num_register_tokens": 3,
    },
  ),
  "dinov3": ("DINOv3ViTModel", {"model_type": "dinov3_vit", **DINOV3}),
  "dinov3_gated": (
    "DINOv3ViTModel",
    {"model_type": "dinov3_vit", **DINOV3, "use_gated_mlp": True, "hidden_act": "silu"},
  ),
  "t5_gated": (
    "T5ForConditionalGeneration",
    {
      "model_type": "t5", "vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2,
      "num_decoder_layers": 3, "num_heads": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
      "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    },
  ),
}  # fmt: skip


def random_model(class_name: str, config: dict[str, Any]) -> Any:
  """Return the model with the weights that `random_weights` draws for the published names."""
  model_class = getattr(transformers, class_name)
  own = model_class.config_class(**{k: v for k, v in config.items() if k != "model_type"})
  model = model_class(own)
  state = revert_weight_conversion(model, dict(model.state_dict()))
  shapes = {name: tuple(t.shape) for name, t in state.items() if "position_ids" not in name}
  if class_name.startswith("T5"):  # a separate output table, as in T5 1.1
    shapes = {name: shape for name, shape in shapes.items() if "embed_tokens" not in name}
    shapes["lm_head.weight"] = shapes["shared.weight"]
  with tempfile.TemporaryDirectory() as folder:
    Path(folder, "config.json").write_text(json.dumps(config))
    save_file(tiny.random_weights(shapes), f"{folder}/model.safetensors", {"format": "pt"})
    return model_class.from_pretrained(folder).eval()


def results(name: str, model: Any, rng: np.random.Generator) -> dict[str, Any]:
  """Return inputs and the model's outputs."""
  if name == "t5_gated":
    tokens, written = (torch.tensor(rng.integers(2, 64, (2, n))) for n in (9, 7))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    logits = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=written).logits
    return {"tokens": tokens, "mask": mask, "written": written, "logits": logits}
  pixels = rng.standard_normal((3, 16, 16, 3)).astype(np.float32)
  channels_first = torch.tensor(pixels.transpose(0, 3, 1, 2))
  if name != "siglip":
    return {"pixels": torch.tensor(pixels), "features": model(channels_first).pooler_output}
  tokens = torch.tensor(rng.integers(0, 40, (3, 12)))
  out = model(input_ids=tokens, pixel_values=channels_first)
  return {
    "pixels": torch.tensor(pixels),
    "tokens": tokens,
    "image": model.vision_model(channels_first).pooler_output,
    "text": model.text_model(tokens).pooler_output,
    "logits_per_image": out.logits_per_image,
  }


def main(path: str) -> None:
  arrays: dict[str, Any] = {}
  rng = np.random.default_rng(0)
  for name, (class_name, config) in CONFIGS.items():
    with torch.no_grad():
      found = results(name, random_model(class_name, config), rng)
    arrays |= {f"{name}/{key}": tensor.numpy() for key, tensor in found.items()}
    arrays[f"{name}/config"] = np.array(json.dumps(config))
  np.savez_compressed(path, **arrays)


if __name__ == "__main__":
  main(sys.argv[1])
