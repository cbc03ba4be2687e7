"""Which training-free score predicts how well a network learns from images? A preregistered experiment.

  python benchmarks/predictors.py --json predictors.json          # about ten minutes on two idle cores
  python benchmarks/predictors.py --scale 0.1                     # smoke test

The protocol was written before the first run; since then only its wording has changed, and `guide_ridge` is the
package's own (a penalty relative to the features' variance, where the first run had a fixed one). In a pilot on two demo worlds,
with ten sets of one generator over guidance and steps and one small network, the class Chamfer distance ranked
the sets best. Here, everything is held out from that pilot:

  worlds      `signs` (eight signs, each a color and a shape) and `inks` (eight pairs of a digit and a color). Neither
              is in the demo, and neither was in the pilot.
  generators  fourteen sets of 16 images per class in each world. Seven come from the shipped diffusion model with
              prompts, guidance, steps and samplers that the pilot did not have. Seven are other real images with one
              flaw each: none, noise, blur, four images per class repeated, a quarter of the labels wrong, gray, and
              one half hidden.
  networks    `resnet8` and a plain convolutional network without normalization, each trained from scratch on a
              single set for a fixed number of steps, with two seeds. Their mean accuracy on 320 test images is the
              truth. Nothing is tuned.
  scores      in the features of the shipped CLIP, or of pixels, with eight real training images per class as guides
              that no network is trained or tested on; metrics of two sets are measured against these guides, too.
  measures    for each score, the rank correlation (Spearman) with the truth over a world's sets, with signs such that
              more is better, and the regret of its choice: the best truth minus that of the set ranked first. Means
              over both worlds and networks, with 95 % intervals from 2,000 resamples of the sets.
  claim       class Chamfer distances predict better than CLER. It holds if the interval of the difference of their
              mean rank correlations is above zero. The same question is asked of `guide_ridge`.

The result is in docs/metrics.md.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageFilter
from scipy.stats import rankdata

import genbench_jax as gb
from genbench_jax.benchmark import worlds
from genbench_jax.metrics.guides import class_chamfer, guide_ridge
from genbench_jax.models.classifiers import make_classifier
from genbench_jax.models.layers import convolve
from genbench_jax.recognizers.engine import predict, train
from genbench_jax.recognizers.from_scratch import ClassifierLogits
from genbench_jax.recognizers.problem import Model, Problem, View
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.training_set import make_training_set
from genbench_jax.runtime.mesh import data_mesh

SHOTS, GUIDES, TESTS, CLASSES = 16, 8, 40, 8
SEEDS, STEPS, BATCH, RESAMPLES = 2, 250, 32, 2000
CLIP, DIFFUSION = "zoo/clip", "zoo/diffusion"
DIGITS, INKS = ("two", "three", "five", "eight"), ("red", "blue")
# (prompt, guidance, steps, sampler). The pilot, which varied guidance and steps of DPM-Solver++, had none of them.
SETTINGS = (
  ("a photo of a {}.", 1.0, 6, "ddim"),
  ("a photo of a {}.", 2.0, 6, "ddim"),
  ("a drawing of a {}.", 4.0, 6, "ddim"),
  ("a {} on a plain background.", 9.0, 6, "ddim"),
  ("a {}.", 3.0, 3, "euler"),
  ("a photo of a {}.", 6.0, 3, "euler"),
  ("a noisy photo of a {}.", 3.0, 3, "euler"),
)


@dataclasses.dataclass(frozen=True)
class World:
  """Images of eight classes; in each class first guides, then test images, then those for generators."""

  name: str
  class_names: tuple[str, ...]
  images: np.ndarray  # [k, n, 32, 32, 3]

  def part(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` images of each class from `start` on, class by class, and their labels."""
    images = self.images[:, start : start + count]
    labels = np.repeat(np.arange(len(self.images)), images.shape[1])
    return images.reshape(-1, *images.shape[2:]), labels


