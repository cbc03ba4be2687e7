"""Export trained weights as ordinary Hugging Face folders in float16, which ship with the package.

python -m genbench_jax.zoo.export --work runs/zoo
"""

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.models.checkpoints import ZOO

SCHEDULER = {
  "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
  "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
  "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip
MODEL_INDEX = {
  "_class_name": "StableDiffusionPipeline",
  "scheduler": ["diffusers", "DDIMScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"],
  "safety_checker": [None, None],
  "feature_extractor": [None, None],
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--work", type=Path, required=True, help="work folder of the training")
  parser.add_argument("--out", type=Path, default=ZOO, help="folder for the checkpoints")
  arguments = parser.parse_args()
  os.environ.setdefault("USE_TF", "0")
  export_clip(arguments.work, arguments.out / "clip")
  export_diffusion(arguments.work, arguments.out / "diffusion")


def export_clip(work: Path, folder: Path) -> None:
  """Write the CLIP in PyTorch's layout, with tokenizer and preprocessor."""
  from genbench_jax.zoo.train_clip import MEAN, STD, clip_config

  config = clip_config(_vocabulary(work))
  _write(folder, {**config, "architectures": ["CLIPModel"]}, _read(work, "clip"), "model")
  _copy_tokenizer(work, folder)
  preprocessor = {
    "crop_size": 32, "size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "image_mean": MEAN.tolist(), "image_std": STD.tolist(), "resample": 3,
    "feature_extractor_type": "CLIPFeatureExtractor",
  }  # fmt: skip
  _write_json(folder / "preprocessor_config.json", preprocessor)


def export_diffusion(work: Path, folder: Path) -> None:
  """Write the pipeline: U-Net, autoencoder, the CLIP's text encoder, tokenizer and scheduler."""
  from genbench_jax.zoo import train_unet, train_vae
  from genbench_jax.zoo.train_clip import clip_config

  scale = float((work / "scale.txt").read_text(encoding="utf-8"))
  text = clip_config(_vocabulary(work))["text_config"]
  text_params = {"text_model": _read(work, "clip")["text_model"]}
  vae = {"_class_name": "AutoencoderKL", **train_vae.CONFIG, "scaling_factor": scale}
  unet = {"_class_name": "UNet2DConditionModel", **train_unet.CONFIG}
  weights = "diffusion_pytorch_model"
  _write(folder / "unet", unet, _read(work, "unet"), weights)
  _write(folder / "vae", vae, _read(work, "vae"), weights)
  architectures = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
  _write(folder / "text_encoder", {**text, **architectures}, text_params, "model")
  _copy_tokenizer(work, folder / "tokenizer")
  _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
  _write_json(folder / "model_index.json", MODEL_INDEX)


def _write(folder: Path, config: Mapping[str, Any], params: Any, name: str) -> None:
  """Write a network in half precision."""
  from safetensors.numpy import save_file

  from genbench_jax.models.weights import to_torch

  _write_json(folder / "config.json", config)
  state = {key: np.asarray(v, np.float16, order="C") for key, v in to_torch(params).items()}
  save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _copy_tokenizer(work: Path, folder: Path) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for file in sorted((work / "tokenizer").iterdir()):
    if file.name != "tokenizer.json":  # loading rebuilds it from vocabulary and merges
      shutil.copyfile(file, folder / file.name)


def _vocabulary(work: Path) -> int:
  return len(json.loads((work / "tokenizer" / "vocab.json").read_text(encoding="utf-8")))


def _read(work: Path, name: str) -> Any:
  from flax import serialization

  return serialization.msgpack_restore((work / f"{name}.msgpack").read_bytes())


if __name__ == "__main__":
  main()
