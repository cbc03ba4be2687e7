"""Tiny checkpoints with fixed random weights in the Hugging Face layout, for tests and golden files.

A tensor's weights depend only on its PyTorch name, its shape and the seed, so that PyTorch and this package
make the same models without exchanging files. Importing this module imports only NumPy.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

TOKENS = 24
MERGES = ("a n", "i n", "r e", "o f</w>", "p h", "ph o", "pho t", "phot o</w>")

SCHEDULER = {
  "_class_name": "PNDMScheduler",
  "num_train_timesteps": 1000,
  "beta_start": 0.00085,
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "set_alpha_to_one": False,
  "skip_prk_steps": True,
  "steps_offset": 1,
  "clip_sample": False,
}
UNET = {
  "_class_name": "UNet2DConditionModel",
  "sample_size": 8,
  "in_channels": 8,
  "out_channels": 8,
  "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
  "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
  "block_out_channels": [32, 64],
  "layers_per_block": 1,
  "attention_head_dim": [2, 4],
  "cross_attention_dim": 32,
  "use_linear_projection": True,
}
# A single level, for tests that compile a gradient through the U-Net.
SHALLOW_UNET = UNET | {
  "down_block_types": ["CrossAttnDownBlock2D"],
  "up_block_types": ["CrossAttnUpBlock2D"],
  "block_out_channels": [32],
  "attention_head_dim": 2,
}
VAE = {
  "_class_name": "AutoencoderKL",
  "in_channels": 3,
  "out_channels": 3,
  "down_block_types": ["DownEncoderBlock2D"] * 2,
  "up_block_types": ["UpDecoderBlock2D"] * 2,
  "block_out_channels": [8, 16],
  "layers_per_block": 1,
  "latent_channels": 8,
  "norm_num_groups": 8,
  "sample_size": 16,
  "scaling_factor": 0.5,
}
PREPROCESSOR = {
  "crop_size": 32,
  "size": 32,
  "resample": 3,
  "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def bytes_as_letters() -> list[str]:
  """Return a printable letter for each byte, in CLIP's order: printable bytes first, as themselves."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = 256 - len(printable)
  return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(rest)]