def signs(per_class: int) -> World:
  names = tuple(f"{color} {shape}" for _, color, shape in worlds.SIGNS)
  drawn = [
    [worlds.world_example("signs", "test", label + CLASSES * i).image for i in range(per_class)]
    for label in range(CLASSES)
  ]
  return World("signs", names, np.array(drawn))


def inks(per_class: int) -> World:
  """Return colored digits with noise and bars; a class is a digit and a color."""
  names = tuple(f"{color} digit {digit}" for digit in DIGITS for color in INKS)
  found: dict[str, list[np.ndarray]] = {name: [] for name in names}
  for variant in range(1, 400):
    for index in range(worlds.world_size("digits_hard", "test")):
      example = worlds.world_example("digits_hard", "test", index, variant)
      name = f"{example.color} digit {worlds.DIGIT_NAMES[example.label]}"
      if len(found.get(name, [None] * per_class)) < per_class:
        found[name].append(example.image)
    if all(len(images) == per_class for images in found.values()):
      return World("inks", names, np.array([found[name] for name in names]))
  raise RuntimeError("not enough digits")


# ---- generators -------------------------------------------------------------------------------


def generated(world: World) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Return the sets of the diffusion model."""
  sets = {}
  labels = np.repeat(np.arange(CLASSES), SHOTS)
  for number, (prompt, guidance, steps, scheduler) in enumerate(SETTINGS):
    prompts = [prompt.format(world.class_names[label]) for label in labels]
    seeds = [10_000 + 1_000 * number + i for i in range(len(prompts))]
    images = gb.generate(
      prompts, DIFFUSION, seeds, steps=steps, guidance_scale=guidance, scheduler=scheduler,
      batch_per_device=64,
    )  # fmt: skip
    sets[f"diffusion {scheduler} {steps} steps, guidance {guidance:g}, {prompt}"] = (images, labels)
  return sets


def flawed(world: World) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Return sets of other real images with one flaw each."""
  rng = np.random.default_rng(7)
  start = GUIDES + TESTS
  images, labels = world.part(start, SHOTS)
  few = world.images[:, start : start + 4].repeat(SHOTS // 4, axis=1).reshape(images.shape)
  wrong = np.where(rng.random(len(labels)) < 0.25, rng.integers(0, CLASSES, len(labels)), labels)
  noise = np.clip(images + rng.normal(0, 70, images.shape), 0, 255).astype(np.uint8)
  blur = np.array([np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(2.5))) for i in images])  # fmt: skip
  gray = images.mean(axis=3, keepdims=True).repeat(3, axis=3).astype(np.uint8)
  half = images.copy()
  half[:, :, : worlds.SIDE // 2] = 128
  return {
    "real": (images, labels),
    "real, noise": (noise, labels),
    "real, blur": (blur, labels),
    "real, four a class": (few, labels),
    "real, a quarter mislabeled": (images, wrong),
    "real, gray": (gray, labels),
    "real, half hidden": (half, labels),
  }


# ---- networks ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PlainLogits:
  """Three convolutions with pooling, and a linear head."""

  def __call__(self, variables, stats, frozen, pixels, key):
    hidden = pixels
    for number in range(3):
      layer = variables[f"conv{number}"]
      hidden = jax.nn.relu(convolve(hidden, layer["weight"], 1, 1) + layer["bias"])
      b, h, w, c = hidden.shape
      hidden = hidden.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    features = hidden.mean(axis=(1, 2))
    return features @ variables["head"]["weight"] + variables["head"]["bias"], stats


def plain_start(seed: int) -> Model:
  rng, widths = np.random.default_rng(seed), (3, 16, 32, 64)
  layers = {
    f"conv{i}": {
      "weight": rng.normal(0, np.sqrt(2 / (9 * a)), (3, 3, a, b)).astype(np.float32),
      "bias": np.zeros(b, np.float32),
    }
    for i, (a, b) in enumerate(itertools.pairwise(widths))
  }
  head = rng.normal(0, 0.05, (widths[-1], CLASSES)).astype(np.float32)
  return Model(layers | {"head": {"weight": head, "bias": np.zeros(CLASSES, np.float32)}}, {}, {})


def networks() -> dict[str, tuple[Problem, Callable[[int], Model], Recipe]]:
  view = View(worlds.SIDE, (0.5,) * 3, (0.25,) * 3)
  fixed = Recipe(
    learning_rate=0.05, epochs=0.0, min_steps=STEPS, batch_size=BATCH, min_crop=0.6, flip=False,
    label_smoothing=0.1,
  )  # fmt: skip
  classifier = make_classifier("resnet8", worlds.SIDE, CLASSES, stem="small_half")
  initial = jax.jit(classifier.initial)
  resnet = lambda seed: Model(*initial(jax.random.key(seed)), {})  # noqa: E731
  adam = dataclasses.replace(fixed, optimizer="adamw", learning_rate=2e-3, weight_decay=1e-2)
  return {
    "resnet8": (Problem(ClassifierLogits(classifier), view), resnet, fixed),
    "plain": (Problem(PlainLogits(), view), plain_start, adam),
  }


def truth(name: str, images: np.ndarray, labels: np.ndarray, test: tuple[np.ndarray, np.ndarray]) -> float:  # fmt: skip
  """Return a network's accuracy, averaged over seeds."""
  problem, start, recipe = networks()[name]
  mesh, found = data_mesh(jax.devices()[:1]), []
  for seed in range(SEEDS):
    data = make_training_set(images, np.eye(CLASSES)[labels], seed=seed)
    recipe = dataclasses.replace(recipe, min_steps=STEPS)
    model = train(problem, [start(seed)], [data], [data.curriculum(recipe)], mesh)[0].model
    found.append((predict(problem, model, test[0], mesh).argmax(axis=1) == test[1]).mean())
  return float(np.mean(found))


# ---- scores -----------------------------------------------------------------------------------


def unit(features: np.ndarray) -> np.ndarray:
  return features / np.linalg.norm(features, axis=1, keepdims=True)


def pixels(images: np.ndarray) -> np.ndarray:
  """Return downsampled, centered pixels as features that do not come from a network."""
  small = images.reshape(len(images), 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(len(images), -1)
  return unit(small - small.mean(axis=1, keepdims=True) + 1e-6)


def scores(world: World, images: np.ndarray, labels: np.ndarray, text: np.ndarray) -> dict[str, float]:  # fmt: skip
  """Return every training-free score of a set; more is better."""
  guide_images, guide_labels = world.part(0, GUIDES)
  x, y = (unit(gb.embed_images(i, checkpoint=CLIP)) for i in (images, guide_images))
  cler = gb.cler(x, labels, text, y, guide_labels, top_k=None)
  manifold = gb.precision_recall_density_coverage(y, x, 3)
  px, py = pixels(images), pixels(guide_images)
  return {
    "class_chamfer": -class_chamfer(x, labels, y, guide_labels),
    "class_chamfer (pixels)": -class_chamfer(px, labels, py, guide_labels),
    "guide_ridge": guide_ridge(x, labels, y, guide_labels),
    "guide_ridge (pixels)": guide_ridge(px, labels, py, guide_labels),
    "cler": cler["cler"],
    "cler_image": cler["cler_image"],
    "fid": -gb.frechet_distance(x, y),
    "kid": -gb.kernel_distance(x, y),
    "cmmd": -gb.cmmd(x, y),
    "vendi": gb.vendi(x),
    **{name: manifold[name] for name in ("precision", "recall", "coverage")},
    "clip_score": float(gb.clip_score(x, text, labels)),
  }


# ---- results ----------------------------------------------------------------------------------


def spearman(a: np.ndarray, b: np.ndarray) -> float:
  """Return the rank correlation, with ties at their mean rank; 0 if one side is constant."""
  ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
  norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
  return float((ranks[0] * ranks[1]).sum() / norm) if norm else 0.0


def regret(score: np.ndarray, accuracy: np.ndarray) -> float:
  """Return the best accuracy minus that of the set with the best score; ties are averaged."""
  return float(accuracy.max() - accuracy[score == score.max()].mean())


def summary(found: dict) -> dict:
  """Return each score's mean rank correlation and regret with intervals, and the difference to CLER."""
  rng, names = np.random.default_rng(0), list(found["signs"]["scores"])
  pairs = [(world, network) for world in found for network in found[world]["truth"]]
  draws = {world: rng.integers(0, 14, (RESAMPLES, 14)) for world in found}

  def mean(name: str, measure: Callable, draw: int | None) -> float:
    values = []
    for world, network in pairs:
      score = np.array(found[world]["scores"][name])
      accuracy = np.array(found[world]["truth"][network])
      rows = slice(None) if draw is None else draws[world][draw][: len(score)] % len(score)
      values.append(measure(score[rows], accuracy[rows]))
    return float(np.mean(values))

  table = {}
  cler = np.array([mean("cler", spearman, draw) for draw in range(RESAMPLES)])
  for name in names:
    drawn = np.array([mean(name, spearman, draw) for draw in range(RESAMPLES)])
    regrets = np.array([mean(name, regret, draw) for draw in range(RESAMPLES)])
    table[name] = {
      "spearman": mean(name, spearman, None),
      "interval": np.quantile(drawn, [0.025, 0.975]).round(3).tolist(),
      "regret": mean(name, regret, None),
      "regret_interval": np.quantile(regrets, [0.025, 0.975]).round(3).tolist(),
      "minus_cler": np.quantile(drawn - cler, [0.025, 0.975]).round(3).tolist(),
      "by_world_and_network": {
        f"{world}, {network}": round(spearman(np.array(found[world]["scores"][name]), np.array(found[world]["truth"][network])), 3)
        for world, network in pairs
      },
    }  # fmt: skip
  return table


def main() -> int:
  global STEPS, SEEDS
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", help="file for the result")
  parser.add_argument("--scale", type=float, default=1.0, help="share of the steps")
  options = parser.parse_args()
  STEPS, began = max(5, round(STEPS * options.scale)), time.monotonic()
  SEEDS = SEEDS if options.scale == 1 else 1
  found: dict = {}
  for world in (signs(GUIDES + TESTS + SHOTS), inks(GUIDES + TESTS + SHOTS)):
    test = world.part(GUIDES, TESTS)
    text = unit(gb.embed_texts([f"a photo of a {name}." for name in world.class_names], checkpoint=CLIP))  # fmt: skip
    sets = flawed(world) | generated(world)
    result = found[world.name] = {"sets": list(sets), "scores": {}, "truth": {}}
    for images, labels in sets.values():
      for name, value in scores(world, images, labels, text).items():
        result["scores"].setdefault(name, []).append(value)
    for network in networks():
      for name, (images, labels) in sets.items():
        accuracy = truth(network, images, labels, test)
        result["truth"].setdefault(network, []).append(accuracy)
        print(f"{world.name}, {network}, {name}: {accuracy:.3f}, {time.monotonic() - began:.0f} s", file=sys.stderr)  # fmt: skip
  table = summary(found)
  report = {"settings": {"steps": STEPS, "seeds": SEEDS}, "seconds": time.monotonic() - began}
  report |= {"table": table, "found": found}
  if options.json:
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
  for name, row in sorted(table.items(), key=lambda item: -item[1]["spearman"]):
    print(
      f"{name:24} {row['spearman']:.2f} {row['interval']} regret {row['regret']:.3f} {row['regret_interval']}"
      f" minus CLER {row['minus_cler']}"
    )
  return 0


if __name__ == "__main__":
  sys.exit(main())
