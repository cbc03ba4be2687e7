"""Mixtures: images of both kinds in a cell, and the number of real ones."""

import numpy as np
import pytest

from genbench_jax.cells import image_sets, mixtures
from genbench_jax.config import Config, Folder, Mixture
from genbench_jax.pipeline import artifacts
from genbench_jax.pipeline.external import external_images
from genbench_jax.run import Run
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet


@pytest.fixture
def run(tmp_path):
  """Features of originals are 1, of external images 2: five of each class, two of class 0."""
  from PIL import Image

  for label in range(10):
    for shot in range(5 if label else 2):
      path = tmp_path / "images" / str(label) / f"{shot}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (4, 4), (label, shot, 0)).save(path)
  config = Config(
    sources=("original", "folder", "combined"),
    shots=(1, 2, 4),
    folder=Folder(path=str(tmp_path / "images"), real_images=3),
    mixture=Mixture(with_sources=("folder",), budget="equal"),
  )
  run = Run(config, tmp_path / "out")
  for value, key in enumerate(image_sets(config), 1):
    size = artifacts.image_layout(run, key).num_images
    ids = np.arange(size)
    labels = (ids % 10 if value == 1 else np.r_[ids[:20] % 10, 1 + ids[: size - 20] % 9]).astype(
      np.int32
    )
    images = EmbeddingSet(
      np.full((size, 1), value, np.float32), labels, ids, np.ones(size, np.uint8)
    )
    embedding_set.save(artifacts.image_set_path(run, key), images, {})
  return run


def test_a_mixture_uses_the_first_shots_of_both(run):
  (key,) = mixtures(run.config)
  mixture = external_images(run, key)
  two, four = mixture.of_shots(2), mixture.of_shots(4)
  assert np.bincount(two.features[:, 0].astype(int)).tolist() == [0, 10, 10]
  assert two.labels.tolist() == [*range(10)] * 2
  assert np.bincount(four.features[:, 0].astype(int)).tolist() == [0, 20, 20]
  assert mixture.real_images == {2: 10 + 3, 4: 20 + 3}


def test_the_rows_of_a_mixture_depend_on_its_settings(run):
  import dataclasses

  (key,) = mixtures(run.config)
  other = dataclasses.replace(run.config, mixture=Mixture(("folder",), 2.0, "equal"))
  paths = {artifacts.rows_path(one, key, "score").name for one in (run, Run(other, run.workdir))}
  assert len(paths) == 2


def test_an_image_set_is_unchanged(run):
  original, _ = image_sets(run.config)
  images = external_images(run, original)
  assert len(images.of_shots(2)) == 20
  assert images.real_images == {1: 10, 2: 20, 4: 40}
