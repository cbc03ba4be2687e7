"""Read single-file checkpoints in the original layout (`.safetensors` of Stable Diffusion 1, 2 and XL).

The file contains the U-Net, the autoencoder and the text encoders under the original code's names.
Configurations follow from the tensors' shapes; tokenizers are CLIP's. Nothing is converted on disk.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.checkpoints import Weights
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_parts import CheckpointParts
from genbench_jax.models.open_clip import layer_tensors

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TOKENIZER = "openai/clip-vit-large-patch14"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
# Text encoders: prefix in the file -> (part, whether the layout is OpenCLIP's).
TOWERS = {
  "cond_stage_model.transformer.": ("text_encoder", False),
  "cond_stage_model.model.": ("text_encoder", True),
  "conditioner.embedders.0.transformer.": ("text_encoder", False),
  "conditioner.embedders.1.model.": ("text_encoder_2", True),
}
# Our module names -> the original code's, inside a residual block and outside of the blocks.
RESNET = {
  "norm1": "in_layers.0",
  "conv1": "in_layers.2",
  "time_emb_proj": "emb_layers.1",
  "norm2": "out_layers.0",
  "conv2": "out_layers.3",
  "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
  "time_embedding.linear_1": "time_embed.0",
  "time_embedding.linear_2": "time_embed.2",
  "add_embedding.linear_1": "label_emb.0.0",
  "add_embedding.linear_2": "label_emb.0.2",
  "time_embedding.cond_proj": "time_embed.cond_proj",
  "conv_in": "input_blocks.0.0",
  "conv_norm_out": "out.0",
  "conv_out": "out.2",
}
VAE_ATTENTION = {
  "group_norm": "norm",
  "to_q": "q",
  "to_k": "k",
  "to_v": "v",
  "to_out.0": "proj_out",
}
# The noise schedule that all Stable Diffusion models were trained with; files do not store it.
SCHEDULE = {
  "beta_start": 0.00085,
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "num_train_timesteps": 1000,
  "steps_offset": 1,
  "clip_sample": False,
}


def single_file_parts(path: Path) -> CheckpointParts:
  """Return the parts of a single-file checkpoint.

  Args:
    path: the `.safetensors` file. CLIP's tokenizer comes from a folder `tokenizer` next to it, or from the
      hub.

  Raises:
    UsageError: the tokenizer is neither next to the file nor on the hub.
    RunError: the file is damaged or not a Stable Diffusion.
  """
  configs, weights, towers = _contents(path)
  folder = _tokenizer_folder(path)
  # OpenCLIP pads with token 0 ("!"), OpenAI with the end-of-text token.
  pads = tuple("!" if TOWERS[prefix][1] else None for prefix in towers.values())
  # The tokenizer affects the images but is not in the file, so the fingerprint must cover both.
  both = f"{checkpoints.file_digest(path)} {checkpoints.fingerprint(folder)}"
  return CheckpointParts(
    where=path,
    configs=configs,
    weights=weights,
    tokenizers=tuple(folder for _ in towers),
    pads=pads,
    pipeline={},
    fingerprint=hashlib.sha256(both.encode()).hexdigest(),
  )


def single_file_configs(path: Path) -> dict[str, Settings]:
  """Return the configuration of every part of a single-file checkpoint. No tokenizer is needed.

  Raises:
    RunError: the file is damaged or contains another model.
  """
  return _contents(path)[0]


def _contents(path: Path) -> tuple[dict[str, Settings], dict[str, Weights], dict[str, str]]:
  """Return configurations and weights of the parts, and the prefix of each text tower."""
  tensors = checkpoints.read_safetensors(path)
  unet = {name.removeprefix(UNET): read for name, read in tensors.items() if name.startswith(UNET)}
  if not unet:
    raise RunError(
      f"{path} contains no U-Net in the original layout (tensors {UNET}...). Give a folder in the Hugging Face layout."
    )
  towers = {TOWERS[prefix][0]: prefix for prefix in TOWERS if _has(tensors, prefix)}
  if not towers:
    raise RunError(f"{path} contains no text encoder.")
  configs, weights = {}, {}
  unet_config = _unet_config(path, unet, len(towers) == 2)
  configs["unet"] = unet_config
  weights["unet"] = _renamed(path, unet, unet_names_of(unet_config))
  for part, prefix in towers.items():
    configs[part], weights[part] = _tower(path, tensors, prefix, part)
  own = {name.removeprefix(VAE): read for name, read in tensors.items() if name.startswith(VAE)}
  if own:
    configs["vae"], weights["vae"] = _autoencoder(own, len(towers) == 2)
  configs["scheduler"] = _scheduler(tensors, checkpoints.read_notes(path), len(towers) == 2)
  settings = {part: Settings(config, path, f"{part}.") for part, config in configs.items()}
  return settings, weights, towers


def _has(tensors: Iterable[str], prefix: str) -> bool:
  return any(name.startswith(prefix) for name in tensors)


def _tokenizer_folder(path: Path) -> Path:
  beside = path.parent / "tokenizer"
  return beside if beside.is_dir() else checkpoints.locate(TOKENIZER, None, TOKENIZER_FILES)


def _renamed(path: Path, tensors: Weights, names: Mapping[str, str]) -> Weights:
  """Return the readers of tensors under our names.

  Raises:
    RunError: the file lacks a tensor, or has an unexpected one.
  """
  missing, extra = names.keys() - tensors.keys(), tensors.keys() - names.keys()
  if missing or extra:
    what = "lacks" if missing else "has tensors that the model has no place for:"
    raise RunError(f"{path} {what} {', '.join(sorted(missing or extra)[:5])}.")
  return {ours: tensors[theirs] for theirs, ours in names.items()}


def _shape(tensors: Weights, name: str) -> tuple[int, ...]:
  try:
    return tuple(np.shape(tensors[name]()))
  except KeyError as error:
    raise RunError(f"the checkpoint lacks {name}.") from error


# ---- U-Net --------------------------------------------------------------------------------------


def _unet_config(path: Path, tensors: Weights, two_towers: bool) -> dict[str, Any]:
  """Derive the U-Net's configuration from the names and shapes of its tensors."""
  entry = _shape(tensors, "input_blocks.0.0.weight")
  widths, depths, layers = [entry[0]], [0], [0]
  count = 1 + max(int(match[1]) for name in tensors if (match := _block(name)))
  for index in range(1, count):
    if f"input_blocks.{index}.0.op.weight" in tensors:
      widths, depths, layers = [*widths, 0], [*depths, 0], [*layers, 0]
      continue
    widths[-1] = _shape(tensors, f"input_blocks.{index}.0.out_layers.3.weight")[0]
    layers[-1] += 1
    depths[-1] = _depth(tensors, f"input_blocks.{index}.1.")
  if len(set(layers)) != 1:
    raise RunError(
      f"{path}: levels of the U-Net with different numbers of blocks are not supported."
    )
  middle = _depth(tensors, "middle_block.1.")
  text = _shape(tensors, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]
  linear = len(_shape(tensors, "middle_block.1.proj_in.weight")) == 2
  config: dict[str, Any] = {
    "in_channels": entry[1],
    "out_channels": _shape(tensors, "out.2.weight")[0],
    "block_out_channels": widths,
    "layers_per_block": layers[0],
    "cross_attention_dim": text,
    # Stable Diffusion 1 has 8 heads at every level; later models have heads of 64 channels.
    "attention_head_dim": [width // 64 for width in widths] if linear else 8,
    "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), middle],
    "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
    "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)],
    "use_linear_projection": linear,
    "sample_size": 128 if two_towers else 64,
  }
  if "label_emb.0.0.weight" in tensors:
    width = _shape(tensors, "label_emb.0.0.weight")[1]
    config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    config["projection_class_embeddings_input_dim"] = width
  return config


def _block(name: str) -> re.Match[str] | None:
  return re.match(r"input_blocks\.(\d+)\.", name)


def _depth(tensors: Iterable[str], prefix: str) -> int:
  """Count the transformer blocks under a prefix."""
  pattern = re.compile(re.escape(prefix) + r"transformer_blocks\.(\d+)\.")
  return 1 + max((int(match[1]) for name in tensors if (match := pattern.match(name))), default=-1)


def unet_names_of(config: Mapping[str, Any]) -> dict[str, str]:
  """Return original name -> our name for every tensor of the U-Net that a configuration describes."""
  from genbench_jax.models import weights
  from genbench_jax.models.stable_diffusion import unet_shapes

  shapes = unet_shapes(Settings(config, Path("unet")))
  return unet_names(weights.torch_shapes(shapes))


def unet_names(ours: Collection[str]) -> dict[str, str]:
  """Return original name -> our name, for our names of a U-Net's tensors."""
  found = [re.match(r"down_blocks\.\d+\.resnets\.(\d+)\.", name) for name in ours]
  layers = 1 + max(int(match[1]) for match in found if match)
  attending = {match[1] for name in ours if (match := re.match(r"(up_blocks\.\d+)\.att", name))}
  return {_original(name, layers, attending): name for name in ours}


def _original(name: str, layers: int, attending: Collection[str]) -> str:
  """Return the original code's name of one of our tensors.

  The original numbers all blocks consecutively. On the way down, each level has its layers and then a
  downsampling block. On the way up, it has one layer more, and the last block also upsamples.
  """
  for ours, theirs in UNET_ENDS.items():
    if name.startswith(f"{ours}."):
      return theirs + name.removeprefix(ours)
  path = name.split(".")
  if path[0] == "mid_block":
    index, kind, rest = int(path[2]), path[1], path[3:]
    block = f"middle_block.{1 if kind == 'attentions' else 2 * index}"
    return f"{block}.{_inside(kind, rest)}"
  level, kind, index, rest = int(path[1]), path[2], int(path[3]), path[4:]
  if path[0] == "down_blocks":
    if kind == "downsamplers":
      return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest[-1]}"
    block = f"input_blocks.{1 + level * (layers + 1) + index}"
  else:
    last = kind == "upsamplers"
    block = f"output_blocks.{level * (layers + 1) + (layers if last else index)}"
    if last:
      return f"{block}.{2 if f'up_blocks.{level}' in attending else 1}.conv.{rest[-1]}"
  return f"{block}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: list[str]) -> str:
  return ".".join(rest if kind == "attentions" else [RESNET[rest[0]], *rest[1:]])


