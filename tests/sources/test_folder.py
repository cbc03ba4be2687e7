"""A folder of the user's images as a source."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Folder, default_config, make_config
from genbench_jax.errors import UsageError
from genbench_jax.run import Run
from genbench_jax.sources.folder import left_out
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store.image_set import ImageSetLayout


@pytest.fixture
def run(tmp_path):
  for label in range(10):
    for shot in range(5 if label else 2):
      path = tmp_path / "images" / "digits" / str(label) / f"{shot}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (4, 4), (label, shot, 0)).save(path)
  settings = Folder(path=str(tmp_path / "images" / "{dataset}"), real_images=7)
  config = Config(sources=("folder",), shots=(1, 2, 4), folder=settings)
  return Run(config, tmp_path / "out")


def _origins(run, seed):
  (key,) = image_sets(dataclasses.replace(run.config, seeds=(seed,)))
  source = SOURCES["folder"]
  size = source.size(run, key)
  layout = ImageSetLayout("x", tuple("0123456789"), size, 16, {})
  shards = source.records(run, key, layout, range(layout.num_shards))
  return source, key, [record for _, records in shards for record in records]


def test_shots_nest_and_a_small_class_gives_all_its_images(run):
  source, key, records = _origins(run, 0)
  assert source.shot_sizes(run, key) == {1: 10, 2: 20, 4: 38}
  assert len(records) == 38
  labels = np.array([record.label for record in records])
  assert labels[:20].tolist() == [*range(10), *range(10)]
  assert np.bincount(labels).tolist() == [2, *[4] * 9]
  assert len({record.origin for record in records}) == 38
  assert source.real_images(run, key) == {1: 7, 2: 7, 4: 7}
  assert left_out(run) == []


def test_seeds_choose_different_images(run):
  assert {r.origin for r in _origins(run, 0)[2]} != {r.origin for r in _origins(run, 1)[2]}


def test_the_path_is_required():
  config = default_config()
  config.sources = ("folder",)
  with pytest.raises(UsageError, match=r"needs config\.folder\.path"):
    make_config(config)
