"""On a demo dataset with the small CLIP, prompts learned from 16 originals per class beat zero-shot.

The task is to recognize the flaw of an image. This CLIP has already learned shapes and digits from
many thousands of images of the same datasets, so 16 more would change only the noise.
"""

import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding.embedder import image_features, text_prototypes
from genbench_jax.embedding.preprocess import preprocess
from genbench_jax.models.clip import load_clip
from genbench_jax.recognizers.prompt_tuning import context_text_features, learn_context
from genbench_jax.recognizers.settings import CoopSettings, VptSettings
from genbench_jax.recognizers.visual_prompts import learn_visual_prompts
from genbench_jax.recognizers.visual_tokens import prompted_scores
from genbench_jax.recognizers.zero_shot import zero_shot_scores
from genbench_jax.zoo.tiny import pixel_reader

WORLD, SHOTS, TEST_IMAGES = "shapes", 16, 400
NAMES = ("noisy", "blurry", "partly hidden", "sharp")


def flaw(example):
  """Return the single flaw of an image, or that it has none; None for several flaws."""
  flaws = [example.noisy, example.blurry, example.hidden]
  return {0: 3, 1: int(np.argmax(flaws))}.get(sum(flaws))


def examples_and_labels(split, count):
  from genbench_jax.benchmark.worlds import world_example

  examples = [world_example(WORLD, split, row) for row in range(count)]
  labeled = [(example, flaw(example)) for example in examples if flaw(example) is not None]
  return [example for example, _ in labeled], np.array([label for _, label in labeled])


@pytest.fixture(scope="module")
def world():
  """CLIP, its text prototypes, and (pixels, labels) of training and test images."""
  clip = load_clip("zoo/clip")

  def pixels(examples):
    how = (clip.image_size, clip.image_mean, clip.image_std)
    return np.stack([preprocess(Image.fromarray(example.image), *how) for example in examples])

  examples, labels = examples_and_labels("train", 500)
  chosen = np.concatenate([np.flatnonzero(labels == c)[:SHOTS] for c in range(len(NAMES))])
  test_examples, test_labels = examples_and_labels("test", TEST_IMAGES)
  train = pixels([examples[row] for row in chosen]), labels[chosen]
  text = text_prototypes(clip, NAMES, ["a {} photo of a shape."])
  return clip, text, train, (pixels(test_examples), test_labels)


@pytest.fixture(scope="module")
def zero_shot(world):
  clip, text, _, (pixels, labels) = world
  return accuracy(zero_shot_scores(image_features(clip, pixels), text), labels)


def accuracy(scores, labels):
  return float(np.mean(np.argmax(scores, axis=1) == labels))


def one_hot(labels):
  return np.eye(len(NAMES), dtype=np.float32)[labels]


@pytest.mark.slow
def test_a_learned_context_beats_zero_shot(world, zero_shot):
  clip, _, (pixels, labels), (test_pixels, test_labels) = world
  settings = CoopSettings(template="a photo of a shape,", steps=60, learning_rate=0.02, warmup=5)
  features = image_features(clip, pixels)
  context = learn_context(clip, NAMES, features, one_hot(labels), settings)
  text = context_text_features(clip, NAMES, context)
  learned = accuracy(zero_shot_scores(image_features(clip, test_pixels), text), test_labels)
  assert learned > zero_shot + 0.05


@pytest.mark.slow
def test_learned_visual_prompts_beat_zero_shot(world, zero_shot):
  clip, text, (pixels, labels), (test_pixels, test_labels) = world
  settings = VptSettings(depth="deep", prompt_length=4, steps=40, warmup=4, learning_rate=0.01)
  prompts = learn_visual_prompts(clip, text, pixel_reader(pixels), one_hot(labels), settings)
  scores = prompted_scores(clip, text, prompts, pixel_reader(test_pixels), len(test_pixels))
  assert accuracy(scores, test_labels) > zero_shot + 0.03
