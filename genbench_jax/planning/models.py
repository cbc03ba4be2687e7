"""Cost of the models of a config: operations per image, bytes on a chip, local availability."""

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from genbench_jax.config import Generation
from genbench_jax.diffusion.backends import is_function
from genbench_jax.diffusion.settings import DECODED_AT_ONCE
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.checkpoints import is_single_file, read_json, weight_files
from genbench_jax.models.single_file import single_file_configs
from genbench_jax.planning import work

Settings = Mapping[str, Any]
# Ratio of temporaries to the largest activation. For an image of SD 2.1-base, the UNet's
# temporaries are 0.06 GB by the TPU compiler's analysis and 0.095 GB by the GPU's, 1.4 and 2.3
# times its largest activation. The decoder's factor is a similar estimate.
UNET_TEMPORARIES, DECODER_TEMPORARIES = 2.3, 3.5
BYTES = 2  # bfloat16
TEXT_DEFAULTS = {
  "vocab_size": 49408,
  "max_position_embeddings": 77,
  "hidden_size": 512,
  "intermediate_size": 2048,
  "num_hidden_layers": 12,
}
VISION_DEFAULTS = {
  "image_size": 224,
  "patch_size": 32,
  "hidden_size": 768,
  "intermediate_size": 3072,
  "num_hidden_layers": 12,
}
SIGLIP_TOWER = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
SIGLIP_TEXT = {**SIGLIP_TOWER, "vocab_size": 32000, "max_position_embeddings": 64}
SIGLIP_VISION = {**SIGLIP_TOWER, "image_size": 224, "patch_size": 16}
DINOV2_DEFAULTS = {
  "patch_size": 14,
  "hidden_size": 768,
  "mlp_ratio": 4,
  "num_hidden_layers": 12,
}
DINOV3_DEFAULTS = {
  "patch_size": 16,
  "hidden_size": 384,
  "intermediate_size": 1536,
  "num_hidden_layers": 12,
}
# Operations (two per multiply-add) and parameters of the Inception-v3 of FID at 299 x 299.
INCEPTION_FLOPS, INCEPTION_WEIGHTS = 1.14e10, 23_885_392


@dataclasses.dataclass(frozen=True)
class ModelCost:
  """Cost of one checkpoint.

  Attributes:
    checkpoint: its name in the config.
    folder: its folder; None if it is not on this machine.
    flops: operations per image; None if the architecture is unknown.
    weights: number of parameters.
    pixels: pixels of a generated image.
    width: width of the features.
    temporaries: bytes per chip besides the weights; None if unknown.
    text_flops: operations per text of a CLIP; None if unknown.
  """

  checkpoint: str
  folder: Path | None
  flops: float | None
  weights: int = 0
  pixels: int = 0
  width: int = 512
  temporaries: float | None = None
  text_flops: float | None = None

  @property
  def memory(self) -> float | None:
    """Bytes on a chip."""
    return None if self.temporaries is None else self.temporaries + BYTES * self.weights


