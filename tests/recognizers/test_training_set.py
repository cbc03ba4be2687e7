"""Weights, phases and the order of the images are functions of seed and step."""

import numpy as np
import pytest

from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.training_set import make_training_set, schedule, source_weights

IMAGES = np.zeros((6, 4, 4, 3), np.uint8)
TARGETS = np.eye(2)[[0, 1, 0, 1, 0, 1]]


def _set(**options):
  return make_training_set(IMAGES, TARGETS, **options)


def test_weights_have_a_mean_of_one():
  found = _set(weights=[1, 1, 1, 3, 3, 3]).weights
  np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 1.5, 1.5, 1.5])
  np.testing.assert_array_equal(_set().weights, np.ones(6))


def test_later_images_train_alone_in_a_second_phase():
  later = [False, True, False, True, False, False]
  first, second = _set(later=later).phases()
  assert first.tolist() == [0, 2, 4, 5] and second.tolist() == [1, 3]
  for single in (np.zeros(6, bool), np.ones(6, bool)):
    (rows,) = _set(later=single).phases()
    assert rows.tolist() == list(range(6))


def test_every_epoch_visits_every_image_once_in_another_order():
  curriculum = _set().curriculum(Recipe(batch_size=2))
  epochs = [
    np.concatenate([curriculum.rows(3 * epoch + step) for step in range(3)]) for epoch in (0, 1)
  ]
  for epoch in epochs:
    assert sorted(epoch.tolist()) == list(range(6))
  assert epochs[0].tolist() != epochs[1].tolist()
  np.testing.assert_array_equal(curriculum.rows(4), _set().curriculum(Recipe(batch_size=2)).rows(4))


def test_phases_follow_one_another_and_each_warms_up():
  curriculum = _set(later=[True, False] * 3).curriculum(Recipe(batch_size=2, warmup=0.1))
  first, second = curriculum.steps
  assert curriculum.num_steps == first + second
  assert set(curriculum.rows(first - 1)) <= {1, 3, 5} and set(curriculum.rows(first)) <= {0, 2, 4}
  assert curriculum.rate(first) == pytest.approx(curriculum.rate(0))
  with pytest.raises(IndexError):
    curriculum.rows(first + second)


def test_a_part_of_the_images_trains_on_that_part():
  curriculum = _set().curriculum(Recipe(batch_size=2), np.array([1, 4]))
  assert set(np.concatenate([curriculum.rows(step) for step in range(4)])) == {1, 4}


@pytest.mark.parametrize(
  ("kind", "expected"),
  [("cosine", [0.5, 1.0, 1.0, 0.5]), ("constant", [0.5, 1, 1, 1]), ("steps", [0.5, 1, 1, 0.1])],
)
def test_schedules_warm_up_and_then_follow_their_curve(kind, expected):
  recipe = Recipe(schedule=kind, warmup=0.1)  # two of twenty steps
  found = [schedule(recipe, step, 20) for step in (0, 1, 2, 11)]
  np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_mean_loss_is_the_weighted_mean_of_the_sources():
  weights = source_weights((2, 8), (0.8, 0.2))
  assert weights.mean() == pytest.approx(1)
  losses = np.repeat([3.0, 5.0], [2, 8])
  assert np.mean(weights * losses) == pytest.approx(0.8 * 3 + 0.2 * 5)
  assert source_weights((0, 4), (0.8, 0.2)).tolist() == [1.0] * 4
