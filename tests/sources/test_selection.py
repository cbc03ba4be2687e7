"""The best of several images are selected, in a defined order, by different methods."""

import dataclasses

import numpy as np
import pytest

from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Generation, Selection
from genbench_jax.pipeline.artifacts import image_folder, image_layout, open_image_set
from genbench_jax.pipeline.images import make_images
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.run import Run
from genbench_jax.sources.registry import SOURCES
from genbench_jax.sources.selection import best_of
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetWriter, encode_png


def test_the_best_of_every_class_come_first_and_sets_nest():
  labels = np.array([0, 1, 0, 1, 0, 1])
  scores = np.array([0.1, 0.9, 0.3, 0.9, 0.2, -np.inf])
  assert best_of(scores, labels, 2).tolist() == [2, 1, 4, 3]
  assert best_of(scores, labels, 1).tolist() == [2, 1]
  assert best_of(scores, labels, 9).tolist() == [2, 1, 4, 3, 0, 5]


def draw_candidates(run, key):
  """Write candidates instead of generating them: the first of each class are noise, the last two real digits."""
  wider = SOURCES["generative"].needs(run, key)[0].run
  layout = image_layout(wider, key)
  writer = ImageSetWriter(image_folder(wider, key), layout)
  split = run.split("digits", "train")
  labels = run.labels("digits", "train")
  noise = encode_png(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
  for shard in range(layout.num_shards):
    records = []
    for index in layout.shard_range(shard):
      shot, label = divmod(index, 10)
      image = noise
      if shot >= layout.num_images // 10 - 2:
        found = split.example(int(np.flatnonzero(labels == label)[shot]))["image"]
        image = encode_png(np.asarray(found.convert("RGB")))
      records.append(ImageRecord(image, label, index, f"prompt {index}"))
    writer.write_shard(shard, records)
  writer.close()


def _run(tmp_path, method):
  config = Config(
    sources=("generative",),
    shots=(1, 2),
    generation=Generation(shard_size=16),
    selection=Selection(method=method, candidates=2),
  )
  return Run(config, tmp_path)


def _chosen(run):
  """Return the images that the stage selects among existing candidates."""
  (key,) = image_sets(run.config)
  if not image_set_is_drawn(run, key):
    draw_candidates(run, key)
  make_images(run, Ledger(run.workdir, run.config, ""))
  return list(open_image_set(run, key))


def image_set_is_drawn(run, key):
  wider = SOURCES["generative"].needs(run, key)[0].run
  return ImageSet.exists(image_folder(wider, key))


def test_clip_keeps_the_images_of_the_class_with_their_prompts(tmp_path, monkeypatch):
  run = _run(tmp_path, "clip")
  records = _chosen(run)
  assert [record.index for record in records] == list(range(20))
  assert [record.label for record in records] == [*range(10), *range(10)]
  candidates = [int(record.origin.split()[1].rstrip(",")) for record in records]
  assert sorted(candidates) == list(range(20, 40))
  assert [record.prompt for record in records] == [f"prompt {index}" for index in candidates]
  # Neither the images nor the features that rank them are computed twice.
  monkeypatch.setattr("genbench_jax.models.clip.load_clip", None)
  assert _chosen(Run(run.config, run.workdir)) == records


def test_random_keeps_a_seeded_choice(tmp_path):
  records = _chosen(_run(tmp_path, "random"))
  assert len({record.origin for record in records}) == 20
  rows = [int(record.origin.split()[1].rstrip(",")) for record in records]
  assert min(rows) < 20 <= max(rows)
  assert rows != sorted(rows)
  assert records == _chosen(_run(tmp_path / "again", "random"))


@pytest.mark.parametrize("change", [{"method": "random"}, {"candidates": 3}, {"method": "none"}])
def test_another_choice_is_another_image_set(tmp_path, change):
  run = _run(tmp_path, "clip")
  (key,) = image_sets(run.config)
  other = dataclasses.replace(
    run.config, selection=dataclasses.replace(run.config.selection, **change)
  )
  assert image_layout(run, key).fingerprint != image_layout(Run(other, tmp_path), key).fingerprint
