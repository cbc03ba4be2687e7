"""Locate the parts of a diffusion checkpoint: configurations, weights and tokenizers. Builds no network."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.models import checkpoints
from genbench_jax.models.configuration import Settings

DOWNLOADS = (
  "model_index.json",
  "scheduler/scheduler_config.json",
  "tokenizer/*.json",
  "tokenizer/merges.txt",
  "tokenizer_2/*.json",
  "tokenizer_2/merges.txt",
  *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
  *(f"{part}/diffusion_pytorch_model*safetensors*" for part in ("unet", "vae")),
  *(f"{part}/diffusion_flax_model.msgpack" for part in ("unet", "vae")),
  *(f"{part}/model*safetensors*" for part in ("text_encoder", "text_encoder_2")),
  *(f"{part}/flax_model.msgpack" for part in ("text_encoder", "text_encoder_2")),
)
# Files of an autoencoder alone, or of that of a pipeline.
AUTOENCODER_DOWNLOADS = tuple(
  folder + name
  for folder in ("", "vae/")
  for name in ("config.json", "diffusion_pytorch_model*safetensors*")
)
TEXT_PARTS = ("text_encoder", "text_encoder_2")


class CheckpointParts(NamedTuple):
  """A diffusion checkpoint in any layout.

  Attributes:
    where: its folder or file, for messages.
    configs: part (`unet`, `vae`, `text_encoder`, `text_encoder_2`, `scheduler`) -> settings.
    weights: part -> tensor name -> function that reads the tensor.
    tokenizers: tokenizer folder of each text encoder.
    pads: padding token of each tokenizer; None for the tokenizer's own.
    pipeline: content of `model_index.json`; empty if there is none.
    fingerprint: digest of the whole checkpoint.
  """

  where: Path
  configs: Mapping[str, Settings]
  weights: Mapping[str, checkpoints.Weights]
  tokenizers: tuple[Path, ...]
  pads: tuple[str | None, ...]
  pipeline: Mapping[str, Any]
  fingerprint: str


def folder_configs(folder: Path) -> dict[str, Settings]:
  """Return the configuration of every part of a folder in the Hugging Face layout.

  Raises:
    RunError: a configuration is missing or unreadable.
  """
  parts = ["unet", "vae", "text_encoder"]
  parts += ["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else []
  return {part: part_settings(folder, part) for part in parts}


def part_settings(folder: Path, part: str) -> Settings:
  """Return the configuration of one part.

  Raises:
    RunError: it is missing or unreadable.
  """
  path = folder / part / "config.json"
  return Settings(checkpoints.read_json(path), path)


def folder_parts(folder: Path) -> CheckpointParts:
  """Locate the parts of a folder in the Hugging Face layout: `model_index.json` and a folder per part.

  Raises:
    RunError: a part is missing or damaged.
  """
  configs = folder_configs(folder)
  scheduler = folder / "scheduler" / "scheduler_config.json"
  index = folder / "model_index.json"
  towers = [part for part in TEXT_PARTS if part in configs]
  return CheckpointParts(
    where=folder,
    configs={**configs, "scheduler": Settings(checkpoints.read_json(scheduler), scheduler)},
    weights={part: checkpoints.read_weights(folder / part) for part in configs},
    tokenizers=tuple(folder / part.replace("text_encoder", "tokenizer") for part in towers),
    pads=(None,) * len(towers),
    pipeline=checkpoints.read_json(index) if index.is_file() else {},
    fingerprint=checkpoints.fingerprint(folder),
  )


def with_autoencoder(parts: CheckpointParts, autoencoder: str) -> CheckpointParts:
  """Replace a checkpoint's autoencoder by one from a folder or hub id.

  `autoencoder` has a `config.json` itself, or a subfolder `vae` if it is a pipeline.

  Raises:
    UsageError: there is no such folder or hub id.
    RunError: the autoencoder is incomplete or damaged.
  """
  folder = checkpoints.locate(autoencoder, None, AUTOENCODER_DOWNLOADS)
  folder = folder / "vae" if (folder / "vae").is_dir() else folder
  path = folder / "config.json"
  both = f"{parts.fingerprint} {checkpoints.fingerprint(folder)}"
  return parts._replace(
    configs={**parts.configs, "vae": Settings(checkpoints.read_json(path), path)},
    weights={**parts.weights, "vae": checkpoints.read_weights(folder)},
    fingerprint=hashlib.sha256(both.encode()).hexdigest(),
  )
