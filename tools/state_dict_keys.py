"""Write tests/data/state_dict_keys.json.gz: tensor names and shapes of published checkpoints, from PyTorch's classes.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 diffusers==0.39.0 transformers==4.57.6
  PYTHONPATH=. torchenv/bin/python tools/state_dict_keys.py

Models are built on the meta device from their published configurations, without weights. The file contains
each model's configuration, and PyTorch name -> shape.
"""

import gzip
import json
from pathlib import Path

import diffusers
import torch
from transformers import (
  CLIPConfig,
  CLIPModel,
  CLIPTextConfig,
  CLIPTextModel,
  CLIPTextModelWithProjection,
  Dinov2Config,
  Dinov2Model,
)

OUT = Path(__file__).parent.parent / "tests" / "data" / "state_dict_keys.json.gz"

UNET = {
  "act_fn": "silu",
  "block_out_channels": [320, 640, 1280, 1280],
  "center_input_sample": False,
  "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
  "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
  "downsample_padding": 1,
  "flip_sin_to_cos": True,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-05,
  "norm_num_groups": 32,
  "out_channels": 4,
}
UNET_1 = UNET | {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64}
UNET_2 = UNET | {
  "attention_head_dim": [5, 10, 20, 20],
  "cross_attention_dim": 1024,
  "dual_cross_attention": False,
  "only_cross_attention": False,
  "num_class_embeds": None,
  "use_linear_projection": True,
}
VAE = {
  "act_fn": "silu",
  "block_out_channels": [128, 256, 512, 512],
  "down_block_types": ["DownEncoderBlock2D"] * 4,
  "up_block_types": ["UpDecoderBlock2D"] * 4,
  "in_channels": 3,
  "latent_channels": 4,
  "layers_per_block": 2,
  "norm_num_groups": 32,
  "out_channels": 3,
}
TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "model_type": "clip_text_model"}
TEXT_1 = TEXT | {
  "hidden_act": "quick_gelu",
  "hidden_size": 768,
  "intermediate_size": 3072,
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "projection_dim": 768,
}
TEXT_2 = TEXT | {
  "hidden_act": "gelu",
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_attention_heads": 16,
  "num_hidden_layers": 23,
  "projection_dim": 512,
}


UNET_XL = UNET | {
  "addition_embed_type": "text_time",
  "addition_time_embed_dim": 256,
  "attention_head_dim": [5, 10, 20],
  "block_out_channels": [320, 640, 1280],
  "cross_attention_dim": 2048,
  "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
  "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
  "projection_class_embeddings_input_dim": 2816,
  "sample_size": 128,
  "transformer_layers_per_block": [1, 2, 10],
  "use_linear_projection": True,
}
# OpenCLIP bigG's text encoder, with its projection.
TEXT_XL = TEXT | {
  "hidden_act": "gelu",
  "hidden_size": 1280,
  "intermediate_size": 5120,
  "num_attention_heads": 20,
  "num_hidden_layers": 32,
  "projection_dim": 1280,
}


def clip(text: dict, vision: dict, projection: int) -> dict:
  """Return the configuration of a CLIP; the defaults are those of OpenAI's models."""
  text = TEXT | {"num_hidden_layers": 12, "projection_dim": projection} | text
  vision = {"image_size": 224, "projection_dim": projection} | vision
  return {
    "model_type": "clip",
    "projection_dim": projection,
    "text_config": text,
    "vision_config": vision | {"model_type": "clip_vision_model"},
  }


PIPELINES = {
  "stable-diffusion-1.5": {
    "unet": UNET_1,
    "vae": VAE | {"sample_size": 512},
    "text_encoder": TEXT_1,
  },
  "stable-diffusion-2.1-base": {
    "unet": UNET_2 | {"sample_size": 64},
    "vae": VAE | {"sample_size": 768},
    "text_encoder": TEXT_2,
  },
  "stable-diffusion-2.1": {
    "unet": UNET_2 | {"sample_size": 96, "upcast_attention": True},
    "vae": VAE | {"sample_size": 768},
    "text_encoder": TEXT_2,
  },
  "sdxl-base-1.0": {
    "unet": UNET_XL,
    "vae": VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    "text_encoder": TEXT_1,
    "text_encoder_2": TEXT_XL,
  },
}
BASE_TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
BASE_VISION = {
  "hidden_size": 768,
  "intermediate_size": 3072,
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
}
LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE_VISION = {
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_attention_heads": 16,
  "num_hidden_layers": 24,
  "patch_size": 14,
}
CLIPS = {
  "clip-vit-base-patch32": clip(BASE_TEXT, BASE_VISION | {"patch_size": 32}, 512),
  "clip-vit-base-patch16": clip(BASE_TEXT, BASE_VISION | {"patch_size": 16}, 512),
  "clip-vit-large-patch14": clip(LARGE_TEXT, LARGE_VISION, 768),
  "clip-vit-large-patch14-336": clip(LARGE_TEXT, LARGE_VISION | {"image_size": 336}, 768),
  # Converted from OpenCLIP: gelu, and another number of text layers.
  "CLIP-ViT-H-14-laion2B-s32B-b79K": clip(
    {
      "hidden_act": "gelu",
      "hidden_size": 1024,
      "intermediate_size": 4096,
      "num_attention_heads": 16,
      "num_hidden_layers": 24,
    },
    {
      "hidden_act": "gelu",
      "hidden_size": 1280,
      "intermediate_size": 5120,
      "num_attention_heads": 16,
      "num_hidden_layers": 32,
      "patch_size": 14,
    },
    1024,
  ),
}
DINOV2 = {"model_type": "dinov2", "image_size": 518, "patch_size": 14, "mlp_ratio": 4}
DINOV2S = {
  "dinov2-base": DINOV2 | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
  "dinov2-giant": DINOV2
  | {
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "use_swiglu_ffn": True,
  },
}


def shapes(model: torch.nn.Module) -> dict[str, list[int]]:
  """Return name -> shape of all tensors."""
  return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def main() -> None:
  record = {}
  with torch.device("meta"):
    for name, configs in PIPELINES.items():
      models = {
        "unet": diffusers.UNet2DConditionModel.from_config(configs["unet"]),
        "vae": diffusers.AutoencoderKL.from_config(configs["vae"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
      }
      if "text_encoder_2" in configs:
        second = CLIPTextConfig.from_dict(configs["text_encoder_2"])
        models["text_encoder_2"] = CLIPTextModelWithProjection(second)
      for part, model in models.items():
        record[f"{name}/{part}"] = {"config": configs[part], "shapes": shapes(model)}
    for name, config in CLIPS.items():
      model = CLIPModel(CLIPConfig.from_dict(config))
      record[name] = {"config": config, "shapes": shapes(model)}
    for name, config in DINOV2S.items():
      model = Dinov2Model(Dinov2Config.from_dict(config))
      record[name] = {"config": config, "shapes": shapes(model)}
  text = json.dumps(record, sort_keys=True).encode()
  OUT.write_bytes(gzip.compress(text, mtime=0))
  counts = {name: len(entry["shapes"]) for name, entry in record.items()}
  print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB, {counts}")


if __name__ == "__main__":
  main()
