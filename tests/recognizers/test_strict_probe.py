"""Parts of the strict probe: padding, blocks, prior and penalty."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.recognizers import strict_probe
from genbench_jax.recognizers.splits import stratified_folds
from genbench_jax.recognizers.strict_probe import (
  BlockShape,
  Cells,
  TrainingSet,
  _block_shape,
  _blocks,
  _prior_bias,
  _prior_scale,
  _work,
  pad_cells,
)


def cell(count, classes=2, width=3, seed=0, weights=None):
  random = np.random.default_rng(seed)
  targets = np.eye(classes, dtype=np.float32)[np.arange(count) % classes]
  return TrainingSet(random.normal(size=(count, width)).astype(np.float32), targets, seed, weights)


def test_numbers_that_decide_fits():
  assert (strict_probe.MEANINGLESS_LOSS, strict_probe.FOLD_TOLERANCE) == (1e-3, 3e-3)
  assert strict_probe.UNKNOWN_CLASS_LOGIT == -1e4
  assert (strict_probe.CELLS_AT_ONCE, strict_probe.FEW_LOGITS, strict_probe.FREE_WORK) == (
    16,
    2**18,
    2**20,
  )


def test_padding_has_no_weight_and_is_never_held_out(one_device_mesh):
  weights = np.array([0.5, 1.5, 1, 1, 1], np.float32)
  sets = [cell(4), cell(5, seed=2, weights=weights)]
  found = pad_cells(sets, 6, 3, one_device_mesh)
  assert found.features.shape == (3, 6, 3) and found.targets.shape == (3, 6, 2)
  np.testing.assert_array_equal(
    found.weights, [[1, 1, 1, 1, 0, 0], [0.5, 1.5, 1, 1, 1, 0], [0] * 6]
  )
  for index, given in enumerate(sets):
    count = len(given.features)
    np.testing.assert_array_equal(found.features[index, :count], given.features)
    np.testing.assert_array_equal(found.targets[index, :count], given.targets)
    folds = stratified_folds(given.targets, 3, given.seed)
    np.testing.assert_array_equal(found.folds[index, :count], folds)
    assert not np.asarray(found.features[index, count:]).any()
    assert (np.asarray(found.folds[index, count:]) == -1).all()


@pytest.mark.parametrize(("rows", "folds"), [(2048, 3), (2049, 5)])
def test_many_images_are_held_out_by_fifths(rows, folds, one_device_mesh):
  found = pad_cells([cell(40)], rows, 1, one_device_mesh)
  assert np.unique(found.folds).tolist() == [-1, *range(folds)]


@pytest.mark.parametrize(
  ("count", "classes", "devices", "shape"),
  [
    (10, 2, 1, (64, 16, 3)),
    (10, 2, 8, (64, 16, 3)),
    (10, 1024, 1, (64, 4, 3)),
    (10, 2048, 1, (64, 2, 3)),
    (10, 2048, 8, (64, 8, 3)),
    (10, 4096, 8, (64, 1, 3)),
    (2048, 2, 1, (2048, 16, 3)),
    (2049, 2, 1, (3072, 16, 1)),
    (65, 2, 5, (100, 20, 3)),
  ],
)
def test_a_program_holds_as_many_cells_as_their_logits_allow(count, classes, devices, shape):
  targets = np.zeros((count, classes), np.float32)
  given = TrainingSet(np.zeros((count, 1), np.float32), targets, 0)
  assert _block_shape(given, devices) == BlockShape(*shape)


def test_the_work_of_a_pass_is_rows_times_classes_times_width():
  assert _work(cell(4, classes=5, width=7), 11) == 11 * 5 * 7


def test_small_cells_take_the_shape_of_larger_ones_if_that_costs_nothing(monkeypatch):
  sets = [cell(10), cell(70), cell(12), cell(100), cell(9)]
  found = list(_blocks(sets, 1))
  assert found == [(BlockShape(128, 8, 3), [0, 1, 2, 3, 4])]
  # 128 x 2 x 3 products are too many, 96 x 2 x 3 are not.
  monkeypatch.setattr(strict_probe, "FREE_WORK", 128 * 6 - 1)
  found = list(_blocks(sets, 1))
  assert found == [
    (BlockShape(128, 1, 3), [3]), (BlockShape(96, 4, 3), [0, 1, 2, 4]),
  ]  # fmt: skip
  monkeypatch.setattr(strict_probe, "FREE_WORK", 0)
  found = list(_blocks(sets, 1))
  assert found == [
    (BlockShape(128, 1, 3), [3]), (BlockShape(96, 1, 3), [1]), (BlockShape(64, 4, 3), [0, 2, 4]),
  ]  # fmt: skip


def test_more_cells_than_fit_are_divided(monkeypatch):
  monkeypatch.setattr(strict_probe, "CELLS_AT_ONCE", 2)
  found = list(_blocks([cell(10)] * 5, 1))
  assert found == [(BlockShape(64, 2, 3), members) for members in ([0, 1], [2, 3], [4])]
  assert list(_blocks([cell(10)] * 2, 8)) == [(BlockShape(64, 8, 3), [0, 1])]


def padded(features, labels, folds, weights, classes=2):
  targets = np.eye(classes, dtype=np.float32)[labels]
  arrays = (
    np.asarray(features, np.float32),
    targets,
    np.asarray(weights, np.float32),
    np.asarray(folds),
  )
  return Cells(*map(jnp.asarray, arrays))


def test_the_mean_zero_shot_logit_of_several_labels_is_zero():
  features = np.array([[1.0, 2], [3, 0], [9, 9]])
  given = padded(features, [0, 1, 0], [0, 1, -1], [2, 1, 0])
  prior = np.array([[1.0, 0], [2, -1]], np.float32)
  found = _prior_bias(given, jnp.asarray(prior), jnp.float32(3))
  mean = (2 * features[0] + features[1]) / 3
  np.testing.assert_allclose(found, -prior @ mean, rtol=1e-6)


def test_the_scale_of_the_prior_is_the_likeliest_one():
  """Logits of +-8 that are right in three of four cases: the best log-odds are log 3, a 7th of them."""
  logits = jnp.asarray([[8.0, 0], [8, 0], [8, 0], [8, 0]])
  given = padded(np.zeros((4, 1)), [0, 0, 0, 1], [0, 1, 2, 0], np.ones(4))
  scales = np.array(strict_probe.PRIOR_SCALES)
  losses = 3 * np.log1p(np.exp(-8 * scales)) + np.log1p(np.exp(8 * scales))
  assert float(_prior_scale(given, logits, False)) == pytest.approx(scales[losses.argmin()])
  assert 0 < losses.argmin() < len(scales) - 1
  # One image per class holds nothing out: the scale stays.
  alone = given._replace(folds=jnp.full(4, -1))
  assert float(_prior_scale(alone, logits, False)) == 1
