"""The best of several images: which, in which order, and by whose judgement."""

import dataclasses

import numpy as np
import pytest

from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Generation, Selection
from genbench_jax.pipeline.artifacts import image_layout
from genbench_jax.run import Run
from genbench_jax.sources.selection import best_of, chosen_shards
from genbench_jax.store.image_set import ImageRecord, encode_png


def test_the_best_of_every_class_come_first_and_sets_nest():
  labels = np.array([0, 1, 0, 1, 0, 1])
  scores = np.array([0.1, 0.9, 0.3, 0.9, 0.2, -np.inf])
  assert best_of(scores, labels, 2).tolist() == [2, 1, 4, 3]
  assert best_of(scores, labels, 1).tolist() == [2, 1]
  assert best_of(scores, labels, 9).tolist() == [2, 1, 4, 3, 0, 5]


class Digits:
  """Stands in for the diffusion model: the first candidates of each class are noise, the last real digits."""

  def __init__(self):
    self.calls = 0

  def records(self, run, key, layout, shards):
    from genbench_jax.benchmark.reader import open_split
    from genbench_jax.benchmark.registry import dataset_spec

    self.calls += 1
    split = open_split(dataset_spec("digits"), "train")
    labels = split.labels()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    for shard in shards:
      records = []
      for index in layout.shard_range(shard):
        shot, label = divmod(index, 10)
        image = encode_png(noise)
        if shot >= layout.num_images // 10 - 2:
          found = split.example(int(np.flatnonzero(labels == label)[shot]))["image"]
          image = encode_png(np.asarray(found.convert("RGB")))
        records.append(ImageRecord(image, label, index, f"prompt {index}"))
      yield shard, records


def _run(tmp_path, method):
  config = Config(
    sources=("generative",),
    shots=(1, 2),
    generation=Generation(shard_size=16),
    selection=Selection(method=method, candidates=2),
  )
  return Run(config, tmp_path)


def _chosen(run, source):
  (key,) = image_sets(run.config)
  layout = image_layout(run, key)
  shards = chosen_shards(source, run, key, layout, range(layout.num_shards))
  return [record for _, records in shards for record in records]


def test_clip_keeps_the_images_of_the_class_with_their_prompts(tmp_path):
  run, source = _run(tmp_path, "clip"), Digits()
  records = _chosen(run, source)
  assert [record.index for record in records] == list(range(20))
  assert [record.label for record in records] == [*range(10), *range(10)]
  candidates = [int(record.origin.split()[1].rstrip(",")) for record in records]
  assert sorted(candidates) == list(range(20, 40))
  assert [record.prompt for record in records] == [f"prompt {index}" for index in candidates]
  # Neither the images nor their scores are made twice.
  again = _chosen(Run(run.config, run.workdir), source)
  assert (again, source.calls) == (records, 1)


def test_random_keeps_a_seeded_choice(tmp_path):
  records = _chosen(_run(tmp_path, "random"), Digits())
  assert len({record.origin for record in records}) == 20
  rows = [int(record.origin.split()[1].rstrip(",")) for record in records]
  assert min(rows) < 20 <= max(rows)
  assert rows != sorted(rows)
  assert records == _chosen(_run(tmp_path / "again", "random"), Digits())


@pytest.mark.parametrize("change", [{"method": "random"}, {"candidates": 3}, {"method": "none"}])
def test_another_choice_is_another_image_set(tmp_path, change):
  run = _run(tmp_path, "clip")
  (key,) = image_sets(run.config)
  other = dataclasses.replace(
    run.config, selection=dataclasses.replace(run.config.selection, **change)
  )
  assert image_layout(run, key).fingerprint != image_layout(Run(other, tmp_path), key).fingerprint
