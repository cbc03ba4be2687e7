"""Read single-file checkpoints in the original layout (`.safetensors` of Stable Diffusion 1, 2 and XL).

The file contains the U-Net, the autoencoder and the text encoders under the original code's names.
Configurations follow from the tensors' shapes; tokenizers are CLIP's. Nothing is converted on disk.
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.checkpoints import Weights, under
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_parts import CheckpointParts
from genbench_jax.models.original_autoencoder import autoencoder
from genbench_jax.models.original_text import TOWERS, text_tower
from genbench_jax.models.original_unet import unet_config, unet_names_of

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TOKENIZER = "openai/clip-vit-large-patch14"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
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
  unet = under(tensors, UNET)
  if not unet:
    raise RunError(
      f"{path} contains no U-Net in the original layout (tensors {UNET}...). Give a folder in the Hugging Face layout."
    )
  towers = {TOWERS[prefix][0]: prefix for prefix in TOWERS if under(tensors, prefix)}
  if not towers:
    raise RunError(f"{path} contains no text encoder.")
  configs, weights = {}, {}
  configs["unet"] = unet_config(path, unet, len(towers) == 2)
  weights["unet"] = _renamed(path, unet, unet_names_of(configs["unet"]))
  for part, prefix in towers.items():
    configs[part], weights[part] = text_tower(path, tensors, prefix)
  if own := under(tensors, VAE):
    configs["vae"], weights["vae"] = autoencoder(own, len(towers) == 2)
  configs["scheduler"] = _scheduler(tensors, checkpoints.read_notes(path), len(towers) == 2)
  settings = {part: Settings(config, path, f"{part}.") for part, config in configs.items()}
  return settings, weights, towers


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
