"""Measure what five reference images are worth for a class that the zoo's diffusion model has never seen.

  python -m genbench_jax.zoo.textual_inversion --work runs/zoo-inversion

The diffusion model and its autoencoder were trained without `pentagon`; the CLIP was trained with it. One
token per seed is learned from original images. Images of the class are then generated with and without the
token, from the same noise, and evaluated together with plain images of the other classes. The references
themselves are evaluated the same way, as an upper bound for five images. A judge trained on other originals
(`zoo.judge`) counts the images that it recognizes as the class. `--reference-resolution 8` reproduces the
paper's result for low-resolution references.
"""

import argparse
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.worlds import SHAPE_NAMES, UNSEEN_SHAPE, world_specs
from genbench_jax.diffusion.inversion.embeddings import FILE_NAME, LearnedEmbeddings, load_embedding
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.diffusion.inversion.trainer import Concept, Trainer
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding.embedder import text_prototypes, unit_norm
from genbench_jax.models.clip import load_clip
from genbench_jax.models.stable_diffusion import load_stable_diffusion
from genbench_jax.prompts.strategies import prompts_of_class
from genbench_jax.recognizers.linear_probe import linear_probe
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.progress import Progress
from genbench_jax.sources.index_space import class_shot, image_keys
from genbench_jax.store import files
from genbench_jax.zoo.judge import embed, train_judge, world_images

WORLD = "shapes"
UNSEEN = SHAPE_NAMES.index(UNSEEN_SHAPE)
PLACEHOLDER = "<pentagon>"
# Untrained token embeddings of the zoo have a standard deviation of 0.016, those of known words 0.055.
TRAINING = Training(steps=300, batch=16, learning_rate=0.005, warm_up=20, flip=True, recolor=True)
RESAMPLES = 2000
ARMS = ("plain", "textual_inversion", "references_themselves")


@dataclasses.dataclass(frozen=True)
class Hits:
  """Whether each test image of the class is recognized, for each seed, by three recognizers."""

  cler: Bool[np.ndarray, "s m"]
  cler_image: Bool[np.ndarray, "s m"]
  linear_probe: Bool[np.ndarray, "s m"]


def main() -> None:
  arguments = _parser().parse_args()
  os.environ.setdefault("USE_TF", "0")
  training = dataclasses.replace(
    TRAINING,
    steps=arguments.steps,
    batch=arguments.batch,
    learning_rate=arguments.learning_rate,
    clip_weight=arguments.clip_weight,
    reference_resolution=arguments.reference_resolution,
    categories_per_device=arguments.seeds,
  )
  figures = run(arguments.work, training, arguments.references, arguments.shots, arguments.seeds)
  print(json.dumps(figures, indent=2))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--work", type=Path, required=True, help="folder for the tokens")
  parser.add_argument("--references", type=int, default=5, help="original images")
  parser.add_argument("--shots", type=int, default=16, help="generated images per class")
  parser.add_argument(
    "--seeds", type=int, default=4, help="each with other references and other noise"
  )
  parser.add_argument("--steps", type=int, default=TRAINING.steps)
  parser.add_argument("--batch", type=int, default=TRAINING.batch)
  parser.add_argument("--learning-rate", type=float, default=TRAINING.learning_rate)
  parser.add_argument("--clip-weight", type=float, default=TRAINING.clip_weight)
  parser.add_argument(
    "--reference-resolution", type=int, default=0, help="in pixels; 0 keeps their size"
  )
  return parser


def run(work: Path, training: Training, references: int, shots: int, seeds: int) -> dict[str, dict]:
  """Return the recall of the class with plain prompts and new tokens, and the gain, with 95 % intervals.

  Args:
    work: folder for tokens and judge.
    training: settings of textual inversion.
    references: reference images per seed.
    shots: generated images per class.
    seeds: number of repetitions.
  """
  mesh = data_mesh(jax.devices()[:1])
  sampler = Sampler(load_stable_diffusion("zoo/diffusion"), mesh, 32, 8, 5.0)
  folder = work / files.digest([dataclasses.asdict(training), references, seeds])
  concepts = [_concept(folder, seed, references) for seed in range(seeds)]
  guide = load_clip("zoo/clip") if training.clip_weight else None
  templates = world_specs()[WORLD].templates
  trainer = Trainer(sampler.model, mesh, training, templates, guide=guide)
  with Progress(f"textual inversion, {seeds} tokens", seeds * training.steps, "token-steps") as bar:
    for steps in trainer.learn(concepts, folder / "state"):
      bar.advance(steps)
  images = [_generate(sampler, shots, seed, concept) for seed, concept in enumerate(concepts)]
  judge, rows = train_judge(world_specs()[WORLD], work / "judge"), _labels(shots) == UNSEEN
  hits = [_hits([arms[arm] for arms in images], shots) for arm in range(len(ARMS))]
  judged = [np.stack([judge(arms[arm][rows]) == UNSEEN for arms in images]) for arm in range(2)]
  return {
    "settings": {**dataclasses.asdict(training), "references": references, "shots": shots},
    "judged_images": _compared(judged),
    **{
      field.name: _compared([getattr(arm, field.name) for arm in hits])
      for field in dataclasses.fields(Hits)
    },
  }