# ---- autoencoder --------------------------------------------------------------------------------


def _autoencoder(tensors: Weights, two_towers: bool) -> tuple[dict[str, Any], Weights]:
  """Return the autoencoder's configuration and the readers of its tensors."""
  levels = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"encoder\.down\.(\d+)\.", n)))
  widths = [_shape(tensors, f"encoder.down.{i}.block.0.conv2.weight")[0] for i in range(levels)]
  layers = 1 + max(
    int(m[1]) for n in tensors if (m := re.match(r"encoder\.down\.0\.block\.(\d+)\.", n))
  )
  config = {
    "block_out_channels": widths,
    "layers_per_block": layers,
    "latent_channels": _shape(tensors, "decoder.conv_in.weight")[1],
    "down_block_types": ["DownEncoderBlock2D"] * levels,
    "up_block_types": ["UpDecoderBlock2D"] * levels,
    "use_quant_conv": "quant_conv.weight" in tensors,
    "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    "scaling_factor": 0.13025 if two_towers else 0.18215,
    "force_upcast": two_towers,
  }
  weights: Weights = {}
  for name, read in tensors.items():
    if name.startswith(("loss.", "model_ema.")):
      continue  # used in training only
    ours = _our_vae_name(name, levels)
    squeezed = ".attentions." in ours and ours.endswith(".weight")
    weights[ours] = functools.partial(_matrix, read) if squeezed else read
  return config, weights