def diffusion_cost(settings: Generation) -> ModelCost:
  """Return the cost of the diffusion model with the settings of a config.

  That of a function of the user's is unknown, and so is that of a pipeline that is no Stable Diffusion.
  """
  if is_function(settings.backend):
    return ModelCost(settings.backend, Path(), None, pixels=settings.height * settings.width)
  folder, parts = _found(settings.checkpoint, settings.revision, "diffusion")
  if parts is None:
    return ModelCost(settings.checkpoint, folder, None, pixels=settings.height * settings.width)
  unet, vae, text = parts["unet"], parts["vae"], parts["text_encoder"]
  factor = 2 ** (len(vae["block_out_channels"]) - 1)
  # Counted for a square of the same area.
  own = unet["sample_size"] * factor
  pixels = (settings.height or own) * (settings.width or own)
  side = round((pixels**0.5) / factor)
  # Without guidance, or if the scale is an input of the model, each step has one evaluation.
  rows = 1 if settings.guidance_scale <= 1 or unet.get("time_cond_proj_dim") else 2
  evaluations = len(settings.timesteps) or settings.steps + (settings.scheduler == "pndm")
  step = work.unet(unet, side, text["max_position_embeddings"])
  decoded, encoded = work.decoder(vae, side), work.text_tower(text)
  if "text_encoder_2" in parts:
    encoded += work.text_tower(parts["text_encoder_2"])
  batch = settings.batch_per_device or 1  # 0 means the largest batch that fits, at least one image
  at_once = min(batch, max(1, DECODED_AT_ONCE // pixels))
  temporaries = BYTES * (
    batch * rows * UNET_TEMPORARIES * step.largest + at_once * DECODER_TEMPORARIES * decoded.largest
  )
  return ModelCost(
    settings.checkpoint,
    folder,
    rows * (evaluations * step.flops + encoded.flops) + decoded.flops,
    step.weights + decoded.weights + encoded.weights,
    pixels,
    temporaries=temporaries,
  )


def encoder_cost(checkpoint: str, revision: str, batch_per_device: int) -> ModelCost:
  """Return the cost of a CLIP or SigLIP encoder; SigLIP's pooling, about 1 % of it, is left out.

  Args:
    checkpoint: folder or hub id.
    revision: revision of a hub id.
    batch_per_device: images on each device at once.
  """
  folder, config = _found(checkpoint, revision, "clip")
  if config is None:
    return ModelCost(checkpoint, folder, None)
  image = work.image_tower(config["vision_config"], config["projection_dim"])
  text = work.text_tower(config["text_config"])
  temporaries = BYTES * batch_per_device * UNET_TEMPORARIES * image.largest
  weights = image.weights + text.weights
  width = config["projection_dim"]
  return ModelCost(checkpoint, folder, image.flops, weights, 0, width, temporaries, text.flops)


def feature_cost(checkpoint: str, revision: str, batch_per_device: int) -> ModelCost:
  """Return the cost of the image tower of an additional encoder.

  Args:
    checkpoint: folder or hub id.
    revision: revision of a hub id.
    batch_per_device: images on each device at once.
  """
  if checkpoint.partition(":")[0] == "inception":
    return ModelCost(checkpoint, None, INCEPTION_FLOPS, INCEPTION_WEIGHTS, width=2048)
  folder = local_folder(checkpoint, revision)
  shipped = dict(_published(checkpoint, "model_type") or {})
  config = read_json(folder / "config.json") if folder is not None else shipped
  kind = str(config.get("model_type"))
  if not kind.startswith(("dinov2", "dinov3")):
    return encoder_cost(checkpoint, revision, batch_per_device)
  from genbench_jax.models.image_encoder import load_image_input

  given = (DINOV2_DEFAULTS if kind.startswith("dinov2") else DINOV3_DEFAULTS) | config
  width = given["hidden_size"]
  inner = given.get("intermediate_size") or given["mlp_ratio"] * width
  size = given["image_size"] if folder is None else load_image_input(folder).size
  settings = given | {"image_size": size, "intermediate_size": inner}
  image = work.image_tower(settings, 0)
  temporaries = BYTES * batch_per_device * UNET_TEMPORARIES * image.largest
  return ModelCost(checkpoint, folder, image.flops, image.weights, 0, width, temporaries)


def _found(checkpoint: str, revision: str, kind: str) -> tuple[Path | None, Settings | None]:
  """Return the local folder of a checkpoint and its configuration, each None if unknown."""
  if kind == "diffusion" and is_single_file(checkpoint):
    path = Path(checkpoint).expanduser()
    configs = single_file_configs(path)
    return path.parent, {part: settings.values for part, settings in configs.items()}
  folder = local_folder(checkpoint, revision)
  try:
    if folder is not None and kind == "clip":
      weight_files(folder)
      return folder, _clip_settings(read_json(folder / "config.json"))
    if folder is not None:
      parts: tuple[str, ...] = ("unet", "vae", "text_encoder")
      parts += ("text_encoder_2",) if (folder / "text_encoder_2").is_dir() else ()
      for part in parts:
        weight_files(folder / part)
      return folder, {part: read_json(folder / part / "config.json") for part in parts}
  except RunError:
    folder = None  # incomplete download, or no Stable Diffusion
  return folder, _published(checkpoint, "vision_config" if kind == "clip" else "unet")


def _published(checkpoint: str, part: str) -> Settings | None:
  """Return the published configuration of a hub id, if it is one with this part."""
  import yaml

  shipped = resources.files("genbench_jax.planning").joinpath("architectures.yaml")
  found = yaml.safe_load(shipped.read_text(encoding="utf-8"))["hub"].get(checkpoint)
  return found if found and part in found else None


def _clip_settings(config: Settings) -> Settings:
  """Return settings with the defaults that configurations of CLIP and SigLIP omit."""
  if config.get("model_type") == "siglip":
    vision = SIGLIP_VISION | (config.get("vision_config") or {})
    text = SIGLIP_TEXT | (config.get("text_config") or {})
    return {"projection_dim": vision["hidden_size"], "text_config": text, "vision_config": vision}
  return {
    "projection_dim": config.get("projection_dim", 512),
    "text_config": TEXT_DEFAULTS | (config.get("text_config") or {}),
    "vision_config": VISION_DEFAULTS | (config.get("vision_config") or {}),
  }


def local_folder(checkpoint: str, revision: str = "") -> Path | None:
  """Return the local folder of a checkpoint; never uses the network."""
  from huggingface_hub import snapshot_download
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError

  from genbench_jax.models import checkpoints

  if checkpoints.is_shipped(checkpoint) or Path(checkpoint).expanduser().is_dir():
    return checkpoints.locate(checkpoint)
  try:
    return Path(snapshot_download(checkpoint, revision=revision or None, local_files_only=True))
  except (OSError, ValueError, HfHubHTTPError, HFValidationError, UsageError):
    return None
