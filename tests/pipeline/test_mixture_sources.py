"""Mixtures as training data: weights, order, and long-tailed numbers of originals."""

import types

import numpy as np
import pytest
from PIL import Image

from genbench_jax.cells import Cell, ImageSetKey, long_tail_counts, mixture_budget, rows_of_counts
from genbench_jax.config import Mixture as Settings
from genbench_jax.pipeline import tasks
from genbench_jax.pipeline.external import External, LongTail, Mixture
from genbench_jax.pipeline.tasks import make_task
from genbench_jax.runtime.hosts import Hosts
from genbench_jax.store.embedding_set import EmbeddingSet

CLASSES, SHOTS = 5, 8


def images(offset):
  """Return eight images of each of five classes, j-major; the feature encodes the origin."""
  labels = np.tile(np.arange(CLASSES), SHOTS)
  ids = np.arange(len(labels))
  features = (offset + ids)[:, None].astype(np.float32)
  return EmbeddingSet(features, labels, ids, np.ones(len(ids), np.uint8))


def key(source):
  return ImageSetKey("digits", source, "", 0)


def external(source, offset):
  sizes = {shots: CLASSES * shots for shots in range(1, SHOTS + 1)}
  return External(key(source), images(offset), sizes, sizes)


def mixture():
  real, others = external("original", 0), external("generative", 1000)
  return Mixture(real.key, real.images, real.shot_sizes, real.real_images, others)


def task(of, **settings):
  return make_task(Cell("digits", "combined", "", 4, 0), of, None, Settings(**settings))


def test_loss_weights_do_not_depend_on_the_number_of_images():
  found = task(mixture(), loss_weights=(0.8, 0.2))
  real = found.images.features[:, 0] < 1000
  assert real.sum() == (~real).sum() == 20
  assert found.weights[real].sum() / 40 == pytest.approx(0.8)
  assert found.weights.mean() == pytest.approx(1)
  plain = task(mixture())
  assert plain.weights is None and plain.later is None
  alone = make_task(Cell("digits", "original", "", 4, 0), external("original", 0), None, Settings(loss_weights=(0.8, 0.2), order="real_last"))  # fmt: skip
  assert alone.weights is None and alone.later is None


def test_real_images_come_last():
  found = task(mixture(), order="real_last")
  np.testing.assert_array_equal(found.later, found.images.features[:, 0] < 1000)


def test_a_long_tail_is_filled_up():
  """Counts fall geometrically from 8 to 1; each class has 8 images, the first of each source."""
  counts = long_tail_counts(CLASSES, SHOTS, 8.0, seed=3)
  assert sorted(counts.tolist()) == [1, 2, 3, 5, 8]
  assert long_tail_counts(CLASSES, SHOTS, 8.0, seed=4).tolist() != counts.tolist()
  assert long_tail_counts(3, 2, 100.0, seed=0).min() == 1
  whole = mixture()
  tail = LongTail(
    whole.key, whole.images, whole.shot_sizes, whole.real_images, whole.others, counts={SHOTS: counts}
  )  # fmt: skip
  found = tail.of_shots(SHOTS)
  real = found.features[:, 0] < 1000
  np.testing.assert_array_equal(np.bincount(found.labels[real]), counts)
  np.testing.assert_array_equal(np.bincount(found.labels), SHOTS)
  assert found.ids[real].max() < CLASSES * SHOTS
  assert mixture_budget(SHOTS, Settings(budget="long_tail")) == (SHOTS, SHOTS)


def test_rows_are_the_first_of_each_class():
  labels = np.array([1, 0, 1, 1, 0, 2])
  assert rows_of_counts(labels, np.array([1, 2, 0])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("limit", [0, 2**29])
def test_images_are_decoded_once_in_memory_or_in_a_file(limit, tmp_path, monkeypatch):
  monkeypatch.setattr(tasks, "IN_MEMORY_BYTES", limit)
  run = types.SimpleNamespace(workdir=tmp_path, hosts=Hosts())
  data = types.SimpleNamespace(spec=types.SimpleNamespace(resize="crop"))
  colors = [Image.new("RGB", (16, 16), (20 * i, 255, 7)) for i in range(6)]
  chosen = tasks.ChosenImages([(colors, np.array([4, 1])), (colors, np.array([5]))])
  found = tasks.decoded(run, data, chosen, 16, "images")
  assert found.dtype == np.uint8 and found.shape == (3, 16, 16, 3)
  assert [image[3, 3].tolist() for image in found] == [[80, 255, 7], [20, 255, 7], [100, 255, 7]]
  assert isinstance(found, np.memmap) == (limit == 0)
  assert not list(tmp_path.iterdir())  # the file has no name: nothing is left, however the run ends