def _concept(folder: Path, seed: int, references: int) -> Concept:
  """Return the token to learn from the seed's references: the originals that `few_shot` selects."""
  images, labels = _originals()
  rows = [row for row in few_shot(labels, references, seed) if labels[row] == UNSEEN]
  return Concept(
    PLACEHOLDER,
    (UNSEEN_SHAPE,),
    (0,) * len(rows),
    lambda: [Image.fromarray(images[row]) for row in rows],
    folder / f"seed{seed}" / FILE_NAME,
  )


@functools.cache
def _originals() -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, "n"]]:
  return world_images(world_specs()[WORLD], "train")


def _generate(
  sampler: Sampler, shots: int, seed: int, concept: Concept
) -> list[UInt8[np.ndarray, "n 32 32 3"]]:
  """Generate the images of all classes, in three arms.

  Images of the unseen class come from plain prompts, from prompts with its token, or are the references.
  """
  spec = world_specs()[WORLD]
  where = [class_shot(index, spec.num_classes) for index in range(shots * spec.num_classes)]
  keys = image_keys(seed, WORLD, "defined_template", where)

  def texts_of(name: str) -> list[str]:
    names = [name if other == UNSEEN_SHAPE else other for other in spec.names]
    prompts = [
      prompts_of_class("defined_template", label, names, spec.templates, shots, seed)
      for label in range(spec.num_classes)
    ]
    return [prompts[label][shot].text for label, shot in where]

  plain = sampler(texts_of(UNSEEN_SHAPE), [""] * len(where), keys)
  embeddings = LearnedEmbeddings({PLACEHOLDER: load_embedding(concept.path)[1]})
  rows = np.flatnonzero(_labels(shots) == UNSEEN)
  texts = [texts_of(f"{PLACEHOLDER} {UNSEEN_SHAPE}")[row] for row in rows]
  learned, shown = plain.copy(), plain.copy()
  learned[rows] = sampler.with_learned_embeddings(embeddings)(texts, [""] * len(rows), keys[rows])
  references = np.stack([np.asarray(image) for image in concept.images()])
  shown[rows] = references[np.arange(len(rows)) % len(references)]
  return [plain, learned, shown]


def _labels(shots: int) -> Int[np.ndarray, "n"]:
  return np.tile(np.arange(len(SHAPE_NAMES)), shots)


def _hits(sets: list[UInt8[np.ndarray, "n 32 32 3"]], shots: int) -> Hits:
  clip, spec, labels = load_clip("zoo/clip"), world_specs()[WORLD], _labels(shots)
  images, test_labels = world_images(spec, "test")
  test, text = unit_norm(embed(clip, images)), text_prototypes(clip, spec.names, spec.templates)
  of_class = test[test_labels == UNSEEN]
  found: list[tuple[np.ndarray, ...]] = []
  for images in sets:
    features = unit_norm(embed(clip, images))
    centers = unit_norm(
      np.stack([features[labels == label].mean(axis=0) for label in range(spec.num_classes)])
    )
    probe = linear_probe(features, labels, test, test_labels)
    predicted = np.asarray(probe["predictions"])[test_labels == UNSEEN]
    guesses = [np.argmax(of_class @ c.T, axis=1) for c in (unit_norm(text + centers), centers)]
    found.append(tuple(guess == UNSEEN for guess in (*guesses, predicted)))
  return Hits(*(np.stack(rows) for rows in zip(*found, strict=True)))


def _compared(arms: Sequence[Bool[np.ndarray, "s m"]]) -> dict[str, list[float]]:
  """Return each arm's share of hits and the gain by tokens, with paired 95 % bootstrap intervals over images."""
  plain, learned = arms[:2]
  draws = np.random.default_rng(0).integers(plain.shape[1], size=(RESAMPLES, plain.shape[1]))
  means = {name: arm.mean(axis=0) for name, arm in zip(ARMS, arms, strict=False)}
  means["gain"] = means["textual_inversion"] - means["plain"]
  return {name: _interval(rows, draws) for name, rows in means.items()} | {
    "gain_by_seed": [round(float(gain), 3) for gain in (learned.mean(axis=1) - plain.mean(axis=1))]
  }


def _interval(rows: Float[np.ndarray, "m"], draws: Int[np.ndarray, "r m"]) -> list[float]:
  low, high = np.quantile(rows[draws].mean(axis=1), (0.025, 0.975))
  return [round(float(x), 3) for x in (rows.mean(), low, high)]


if __name__ == "__main__":
  main()
