"""The shipped checkpoints are small, in the ordinary layout, and good enough for a meaningful demo."""

import json

import numpy as np
import pytest

from genbench_jax.benchmark.worlds import world_specs
from genbench_jax.embedding.embedder import text_prototypes
from genbench_jax.models.checkpoints import ZOO
from genbench_jax.models.clip import load_clip
from genbench_jax.recognizers.linear_probe import linear_probe
from genbench_jax.zoo.judge import embed, generate, world_images


@pytest.fixture(scope="module")
def clip():
  return load_clip("zoo/clip")


@pytest.fixture(scope="module")
def test_features(clip):
  """World -> features, labels, text prototypes."""
  found = {}
  for name in ("digits", "shapes"):
    spec = world_specs()[name]
    images, labels = world_images(spec, "test")
    text = text_prototypes(clip, spec.names, spec.templates)
    found[name] = (embed(clip, images), labels, text)
  return found


def test_the_zoo_is_small_and_contains_no_pickle():
  files = [path for path in ZOO.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) <= 13_500_000
  assert {path.suffix for path in files} == {".json", ".txt", ".safetensors"}


def test_it_is_an_ordinary_pipeline_folder():
  index = json.loads((ZOO / "diffusion" / "model_index.json").read_text())
  for part, (library, _) in ((k, v) for k, v in index.items() if not k.startswith("_")):
    assert library is None or (ZOO / "diffusion" / part).is_dir()


@pytest.mark.parametrize(("world", "low", "high"), [("digits", 0.95, 1.0), ("shapes", 0.75, 0.92)])
def test_zero_shot_is_good_but_not_perfect(test_features, world, low, high):
  features, labels, text = test_features[world]
  accuracy = (np.argmax(features @ text.T, axis=1) == labels).mean()
  assert low <= accuracy <= high


@pytest.mark.slow
@pytest.mark.parametrize(("world", "least"), [("digits", 0.93), ("shapes", 0.70)])
def test_a_probe_on_a_few_generated_images_recognizes_real_ones(clip, test_features, world, least):
  """The model card's numbers are for 64 images per class; this test uses 4."""
  features, labels, text = test_features[world]
  # Batches of 4 on 8 devices: one program for both worlds, without padding.
  images, given = generate(world_specs()[world], 16, batch=4)
  assert linear_probe(embed(clip, images), given, features, labels, text)["score"] >= least
