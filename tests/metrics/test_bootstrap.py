"""Bootstrap intervals: the resamples themselves, and what is computed on them."""

import numpy as np
import pytest

from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.metrics.bootstrap import (
  interval,
  mean_interval,
  resampled_means,
  shifted_interval,
  weight_slabs,
)
from genbench_jax.metrics.recognition_bootstrap import resampled_correct, resampled_scores


def weights_of(count, size, resamples, mesh, seed=0):
  return np.concatenate(
    [np.asarray(slab) for slab in weight_slabs(count, size, resamples, seed, mesh)]
  )


def test_resamples_draw_as_many_images_as_there_are(mesh):
  weights = weights_of(100, 256, 40, mesh)[:40]
  assert (weights.sum(1) == 100).all() and not weights[:, 100:].any()
  assert len({row.tobytes() for row in weights}) == 40
  assert weights.mean(0)[:100].std() == pytest.approx(1 / np.sqrt(40), rel=0.3)


def test_resamples_do_not_depend_on_devices_padding_or_slabs(mesh, one_device_mesh, monkeypatch):
  whole = weights_of(100, 256, 40, mesh)[:40]
  assert (weights_of(100, 256, 40, one_device_mesh)[:40] == whole).all()
  assert (weights_of(100, 1024, 40, mesh)[:40, :256] == whole).all()
  monkeypatch.setattr("genbench_jax.metrics.bootstrap.SLAB_BYTES", 16 * 256)
  assert (weights_of(100, 256, 40, mesh)[:40] == whole).all()


def test_the_interval_of_a_mean_has_the_textbook_width():
  values = np.random.default_rng(0).normal(3, 2, 200)
  found = mean_interval(values)
  error = values.std() / np.sqrt(200)
  assert found.value == pytest.approx(values.mean())
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * error, rel=0.1)
  assert found.ci_low < found.value < found.ci_high
  shifted = shifted_interval(10, values)
  assert shifted.ci_low - 10 == pytest.approx(found.ci_low - found.value)


def test_a_single_image_has_an_interval_without_width():
  found = mean_interval(np.array([4.0]))
  assert (found.value, found.ci_low, found.ci_high) == (4, 4, 4)


def test_resamples_without_a_value_are_left_out():
  assert interval(0.5, np.array([np.nan, 0.25, 0.75])).ci_high == pytest.approx(0.7375)


def test_means_keep_small_differences_of_large_numbers():
  values = 1e6 + np.random.default_rng(0).normal(size=(50, 1))
  samples = resampled_means(values, 100)
  assert samples.std() == pytest.approx(1 / np.sqrt(50), rel=0.3)


def drawn(weights, count):
  return [np.repeat(np.arange(count), row[:count]) for row in weights]


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class"])
def test_resampled_predictions_are_scored_as_any_others(mesh, metric):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 5, 60).astype(np.int32)
  predicted = np.where(rng.random((60, 2)) < 0.5, labels[:, None], 0)
  found = resampled_correct(predicted == labels[:, None], labels, 5, metric, 16, 0, mesh)
  for value, images in zip(found, drawn(weights_of(60, 256, 16, mesh)[:16], 60), strict=True):
    for column in range(2):
      scores = np.eye(5)[predicted[images, column]]
      expected = recognition_score(scores, labels[images], metric)
      assert value[column] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", ["roc_auc", "map_11_point"])
@pytest.mark.parametrize("levels", [3, 1000])
def test_resampled_scores_are_scored_as_any_others(mesh, metric, levels):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, 60).astype(np.int32)
  scores = (rng.integers(0, levels, (60, 3, 2)) / levels).astype(np.float32)
  found = resampled_scores(scores, labels, metric, 16, 0, mesh)
  for value, images in zip(found, drawn(weights_of(60, 256, 16, mesh)[:16], 60), strict=True):
    for column in range(3):
      expected = recognition_score(scores[images, column], labels[images], metric)
      assert value[column] == pytest.approx(expected, rel=1e-5)


def test_a_resample_without_a_positive_has_no_area(mesh):
  scores = np.random.default_rng(0).random((3, 1, 2)).astype(np.float32)
  labels = np.array([0, 1, 0], np.int32)
  found = resampled_scores(scores, labels, "roc_auc", 64, 0, mesh)[:, 0]
  one_class = [len(set(labels[images])) == 1 for images in drawn(weights_of(3, 256, 64, mesh), 3)]
  assert (np.isnan(found) == one_class).all() and any(one_class)


def test_the_mean_of_float32_values_is_taken_in_float64():
  """In float32 the sum of a large value and many small ones loses the small ones."""
  values = np.concatenate([[2.0**25], np.ones(4000)]).astype(np.float32)
  assert mean_interval(values, resamples=10).value == values.astype(np.float64).mean()
