"""Load checkpoints in OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`.

The network is that of CLIP: only the configuration and the tensor names are translated to those of
`clip_network`. Towers from timm or transformers, and blocks that CLIP does not have, are rejected by name.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.clip import (
  OPEN_CLIP_CONFIG as CONFIG,
  OPEN_CLIP_WEIGHTS as WEIGHTS,
  Clip,
  read_network,
  shapes_of,
)
from genbench_jax.models.configuration import MOST_VOCABULARY, Settings
from genbench_jax.models.image_input import OPENAI_MEAN, OPENAI_STD, ImageInput, triple
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.tokenizer import load_tokenizer, refuse_ids_beyond

# Our name of a module in a layer -> OpenCLIP's.
LAYER = {
  "layer_norm1": "ln_1",
  "layer_norm2": "ln_2",
  "self_attn.out_proj": "attn.out_proj",
  "mlp.fc1": "mlp.c_fc",
  "mlp.fc2": "mlp.c_proj",
}
# Supported settings of each tower. Others must be missing, null, false, or have CLIP's value.
UNDERSTOOD = {
  "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"},
  "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"},
}  # fmt: skip
AS_CLIP = {
  "pool_type": ("tok", "argmax"),
  "pos_embed_type": ("learnable",),
  "proj_type": ("linear",),
}
# Used only in training, or together with a setting that is rejected.
WITHOUT_EFFECT = {
  "patch_dropout", "pad_id", "eos_id", "attn_pooler_queries", "attn_pooler_heads", "tokenizer_kwargs", "timm_pool",
  "timm_proj", "timm_drop", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type",
}  # fmt: skip
ENDS = {
  "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
  "text_model.embeddings.position_embedding.weight": "positional_embedding",
  "text_model.final_layer_norm.weight": "ln_final.weight",
  "text_model.final_layer_norm.bias": "ln_final.bias",
  "vision_model.embeddings.class_embedding": "visual.class_embedding",
  "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
  "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
  "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
  "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
  "vision_model.post_layernorm.weight": "visual.ln_post.weight",
  "vision_model.post_layernorm.bias": "visual.ln_post.bias",
  "logit_scale": "logit_scale",
}
# Stored as [in, out], unlike PyTorch's linear layers, which are [out, in].
PROJECTIONS = {
  "text_projection.weight": "text_projection",
  "visual_projection.weight": "visual.proj",
}


def load_open_clip(folder: Path, dtype: Any = None) -> Clip:
  """Load a CLIP in OpenCLIP's layout from its folder.

  Raises:
    RunError: the checkpoint is incomplete, corrupt, or does not have CLIP's architecture.
  """
  dtype = compute_dtype() if dtype is None else dtype
  path = folder / CONFIG
  asked = Settings(checkpoints.read_json(path), path)
  settings = clip_settings(asked.section("model_cfg"))
  network = read_network(settings, dtype)
  tokenizer = load_tokenizer(folder)
  refuse_ids_beyond(tokenizer, network.text.vocabulary, folder)
  tensors = checkpoints.read_safetensors(folder / WEIGHTS)
  layers = network.vision.encoder.layers, network.text.encoder.layers
  return Clip(
    module=network,
    params=weights.load(_renamed(tensors, layers, path), shapes_of(network), folder, dtype),
    tokenizer=tokenizer,
    max_tokens=min(tokenizer.model_max_length, network.text.positions),
    input=_image_input(asked, network.vision.image_size),
    fingerprint=checkpoints.fingerprint(folder),
  )


def clip_settings(model: Settings) -> Settings:
  """Translate `model_cfg` to what `clip.read_network` reads.

  Raises:
    RunError: a tower is not one of CLIP's.
  """
  towers = {name: model.section(name) for name in UNDERSTOOD}
  for name, tower in towers.items():
    _refuse_other_towers(tower, UNDERSTOOD[name])
  vision, text = towers.values()
  both = {"hidden_act": "quick_gelu" if model.flag("quick_gelu", False) else "gelu"}
  width = vision.integer("width", 768)
  found = {
    "model_type": "clip",
    "projection_dim": model.integer("embed_dim"),
    "vision_config": both | _sizes(vision, width) | {
      "num_attention_heads": width // vision.integer("head_width", 64),
      "image_size": vision.integer("image_size", 224), "patch_size": vision.integer("patch_size", 16),
    },
    "text_config": both | _sizes(text, text.integer("width", 512)) | {
      "num_attention_heads": text.integer("heads", 8), "vocab_size": text.integer("vocab_size", 49408, high=MOST_VOCABULARY),
      "max_position_embeddings": text.integer("context_length", 77),
    },
  }  # fmt: skip
  return Settings(found, model.path)


def _sizes(tower: Settings, width: int) -> dict[str, Any]:
  return {
    "hidden_size": width,
    "num_hidden_layers": tower.integer("layers", 12),
    "intermediate_size": int(width * tower.number("mlp_ratio", 4, high=64)),
  }


def _refuse_other_towers(tower: Settings, understood: set[str]) -> None:
  for name, value in tower.values.items():
    plain = name in understood | WITHOUT_EFFECT or value in (None, False)
    if not plain and value not in AS_CLIP.get(name, ()):
      raise tower.error(name, "only the towers of CLIP are supported")


def _image_input(asked: Settings, size: int) -> ImageInput:
  """Translate `preprocess_cfg`, whose names differ from those of `preprocessor_config.json`."""
  given = asked.section("preprocess_cfg")
  mode = given.choice("resize_mode", "shortest", ("shortest", "squash"))
  return ImageInput(
    size,
    keep_aspect=mode == "shortest",
    filter=given.choice("interpolation", "bicubic", ("bicubic", "bilinear")),
    mean=triple(given, "mean", OPENAI_MEAN, -1e3),
    std=triple(given, "std", OPENAI_STD, 1e-6),
  )


def _renamed(
  tensors: checkpoints.Weights, layers: tuple[int, int], path: Path
) -> checkpoints.Weights:
  """Return the tensors by our names. `layers` are the depths of the vision and the text tower."""
  try:
    found = {ours: tensors[theirs] for ours, theirs in ENDS.items()}
    for ours, theirs in PROJECTIONS.items():
      found[ours] = functools.partial(_transposed, tensors[theirs])
    for theirs, ours, depth in zip(
      ("visual.", ""), ("vision_model", "text_model"), layers, strict=True
    ):
      for layer in range(depth):
        names = f"{theirs}transformer.resblocks.{layer}.", f"{ours}.encoder.layers.{layer}."
        found |= layer_tensors(tensors, *names)
  except KeyError as error:
    raise RunError(f"{path.parent / WEIGHTS} lacks {error}, which {CONFIG} requires.") from error
  return found


def layer_tensors(tensors: checkpoints.Weights, theirs: str, ours: str) -> checkpoints.Weights:
  """Return the tensors of one layer by our names.

  Args:
    tensors: tensors of the checkpoint.
    theirs, ours: prefix of the layer's names in OpenCLIP's and our layout.
  """
  found: checkpoints.Weights = {}
  for leaf in ("weight", "bias"):
    for name, original in LAYER.items():
      found[f"{ours}{name}.{leaf}"] = tensors[f"{theirs}{original}.{leaf}"]
    # OpenCLIP stores the projections of queries, keys and values as one matrix.
    for part, name in enumerate("qkv"):
      read = tensors[f"{theirs}attn.in_proj_{leaf}"]
      found[f"{ours}self_attn.{name}_proj.{leaf}"] = functools.partial(_third, read, part)
  return found


def _third(read: Callable[[], np.ndarray], part: int) -> np.ndarray:
  return np.split(read(), 3)[part]


def _transposed(read: Callable[[], np.ndarray]) -> np.ndarray:
  return read().T