def _matrix(read: Callable[[], np.ndarray]) -> np.ndarray:
  """Read a projection of the original attention, a 1 x 1 convolution, as a matrix."""
  tensor = read()
  return tensor[..., 0, 0] if tensor.ndim == 4 else tensor


def _our_vae_name(name: str, levels: int) -> str:
  name = re.sub(r"encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets.", name)
  name = re.sub(
    r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", name
  )

  def turned(
    match: re.Match[str],
  ) -> str:  # the original decoder counts from the highest resolution
    return f"decoder.up_blocks.{levels - 1 - int(match[1])}."

  name = re.sub(r"decoder\.up\.(\d+)\.", turned, name)
  name = re.sub(r"(up_blocks\.\d+)\.block\.", r"\1.resnets.", name)
  name = re.sub(r"(up_blocks\.\d+)\.upsample\.", r"\1.upsamplers.0.", name)
  name = name.replace("mid.block_1.", "mid_block.resnets.0.")
  name = name.replace("mid.block_2.", "mid_block.resnets.1.")
  for ours, theirs in VAE_ATTENTION.items():
    name = name.replace(f"mid.attn_1.{theirs}.", f"mid_block.attentions.0.{ours}.")
  return re.sub(r"(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name).replace(
    "nin_shortcut", "conv_shortcut"
  )


