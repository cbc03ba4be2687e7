"""CLIP score against its definition."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import own_interval
from genbench_jax.metrics.clip_score import clip_score, image_scores, measure_clip_score
from genbench_jax.metrics.strata import strata_of


def cosines(images, texts):
  images, texts = (
    rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for rows in (images.astype(float), texts.astype(float))
  )
  return np.maximum(images @ texts.T, 0) * 100


def test_each_image_with_its_own_text(world):
  texts = world.text[world.labels] + 0.1
  expected = np.diag(cosines(world.images, texts)).mean()
  assert clip_score(world.images, texts) == pytest.approx(expected, rel=1e-5)


def test_class_prototypes(world, one_device_mesh, monkeypatch):
  every = cosines(world.images, world.text)
  expected = every[np.arange(len(world.labels)), world.labels]
  found = measure_clip_score(world.images, world.text, world.labels)
  assert found.score.value == pytest.approx(expected.mean(), rel=1e-5)
  assert found.score.ci_low < found.score.value < found.score.ci_high
  assert list(found.per_class) == list(range(7))
  assert found.per_class[2] == pytest.approx(expected[world.labels == 2].mean(), rel=1e-5)
  alone = clip_score(world.images, world.text, world.labels, mesh=one_device_mesh)
  assert alone == pytest.approx(found.score.value, rel=1e-6)
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 16)
  blocks = clip_score(world.images, world.text, world.labels)
  assert blocks == pytest.approx(found.score.value, rel=1e-6)


def test_several_classes_per_image(world):
  hot = np.eye(7, dtype=bool)[world.labels]
  hot[:5] = False
  hot[5:20, 0] = True
  every = cosines(world.images, world.text)
  expected = (every * hot).sum(1)[5:] / hot.sum(1)[5:]
  found = measure_clip_score(world.images, world.text, hot, resamples=20)
  assert found.score.value == pytest.approx(expected.mean(), rel=1e-5)
  assert found.per_class[0] == pytest.approx(expected[hot[5:, 0]].mean(), rel=1e-5)


def test_known_values():
  axes = np.eye(3)
  assert clip_score(axes, axes) == 100
  assert clip_score(axes, -axes) == 0
  assert clip_score(5 * axes, axes + axes[[1, 2, 0]]) == pytest.approx(100 / np.sqrt(2), rel=1e-6)


def test_inconsistent_arguments_are_usage_errors(world):
  with pytest.raises(UsageError, match="its own text"):
    clip_score(world.images, world.text)
  with pytest.raises(UsageError, match="no class"):
    clip_score(world.images, world.text, np.zeros((63, 7)))
  with pytest.raises(UsageError, match="16 wide"):
    clip_score(world.images, world.text[:, :3], world.labels)


def test_scores_of_images_with_and_without_classes():
  images, texts = np.array([[1.0, 0], [0, 1], [3, 4]]), np.array([[1.0, 0], [0.6, 0.8], [-1, 0]])
  scores, labels = image_scores(images, texts, np.array([0, 1, 2]))
  np.testing.assert_allclose(scores, [100, 80, 0], rtol=1e-6)
  assert labels.tolist() == [0, 1, 2] and scores.dtype == np.float64
  hot = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]])
  scores, labels = image_scores(images, texts, hot)
  np.testing.assert_allclose(scores, [80, 30], rtol=1e-6)
  np.testing.assert_array_equal(labels, hot[[0, 2]])
  scores, labels = image_scores(images, texts)
  np.testing.assert_allclose(scores, [100, 80, 0], rtol=1e-6)
  assert labels is None
  with pytest.raises(UsageError, match="3 images and 2 texts"):
    image_scores(images, texts[:2])
  for given in ((images, texts * np.nan, None), (images, texts * np.nan, np.zeros(3, int))):
    with pytest.raises(UsageError, match="text_features hold NaN"):
      image_scores(*given)


def test_the_interval_is_that_of_the_scores_within_classes(world):
  scores, labels = image_scores(world.images, world.text, world.labels)
  found = measure_clip_score(world.images, world.text, world.labels, 4, 50)
  expected = own_interval(scores.mean(), scores, strata_of(labels, len(scores)), 50, 4)
  assert found.score == expected
  plain = measure_clip_score(world.images, world.images + 1, seed=4, resamples=50)
  assert plain.per_class == {} and plain.score.ci_low < plain.score.value
  assert measure_clip_score(world.images, world.text, world.labels) == measure_clip_score(
    world.images, world.text, world.labels, 0, 1000
  )
