"""Program of `test_hosts`: one of two processes with two devices each; prints scores as JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np

FEATURES, SIDE, CLASSES = 16, 32, 3


def drawn_images(count, seed):
  """Return images whose class is their brightest channel."""
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 120, (count, SIDE, SIDE, 3))
  labels = np.arange(count) % CLASSES
  images[np.arange(count), :, :, labels] += 100
  return images.astype(np.uint8), labels


def drawn_features(count, seed):
  generator = np.random.default_rng(seed)
  labels = np.arange(count) % CLASSES
  centers = 2 * np.eye(FEATURES)[labels]
  return (centers + generator.normal(size=(count, FEATURES))).astype(np.float32), labels


def scores_of(names, clip_folder, folder, mesh):
  """Return the test scores of recognizers that are trained on all devices, with checkpoints.

  Args:
    names: the recognizers.
    clip_folder: the tiny CLIP.
    folder: folder of the checkpoints, shared by all processes.
    mesh: devices of all processes.
  """
  import genbench_jax as gb
  from genbench_jax.models.clip import load_clip
  from genbench_jax.recognizers import prompt_tuning, settings as s, visual_prompts, visual_tokens
  from genbench_jax.recognizers.linear_probe import ProbeData, linear_probes
  from genbench_jax.recognizers.method import Place
  from genbench_jax.recognizers.zero_shot import zero_shot_scores
  from genbench_jax.zoo.tiny import pixel_reader

  clip = load_clip(clip_folder)
  images, tests = drawn_images(18, 0), drawn_images(9, 1)
  features, test_features = drawn_features(18, 0), drawn_features(9, 1)
  text = np.eye(CLASSES, FEATURES, dtype=np.float32)
  targets = np.eye(CLASSES, dtype=np.float32)[images[1]]
  recipe = s.Recipe(
    optimizer="adamw", learning_rate=1e-3, min_steps=3, epochs=0, batch_size=8, search_rates=(1.0,),
    search_epochs=(1.0,),
  )  # fmt: skip
  words = ("red", "green", "blue")
  prompts = {"steps": 3, "batch_size": 8, "warmup": 1}
  place = lambda name: Place(mesh, name, folder / name, save_every=2)  # noqa: E731

  def from_scratch():
    network = s.FromScratchSettings("resnet8", 8, "small_half", recipe=recipe)
    return gb.from_scratch(*images, *tests, settings=network, place=place("from_scratch"))["scores"]

  def fine_tune():
    own = s.FineTuneSettings(recipe=recipe)
    return gb.fine_tune(*images, *tests, text, clip=clip, settings=own, place=place("fine_tune"))["scores"]  # fmt: skip

  def lora():
    own = s.LoraSettings(recipe=recipe)
    return gb.lora(*images, *tests, words, clip=clip, settings=own, place=place("lora"))["scores"]

  def tip_adapter():
    own = s.TipAdapterSettings(train=True, min_steps=3, epochs=0)
    return gb.tip_adapter(
      *features, *test_features, text, settings=own, mesh=mesh, directory=folder / "tip_adapter",
    )["scores"]  # fmt: skip

  def linear_probe():
    cells = [ProbeData(*features, seed=seed) for seed in (0, 1)]
    found = linear_probes(cells, *test_features, text, mesh=mesh)
    return np.concatenate([each["scores"] for each in found])

  def coop():
    own = s.CoopSettings(context_length=2, **prompts)
    context = prompt_tuning.learn_context(
      clip, words, features[0], targets, own, mesh, folder / "coop", 2
    )
    learned = prompt_tuning.context_text_features(clip, words, context, mesh)
    return np.asarray(zero_shot_scores(test_features[0], learned))

  def vpt():
    own = s.VptSettings(prompt_length=2, images_at_once=4, **prompts)
    read, read_tests = (pixel_reader(np.float32(each[0]) / 128 - 1) for each in (images, tests))
    learned = visual_prompts.learn_visual_prompts(
      clip, text, read, targets, own, mesh, folder / "vpt", 2
    )
    return visual_tokens.prompted_scores(clip, text, learned, read_tests, len(tests[0]), mesh)

  known = (from_scratch, fine_tune, lora, tip_adapter, linear_probe, coop, vpt)
  return {each.__name__: each() for each in known if each.__name__ in names}


def main() -> None:
  address, number, names, clip_folder, folder = sys.argv[1:]
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
  os.environ["JAX_PLATFORMS"] = "cpu"
  import jax

  jax.distributed.initialize(address, 2, int(number))
  from genbench_jax.runtime.mesh import data_mesh

  found = scores_of(names.split(","), clip_folder, Path(folder), data_mesh())
  scores = {name: values.tolist() for name, values in found.items()}
  print(json.dumps({"devices": jax.device_count(), "scores": scores}))


if __name__ == "__main__":
  main()