# ---- text encoders ------------------------------------------------------------------------------


def _tower(path: Path, tensors: Weights, prefix: str, part: str) -> tuple[dict[str, Any], Weights]:
  """Return a text encoder's configuration and the readers of its tensors."""
  own = {n.removeprefix(prefix): read for n, read in tensors.items() if n.startswith(prefix)}
  own = {name: read for name, read in own.items() if not name.endswith("position_ids")}
  if not TOWERS[prefix][1]:
    table = _shape(own, "text_model.embeddings.token_embedding.weight")
    layers = _depth_of(own, r"text_model\.encoder\.layers\.(\d+)\.")
    inner = _shape(own, "text_model.encoder.layers.0.mlp.fc1.weight")[0]
    positions = _shape(own, "text_model.embeddings.position_embedding.weight")[0]
    return _text_config(table, layers, inner, positions, "quick_gelu", max(1, table[1] // 64)), own
  return _open_clip(path, own, part)


def _depth_of(names: Iterable[str], pattern: str) -> int:
  return 1 + max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=-1)


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
  count = _depth_of(tensors, r"transformer\.resblocks\.(\d+)\.")
  if not count:
    raise RunError(f"{path} contains no text encoder in OpenCLIP's layout.")
  layers = count if part == "text_encoder_2" else count - 1
  table = _shape(tensors, "token_embedding.weight")
  inner = _shape(tensors, "transformer.resblocks.0.mlp.c_fc.weight")[0]
  positions = _shape(tensors, "positional_embedding")[0]
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
    config["projection_dim"] = _shape(tensors, "text_projection")[1]
    weights["text_projection.weight"] = lambda: tensors["text_projection"]().T
  return config, weights


# ---- scheduler ----------------------------------------------------------------------------------


def _scheduler(
  tensors: Collection[str], notes: Mapping[str, str], two_towers: bool
) -> dict[str, Any]:
  """Return the model family's usual scheduler, updated by what the file says about its training.

  Whether a Stable Diffusion 2 predicts noise or velocity cannot be seen from its tensors. Without metadata
  it is treated as a base model, which predicts noise; `scheduler_settings` overrides that.
  """
  prediction = notes.get("modelspec.prediction_type", "")
  velocity = "v_pred" in tensors or prediction.startswith("v")
  usual = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False}
  if two_towers:
    usual = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
  config = SCHEDULE | usual | {"prediction_type": "v_prediction" if velocity else "epsilon"}
  return config | ({"rescale_betas_zero_snr": True} if "ztsnr" in tensors else {})
