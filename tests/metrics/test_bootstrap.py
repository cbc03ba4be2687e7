"""Bootstrap intervals: the resamples, and statistics of them."""

import numpy as np
import pytest

from genbench_jax.metrics.bootstrap import (
  interval,
  own_interval,
  resampled_means,
  two_sided_interval,
  weight_slabs,
)


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
  found = own_interval(float(values.mean()), values, np.zeros(200, int))
  error = values.std() / np.sqrt(200)
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * error, rel=0.1)
  assert found.ci_low < found.value < found.ci_high
  assert (found.generator_low, found.generator_high) == (found.ci_low, found.ci_high)


def test_differences_between_classes_do_not_widen_an_interval():
  classes = np.repeat(np.arange(20), 10)
  within = np.random.default_rng(0).normal(size=200)
  found = own_interval(0.0, within + 10 * classes, classes)
  error = np.mean([within[classes == c].var(ddof=1) for c in range(20)]) ** 0.5 / np.sqrt(200)
  assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_the_second_interval_adds_the_external_images():
  random = np.random.default_rng(0)
  external, test = random.normal(size=300), 2 * random.normal(size=400)
  found = two_sided_interval(0.0, external, test)
  assert found.ci_high - found.ci_low == pytest.approx(3.92 * 2 / 20, rel=0.1)
  both = np.hypot(2 / 20, 1 / np.sqrt(300))
  assert found.generator_high - found.generator_low == pytest.approx(3.92 * both, rel=0.1)
  alone = two_sided_interval(0.0, None, test)
  assert alone.generator_low is None and "one image per class" in alone.note


def test_one_image_per_class_is_reported():
  found = own_interval(1.0, np.arange(5.0), np.arange(5))
  assert found.generator_low is None and found.ci_low < 1 < found.ci_high
  assert "one image per class" in found.note


def test_undefined_resamples_are_ignored():
  assert interval(0.5, np.array([np.nan, 0.25, 0.75])).ci_high == pytest.approx(0.7375)


def test_means_keep_small_differences_of_large_values():
  values = 1e6 + np.random.default_rng(0).normal(size=(50, 1))
  samples = resampled_means(values, 100)
  assert samples.std() == pytest.approx(1 / np.sqrt(50), rel=0.3)
