"""Training batches: what they contain, and how they lie on the mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from genbench_jax.recognizers.batches import batches_from, on_mesh
from genbench_jax.recognizers.problem import Batch
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.training_set import Curriculum, TrainingSet
from genbench_jax.runtime.mesh import DATA_AXIS

RECIPE = Recipe(batch_size=8, epochs=1, min_steps=3, accumulate=2)


def training_set(count, offset=0):
  images = (np.arange(count)[:, None, None, None] + offset) * np.ones((1, 2, 2, 3))
  targets = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
  weights = np.linspace(0.5, 1, count, dtype=np.float32)
  return TrainingSet(images.astype(np.uint8), targets, weights, np.zeros(count, bool), False, 0)


def curriculum(count, seed=0):
  return Curriculum((np.arange(count),), (RECIPE.num_steps(count),), RECIPE, seed)


@pytest.fixture(scope="module")
def single(mesh):
  data, order = training_set(20), curriculum(20)
  return data, order, list(batches_from([data], [order], 0, mesh))


def test_a_batch_has_the_rows_of_its_step_in_parts(single):
  data, order, batches = single
  assert len(batches) == order.num_steps
  for number, batch in enumerate(batches):
    rows = order.rows(number)
    assert batch.images.shape == (2, 4, 2, 2, 3)
    np.testing.assert_array_equal(np.asarray(batch.images).reshape(8, 2, 2, 3), data.images[rows])
    np.testing.assert_array_equal(np.asarray(batch.targets).reshape(8, 3), data.targets[rows])
    np.testing.assert_array_equal(np.asarray(batch.weights).ravel(), data.weights[rows])
    assert int(batch.number) == number and int(batch.seed) == order.seed
    assert float(batch.rate) == pytest.approx(order.rate(number))


def test_a_resumed_training_sees_the_same_batches(single, mesh):
  data, order, batches = single
  again = list(batches_from([data], [order], 1, mesh))
  assert len(again) == len(batches) - 1
  jax.tree.map(np.testing.assert_array_equal, again, batches[1:])


def test_several_cells_are_stacked_and_share_the_step(mesh):
  sets = [training_set(20), training_set(20, 100)]
  orders = [curriculum(20), curriculum(20, 1)]
  first = next(batches_from(sets, orders, 0, mesh))
  assert first.images.shape == (2, 2, 4, 2, 2, 3)
  assert np.asarray(first.images)[1].min() >= 100
  assert first.number.shape == () and np.asarray(first.seed).tolist() == [0, 1]


def batch_of(images):
  zeros = np.zeros
  return Batch(
    zeros((1, images, 2, 2, 3), np.uint8), zeros((1, images, 3), np.float32),
    zeros((1, images), np.float32), np.int32(0), np.int32(0), np.float32(0),
  )  # fmt: skip


@pytest.mark.parametrize(("images", "split"), [(16, True), (8, True), (12, False), (4, False)])
def test_images_are_split_over_the_devices_if_they_divide(images, split, mesh):
  placed = on_mesh(batch_of(images), mesh)
  expected = PartitionSpec(None, DATA_AXIS) if split else PartitionSpec()
  for array in (placed.images, placed.targets, placed.weights):
    assert array.sharding.spec == expected
  assert placed.number.sharding.is_fully_replicated and placed.rate.sharding.is_fully_replicated
