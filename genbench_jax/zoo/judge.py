"""Measure the numbers in the zoo's model card on the shipped checkpoints.

  python -m genbench_jax.zoo.judge --work runs/zoo-judges

Generated images are classified by small convolutional networks, one per world, called judges. They are
trained on original images that neither the generator nor the CLIP has seen.
"""

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.worlds import UNSEEN_SHAPE, world_example, world_size, world_specs
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding.embedder import image_features, text_prototypes
from genbench_jax.embedding.preprocess import preprocess
from genbench_jax.models.clip import Clip, load_clip
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.prompts.strategies import prompts_of_class
from genbench_jax.recognizers.linear_probe import linear_probe
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.sources.index_space import class_shot, image_keys
from genbench_jax.zoo.data import VARIANTS
from genbench_jax.zoo.train_clip import shift
from genbench_jax.zoo.train_vae import to_vae_pixels
from genbench_jax.zoo.training import fit

JUDGE_STEPS = 1000
JUDGE_VARIANTS = 12


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--work", type=Path, required=True, help="folder for the judges")
  parser.add_argument("--shots", type=int, default=64, help="generated images per class")
  parser.add_argument("--sheet", type=Path, help="file for a contact sheet of generated images")
  arguments = parser.parse_args()
  os.environ.setdefault("USE_TF", "0")
  clip, sheets = load_clip("zoo/clip"), []
  for name in VARIANTS:  # the worlds that the models were trained on
    spec = world_specs()[name]
    images, labels = generate(spec, arguments.shots)
    sheets.append(images[: 8 * spec.num_classes].reshape(8, spec.num_classes, 32, 32, 3))
    found = figures(spec, clip, images, labels, train_judge(spec, arguments.work / name))
    print(json.dumps({"world": name, **found}, indent=2))
  if arguments.sheet:
    _write_sheet(sheets, arguments.sheet)


def figures(
  spec: DatasetSpec,
  clip: Clip,
  images: UInt8[np.ndarray, "n 32 32 3"],
  labels: np.ndarray,
  judge: Any,
) -> dict[str, Any]:
  """Return accuracies (fractions) of zero-shot, linear probes and the judge.

  Args:
    spec: the world.
    clip: the zoo's CLIP.
    images: generated images.
    labels: their classes.
    judge: function from images to classes, see `train_judge`.
  """
  test_images, test_labels = world_images(spec, "test")
  test = embed(clip, test_images)
  text = text_prototypes(clip, spec.names, spec.templates)
  probe = linear_probe(embed(clip, images), labels, test, test_labels, text)
  original, original_labels = world_images(spec, "train")
  yardstick = linear_probe(embed(clip, original), original_labels, test, test_labels, text)
  judged = judge(images) == labels
  by_class = {name: float(judged[labels == c].mean()) for c, name in enumerate(spec.names)}
  seen = [value for name, value in by_class.items() if name != UNSEEN_SHAPE]
  return {
    "zero_shot": float((np.argmax(test @ text.T, axis=1) == test_labels).mean()),
    "probe_generated": probe["score"],
    "probe_all_originals": yardstick["score"],
    "judge_on_test": float((judge(test_images) == test_labels).mean()),
    "judged_generated": float(judged.mean()),
    "judged_generated_seen_classes": float(np.mean(seen)),
    "judged_by_class": by_class,
  }


def world_images(
  spec: DatasetSpec, split: str, variants: int = 1
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, "n"]]:
  """Return all images of a split, each in several variants, and their labels.

  Args:
    spec: the world.
    split: split of the world.
    variants: variants per image.
  """
  examples = [
    world_example(spec.name, split, index, variant)
    for index in range(world_size(spec.name, split))
    for variant in range(variants)
  ]
  return np.stack([e.image for e in examples]), np.array([e.label for e in examples])


def embed(clip: Clip, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
  """Compute unnormalized image features."""
  settings = (clip.image_size, clip.image_mean, clip.image_std)
  return image_features(clip, np.stack([preprocess(Image.fromarray(i), *settings) for i in images]))


def generate(
  spec: DatasetSpec, shots: int, steps: int = 8, guidance_scale: float = 5.0, batch: int = 32
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, "n"]]:
  """Generate images from the defined templates, shot by shot, as in the demo; return them with labels.

  Args:
    spec: the world.
    shots: images per class.
    steps: sampler steps.
    guidance_scale: scale of classifier-free guidance.
    batch: images per device and batch.
  """
  model, mesh = load_stable_diffusion("zoo/diffusion"), data_mesh()
  sampler = Sampler(model, mesh, batch, steps, guidance_scale)
  prompts = [
    prompts_of_class("defined_template", label, spec.names, spec.templates, shots, seed=0)
    for label in range(spec.num_classes)
  ]
  where = [class_shot(index, spec.num_classes) for index in range(shots * spec.num_classes)]
  texts = [prompts[label][shot].text for label, shot in where]
  keys = image_keys(0, spec.name, "defined_template", where)
  return sampler(texts, [""] * len(texts), keys), np.array([label for label, _ in where])


class Judge(nn.Module):
  """A classifier for 32 x 32 images: three convolutions and a linear layer."""

  num_classes: int

  @nn.compact
  def __call__(self, pixels: Float[Array, "b 32 32 3"]) -> Float[Array, "b k"]:
    hidden = pixels
    for width in (32, 64, 128):
      hidden = nn.Conv(width, (5, 5), (2, 2))(hidden)
      hidden = nn.relu(nn.GroupNorm(8)(hidden))
    return nn.Dense(self.num_classes)(hidden.reshape(len(hidden), -1))


def train_judge(spec: DatasetSpec, folder: Path) -> Any:
  """Train a judge on original images; return a function from images to classes."""
  images, labels = world_images(spec, "train", JUDGE_VARIANTS)
  model = Judge(spec.num_classes)
  params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))

  def batch_of(step: int) -> dict[str, np.ndarray]:
    rows = np.random.default_rng([7, step]).integers(len(images), size=64)
    return {"images": images[rows], "labels": labels[rows]}

  def loss(params: Any, batch: dict[str, Array], key: Array) -> Array:
    logits = model.apply(params, to_vae_pixels(shift(batch["images"], key)))
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

  params = fit(loss, params, batch_of, JUDGE_STEPS, folder, learning_rate=2e-3)
  logits = jax.jit(lambda images: model.apply(params, to_vae_pixels(images)))
  return lambda images: np.argmax(np.asarray(logits(images)), axis=1)


def _write_sheet(sheets: list[UInt8[np.ndarray, "s k 32 32 3"]], path: Path) -> None:
  """Write a contact sheet with one row per class, world after world."""
  rows = [sheet.transpose(1, 2, 0, 3, 4).reshape(-1, 8 * 32, 3) for sheet in sheets]
  image = Image.fromarray(np.concatenate(rows))
  buffer = io.BytesIO()
  image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(buffer, "PNG")
  path.write_bytes(buffer.getvalue())


if __name__ == "__main__":
  main()