def vocabulary() -> dict[str, int]:
  """Return a byte-level CLIP vocabulary: bytes, word-final bytes, merges, start and end of text."""
  letters = bytes_as_letters()
  words = [*letters, *(letter + "</w>" for letter in letters)]
  words += ["".join(merge.split()) for merge in MERGES]
  return {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def text_config() -> dict[str, Any]:
  """Return the configuration of the tiny text encoder."""
  vocab = vocabulary()
  return {
    "model_type": "clip_text_model",
    "vocab_size": len(vocab),
    "max_position_embeddings": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
    "hidden_act": "quick_gelu",
    "bos_token_id": vocab["<|startoftext|>"],
    "eos_token_id": vocab["<|endoftext|>"],
    "pad_token_id": vocab["<|endoftext|>"],
  }


def clip_config() -> dict[str, Any]:
  """Return the configuration of the tiny CLIP."""
  vision = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8, "hidden_size": 32}
  vision |= {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
  vision |= {"projection_dim": 16, "hidden_act": "quick_gelu"}
  return {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "projection_dim": 16,
    "text_config": text_config(),
    "vision_config": vision,
  }


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
  """Return float32 weights for PyTorch names and shapes, scaled to keep activations near one."""
  return {name: _random_tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
  if name == "logit_scale":
    return np.full(shape, math.log(100), np.float32)
  if len(shape) >= 2:
    scale = (
      0.5 if "embedding" in name and "patch" not in name else 1.5 / math.sqrt(math.prod(shape[1:]))
    )
    return (scale * noise).astype(np.float32)
  is_norm = "norm" in name and name.endswith("weight")
  return ((1 if is_norm else 0) + 0.2 * noise).astype(np.float32)


def inception_weights(
  shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, np.ndarray]:
  """Return `random_weights` for an Inception-v3, with batch-norm scales and variances of at least one."""
  drawn = random_weights(shapes, seed)
  for name, tensor in drawn.items():
    if name.endswith(("bn.weight", "bn.running_var")):
      drawn[name] = (1 + np.abs(tensor)).astype(np.float32)
  return drawn


def write_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
  """Write CLIP tokenizer files with 24 positions."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "vocab.json").write_text(json.dumps(vocabulary()))
  (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
  end = "<|endoftext|>"
  _write_json(
    folder / "tokenizer_config.json",
    {
      "tokenizer_class": "CLIPTokenizer",
      "model_max_length": TOKENS,
      "bos_token": "<|startoftext|>",
      "eos_token": end,
      "unk_token": end,
      "pad_token": pad,
    },
  )


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
  """Write a CLIP for 32 x 32 images, with patch size 8, two layers and 16 features; return the folder."""
  from genbench_jax.models.clip import parameter_shapes

  write_tokenizer(folder)
  _write_json(folder / "preprocessor_config.json", PREPROCESSOR)
  _write_json(folder / "config.json", clip_config())
  _write_weights(folder / "model.safetensors", parameter_shapes(folder), seed)
  return folder


# Positions for 7 x 7 patches, resampled for images of 4 x 4.
DINOV2 = {
  "model_type": "dinov2",
  "image_size": 28,
  "patch_size": 4,
  "hidden_size": 32,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "mlp_ratio": 2,
  "layerscale_value": 0.5,
}
DINOV2_PREPROCESSOR = {
  "crop_size": {"height": 16, "width": 16},
  "size": {"shortest_edge": 20},
  "resample": 3,
  "image_mean": [0.485, 0.456, 0.406],
  "image_std": [0.229, 0.224, 0.225],
}


def write_tiny_dinov2(folder: Path, seed: int = 0, **config: Any) -> Path:
  """Write a DINOv2 for 16 x 16 images, with patch size 4, two layers and 32 features; return the folder."""
  from genbench_jax.models.dinov2 import parameter_shapes

  _write_json(folder / "preprocessor_config.json", DINOV2_PREPROCESSOR)
  _write_json(folder / "config.json", DINOV2 | config)
  _write_weights(folder / "model.safetensors", parameter_shapes(folder), seed)
  return folder


SIGLIP_TOWER = {
  "hidden_size": 32,
  "intermediate_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
}
LETTERS = "".join(map(chr, range(32, 127)))


def write_tiny_siglip(folder: Path, seed: int = 0) -> Path:
  """Write a SigLIP: 16 x 16 images, patch 4, two layers, 32 features, letters as tokens; return its folder."""
  from tokenizers import Regex, Tokenizer, models, pre_tokenizers

  from genbench_jax.models.siglip import parameter_shapes

  pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *LETTERS]
  tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
  tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
  text = {"vocab_size": len(pieces), "max_position_embeddings": 64, "projection_size": 32}
  config = {
    "model_type": "siglip",
    "text_config": SIGLIP_TOWER | text,
    "vision_config": SIGLIP_TOWER | {"image_size": 16, "patch_size": 4},
  }
  _write_json(folder / "config.json", config)
  tokenizer.save(str(folder / "tokenizer.json"))
  _write_weights(folder / "model.safetensors", parameter_shapes(folder), seed)
  return folder


T5 = {
  "model_type": "t5",
  "vocab_size": 64,
  "d_model": 16,
  "d_kv": 8,
  "d_ff": 32,
  "num_layers": 2,
  "num_heads": 2,
  "feed_forward_proj": "relu",
  "tie_word_embeddings": True,
  "decoder_start_token_id": 0,
  "pad_token_id": 0,
  "eos_token_id": 1,
}


def write_tiny_t5(folder: Path, seed: int = 0) -> Path:
  """Write a T5 with two layers and a vocabulary of letters and a few words; return the folder."""
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

  from genbench_jax.models.t5 import parameter_shapes

  words = ["▁", "▁a", "▁dog", "▁cat", "▁runs", "▁in", "▁the", "▁street", "▁on", "▁is"]
  letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
  pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
  pieces += [(piece, -2.0 - len(pieces)) for piece in (*words, *letters)]
  tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  tokenizer.decoder = decoders.Metaspace()
  tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
  _write_json(folder / "config.json", T5)
  tokenizer.save(str(folder / "tokenizer.json"))
  _write_json(
    folder / "tokenizer_config.json",
    {"tokenizer_class": "T5TokenizerFast", "extra_ids": 0, "additional_special_tokens": []},
  )
  _write_weights(folder / "model.safetensors", parameter_shapes(folder), seed)
  return folder


def write_tiny_stable_diffusion(
  folder: Path,
  prediction_type: str = "epsilon",
  seed: int = 0,
  unet: Mapping[str, Any] = UNET,
  **scheduler: Any,
) -> Path:
  """Write a latent diffusion model for 16 x 16 images with 8 x 8 x 8 latents; return the folder.

  Args:
    folder: folder to write.
    prediction_type: what the U-Net predicts.
    seed: seed of the weights.
    unet: configuration of the U-Net.
    **scheduler: settings of the scheduler to change.
  """
  from genbench_jax.models.diffusion_networks import parameter_shapes

  _write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
  write_tokenizer(folder / "tokenizer")
  _write_json(
    folder / "scheduler" / "scheduler_config.json",
    SCHEDULER | {"prediction_type": prediction_type} | scheduler,
  )
  _write_json(folder / "unet" / "config.json", unet)
  _write_json(folder / "vae" / "config.json", VAE)
  _write_json(folder / "text_encoder" / "config.json", text_config())
  _write_networks(folder, parameter_shapes(folder), seed)
  return folder


# A small SDXL: no attention at the first level, two transformer blocks at the second, sizes and pooled texts.
UNET_XL = UNET | {
  "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
  "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
  "transformer_layers_per_block": [1, 2],
  "cross_attention_dim": 32 + 48,
  "addition_embed_type": "text_time",
  "addition_time_embed_dim": 8,
  "projection_class_embeddings_input_dim": 24 + 6 * 8,
}


def second_text_config() -> dict[str, Any]:
  """Return the configuration of the tiny SDXL's second text encoder: OpenCLIP's activation, a projection."""
  other = {"hidden_size": 48, "num_attention_heads": 3, "projection_dim": 24, "hidden_act": "gelu"}
  return text_config() | other | {"architectures": ["CLIPTextModelWithProjection"]}


def write_tiny_sdxl(
  folder: Path, seed: int = 0, unet: Mapping[str, Any] = UNET_XL, **scheduler: Any
) -> Path:
  """Write the model of `write_tiny_stable_diffusion` with SDXL's two text encoders; return the folder.

  Args:
    folder: folder to write.
    seed: seed of the weights.
    unet: configuration of the U-Net.
    **scheduler: settings of the scheduler to change.
  """
  from genbench_jax.models.diffusion_networks import parameter_shapes

  index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
  _write_json(folder / "model_index.json", index)
  write_tokenizer(folder / "tokenizer")
  write_tokenizer(folder / "tokenizer_2", pad="!")
  _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER | scheduler)
  _write_json(folder / "unet" / "config.json", unet)
  _write_json(folder / "vae" / "config.json", VAE | {"force_upcast": True})
  _write_json(folder / "text_encoder" / "config.json", text_config())
  _write_json(folder / "text_encoder_2" / "config.json", second_text_config())
  _write_networks(folder, parameter_shapes(folder), seed)
  return folder


# Modules of the tiny SDXL that the LoRA changes, with PyTorch shapes: linear layers and a convolution.
LORA_TARGETS: dict[str, dict[str, tuple[int, ...]]] = {
  "unet": {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k": (64, 80),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (64, 64),
    "mid_block.attentions.0.proj_in": (64, 64),
    "up_blocks.0.resnets.0.conv1": (64, 128, 3, 3),
  },
  "text_encoder": {"text_model.encoder.layers.0.self_attn.q_proj": (32, 32)},
  "text_encoder_2": {"text_model.encoder.layers.1.mlp.fc1": (64, 48)},
}
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def write_tiny_lora(path: Path, kohya: bool = False, seed: int = 5, rank: int = 4) -> Path:
  """Write a LoRA for the tiny SDXL in PEFT's or kohya's format; return the file.

  Args:
    path: file to write.
    kohya: whether to use kohya's format, with an alpha of half the rank.
    seed: seed of the weights.
    rank: rank of the changes.
  """
  from safetensors.numpy import save_file

  tensors = {}
  for part, modules in LORA_TARGETS.items():
    for module, (features, *rest) in modules.items():
      kernel = [1] * len(rest[1:])
      shapes = {"down": (rank, *rest), "up": (features, rank, *kernel)}
      for index, (factor, shape) in enumerate(shapes.items()):
        if kohya:
          name = f"{KOHYA[part]}_{module.replace('.', '_')}.lora_{factor}.weight"
        else:
          name = f"{part}.{module}.lora_{'AB'[index]}.weight"
        tensors[name] = _random_tensor(f"{part}.{module}.{factor}", shape, seed)
      if kohya:
        tensors[f"{KOHYA[part]}_{module.replace('.', '_')}.alpha"] = np.array(rank / 2, np.float32)
  save_file({name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}, path)
  return path


def _write_networks(folder: Path, shapes: Mapping[str, Any], seed: int) -> None:
  """Write the weights of each part of a pipeline."""
  from safetensors.numpy import save_file

  from genbench_jax.models import weights

  for part, tree in shapes.items():
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    path = folder / part / f"{stem}.safetensors"
    save_file(random_weights(weights.torch_shapes(tree), seed), path)


def _write_weights(path: Path, shapes: Mapping[str, Any], seed: int) -> None:
  from safetensors.numpy import save_file

  from genbench_jax.models import weights

  save_file(random_weights(weights.torch_shapes(shapes), seed), path)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value, indent=2) + "\n")


def pixel_reader(
  pixels: Float[np.ndarray, "n h w 3"],
) -> Callable[[Int[np.ndarray, "m"], int], Iterator[Float[np.ndarray, "b h w 3"]]]:
  """Return a function that reads rows of an array in batches, the last one padded, like the input pipeline."""

  from genbench_jax.runtime.mesh import pad_rows

  def read(rows: Int[np.ndarray, "m"], batch_size: int) -> Iterator[Float[np.ndarray, "b h w 3"]]:
    for start in range(0, len(rows), batch_size):
      yield pad_rows(pixels[rows[start : start + batch_size]], batch_size)

  return read
