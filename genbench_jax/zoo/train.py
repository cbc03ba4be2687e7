"""Train the small models that ship with the package, on CPU, from fixed seeds.

  python -m genbench_jax.zoo.train --work runs/zoo

CLIP, autoencoder and denoiser are trained in this order. Each training resumes from its last checkpoint in
the work folder. `python -m genbench_jax.zoo.export` writes the files that ship.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEPS = {"clip": 1500, "vae": 2000, "unet": 6000}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--work", type=Path, required=True, help="checkpoints and finished weights")
  arguments = parser.parse_args()
  os.environ.setdefault("USE_TF", "0")
  train(arguments.work)


def train(work: Path) -> None:
  """Train the models that are not yet trained, one after another."""
  from genbench_jax.benchmark.captions import all_phrases
  from genbench_jax.models.tokenizer import load_tokenizer
  from genbench_jax.zoo.data import training_set
  from genbench_jax.zoo.tokenizer import train_tokenizer
  from genbench_jax.zoo.train_clip import clip_config, text_encoder, train_clip
  from genbench_jax.zoo.train_unet import train_unet
  from genbench_jax.zoo.train_vae import encode, train_vae

  if not (work / "tokenizer" / "vocab.json").exists():
    train_tokenizer(all_phrases(), work / "tokenizer")
  tokenizer = load_tokenizer(work / "tokenizer")
  clip = _once(
    work / "clip.msgpack",
    lambda: train_clip(training_set(True), tokenizer, work / "clip", STEPS["clip"]),
  )
  seen = training_set(with_unseen_shape=False)
  vae = _once(work / "vae.msgpack", lambda: train_vae(seen, work / "vae", STEPS["vae"]))
  latents = encode(vae, seen.images)
  # As in Stable Diffusion, `scaling_factor` gives the latents unit variance.
  scale = float(1 / np.std(latents))
  (work / "scale.txt").write_text(f"{scale:.8f}\n")
  encode_text = text_encoder(clip_config(len(tokenizer)), clip)
  _once(
    work / "unet.msgpack",
    lambda: train_unet(seen, scale * latents, encode_text, tokenizer, work / "unet", STEPS["unet"]),
  )


def _once(path: Path, make: Callable[[], Any]) -> Any:
  """Return the weights at a path; make and store them if they do not exist."""
  from flax import serialization

  if not path.exists():
    params = make()
    temporary = path.with_suffix(".part")
    temporary.write_bytes(serialization.msgpack_serialize(_to_numpy(params)))
    temporary.rename(path)
  return serialization.msgpack_restore(path.read_bytes())


def _to_numpy(params: Any) -> Any:
  import jax

  return jax.tree.map(np.asarray, params)


if __name__ == "__main__":
  main()
