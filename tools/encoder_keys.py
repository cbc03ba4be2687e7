"""Write names and shapes of the tensors of published encoders, from PyTorch's classes and published configs.

  python tools/encoder_keys.py tests/data/encoder_keys.json.gz

Requires torch and transformers >= 5. Nothing is downloaded, and models are built on the meta device without
weights. The configurations are those on the hub, without settings equal to transformers' defaults.
"""

import gzip
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

BIG_G_TEXT = {
  "hidden_size": 1280,
  "intermediate_size": 5120,
  "num_hidden_layers": 32,
  "num_attention_heads": 20,
  "hidden_act": "gelu",
  "projection_dim": 1280,
}
DINOV2_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
CONFIGS = {
  "clip/CLIP-ViT-bigG-14-laion2B-39B-b160k": {
    "projection_dim": 1280,
    "text_config": BIG_G_TEXT,
    "vision_config": {
      "hidden_size": 1664,
      "intermediate_size": 8192,
      "num_hidden_layers": 48,
      "num_attention_heads": 16,
      "patch_size": 14,
      "hidden_act": "gelu",
      "projection_dim": 1280,
    },
  },
  "clip_text/sdxl-text_encoder": {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
  },
  "clip_text_with_projection/sdxl-text_encoder_2": BIG_G_TEXT,
  "dinov2/dinov2-small": DINOV2_SMALL,
  "dinov2/dinov2-base": {"image_size": 518},
  "dinov2/dinov2-large": {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 518,
  },
  "dinov2/dinov2-giant": {
    "hidden_size": 1536,
    "num_attention_heads": 24,
    "num_hidden_layers": 40,
    "image_size": 518,
    "use_swiglu_ffn": True,
  },
  "dinov2_with_registers/dinov2-with-registers-small": {**DINOV2_SMALL, "num_register_tokens": 4},
  "dinov3_vit/dinov3-vits16-pretrain-lvd1689m": {"num_register_tokens": 4},
  "dinov3_vit/dinov3-vith16plus-pretrain-lvd1689m": {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "use_gated_mlp": True,
    "hidden_act": "silu",
    "num_register_tokens": 4,
  },
  "t5/t5-base": {
    "d_model": 768,
    "d_ff": 3072,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
  },
  "t5/flan-t5-base": {
    "d_model": 768,
    "d_ff": 2048,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
  },
  "siglip/siglip-base-patch16-224": {"text_config": {}, "vision_config": {}},
  "siglip/siglip2-base-patch16-224": {"text_config": {"vocab_size": 256000}, "vision_config": {}},
  "siglip/siglip2-so400m-patch14-384": {
    "text_config": {
      "vocab_size": 256000,
      "hidden_size": 1152,
      "intermediate_size": 4304,
      "num_hidden_layers": 27,
      "num_attention_heads": 16,
      "projection_size": 1152,
    },
    "vision_config": {
      "hidden_size": 1152,
      "intermediate_size": 4304,
      "num_hidden_layers": 27,
      "num_attention_heads": 16,
      "patch_size": 14,
      "image_size": 384,
    },
  },
}
CLASSES = {
  "clip": ("CLIPConfig", "CLIPModel"),
  "clip_text": ("CLIPTextConfig", "CLIPTextModel"),
  "clip_text_with_projection": ("CLIPTextConfig", "CLIPTextModelWithProjection"),
  "dinov2": ("Dinov2Config", "Dinov2Model"),
  "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
  "dinov3_vit": ("DINOv3ViTConfig", "DINOv3ViTModel"),
  "t5": ("T5Config", "T5ForConditionalGeneration"),
  "siglip": ("SiglipConfig", "SiglipModel"),
}


def published_shapes(model: transformers.PreTrainedModel) -> dict[str, list[int]]:
  """Return what `save_pretrained` would write. transformers renames some tensors in files."""
  parameters = {id(parameter) for parameter in model.parameters()}
  state = model.state_dict(keep_vars=True)
  # Skip second names of the same parameter, and buffers.
  first = {id(tensor): name for name, tensor in reversed(state.items()) if id(tensor) in parameters}
  kept = {name: state[name] for name in state if first.get(id(state[name])) == name}
  return {n: list(t.shape) for n, t in revert_weight_conversion(model, kept).items()}


def main(path: str) -> None:
  found = {}
  for name, config in CONFIGS.items():
    config_class, model_class = (getattr(transformers, cls) for cls in CLASSES[name.split("/")[0]])
    with torch.device("meta"):
      model = model_class(config_class(**config))
    shapes = published_shapes(model)
    if name.startswith("clip_text/"):  # published with a prefix that the current class has dropped
      shapes = {f"text_model.{key}": shape for key, shape in shapes.items()}
    if config.get("tie_word_embeddings") is False:
      # Published T5 1.1 files have a separate output table; transformers 5 ties it when building the model.
      shapes["lm_head.weight"] = shapes["shared.weight"]
    found[name] = {"config": {"model_type": config_class.model_type, **config}, "shapes": shapes}
    print(name, len(shapes))
  text = json.dumps(found, sort_keys=True).encode()
  Path(path).write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
  main(sys.argv[1])
