"""The text encoders of Stable Diffusion in a single file: CLIP's layout and OpenCLIP's."""

from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.models.checkpoints import Weights, numbered, tensor_shape, under
from genbench_jax.models.open_clip import layer_tensors

# Prefix in the file -> (part, whether the layout is OpenCLIP's).
TOWERS = {
  "cond_stage_model.transformer.": ("text_encoder", False),
  "cond_stage_model.model.": ("text_encoder", True),
  "conditioner.embedders.0.transformer.": ("text_encoder", False),
  "conditioner.embedders.1.model.": ("text_encoder_2", True),
}


def text_tower(path: Path, tensors: Weights, prefix: str) -> tuple[dict[str, Any], Weights]:
  """Return a text encoder's configuration and the readers of its tensors under our names.

  Args:
    path: the checkpoint, for messages.
    tensors: tensors of the whole file.
    prefix: one of `TOWERS`.

  Raises:
    RunError: a tensor is missing.
  """
  part, is_open_clip = TOWERS[prefix]
  own = under(tensors, prefix)
  own = {name: read for name, read in own.items() if not name.endswith("position_ids")}
  if not is_open_clip:
    table = tensor_shape(own, "text_model.embeddings.token_embedding.weight")
    layers = numbered(own, r"text_model\.encoder\.layers\.(\d+)\.")
    inner = tensor_shape(own, "text_model.encoder.layers.0.mlp.fc1.weight")[0]
    positions = tensor_shape(own, "text_model.embeddings.position_embedding.weight")[0]
    return _text_config(table, layers, inner, positions, "quick_gelu", max(1, table[1] // 64)), own
  return _open_clip(path, own, part)


def _text_config(
  table: tuple[int, ...], layers: int, inner: int, positions: int, activation: str, heads: int
) -> dict[str, Any]:
  return {
    "vocab_size": table[0],
    "hidden_size": table[1],
    "num_hidden_layers": layers,
    "intermediate_size": inner,
    "max_position_embeddings": positions,
    "hidden_act": activation,
    "num_attention_heads": heads,
  }


def _open_clip(path: Path, tensors: Weights, part: str) -> tuple[dict[str, Any], Weights]:
  """Read a text encoder in OpenCLIP's layout.

  Stable Diffusion 2 uses the penultimate layer with the final norm, so the last layer is dropped, as in the
  converted checkpoints. SDXL's second encoder keeps it, for the pooled text.
  """
  count = numbered(tensors, r"transformer\.resblocks\.(\d+)\.")
  if not count:
    raise RunError(f"{path} contains no text encoder in OpenCLIP's layout.")
  layers = count if part == "text_encoder_2" else count - 1
  table = tensor_shape(tensors, "token_embedding.weight")
  inner = tensor_shape(tensors, "transformer.resblocks.0.mlp.c_fc.weight")[0]
  positions = tensor_shape(tensors, "positional_embedding")[0]
  config = _text_config(table, layers, inner, positions, "gelu", max(1, table[1] // 64))
  above = "text_model."
  weights: Weights = {
    f"{above}embeddings.token_embedding.weight": tensors["token_embedding.weight"],
    f"{above}embeddings.position_embedding.weight": tensors["positional_embedding"],
    f"{above}final_layer_norm.weight": tensors["ln_final.weight"],
    f"{above}final_layer_norm.bias": tensors["ln_final.bias"],
  }
  for layer in range(layers):
    names = f"transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}."
    weights |= layer_tensors(tensors, *names)
  if part == "text_encoder_2":
    config["projection_dim"] = tensor_shape(tensors, "text_projection")[1]
    weights["text_projection.weight"] = lambda: tensors["text_projection"]().T
  return config, weights
