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


@pytest.mark.parametrize(
  ("kind", "steps", "shares"),
  [
    ("steps", 9, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001]),
    ("steps", 36, [1] * 12 + [0.1] * 12 + [0.01] * 8 + [0.001] * 4),
    ("constant", 3, [1, 1, 1]),
    ("cosine", 4, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ("cosine", 1, [1]),
  ],
)
def test_rates_after_a_warm_up_of_no_steps(kind, steps, shares):
  recipe = Recipe(schedule=kind, warmup=0.0)
  found = [schedule(recipe, step, steps) for step in range(steps)]
  np.testing.assert_allclose(found, shares, atol=1e-12)


@pytest.mark.parametrize(
  ("warmup", "steps", "first"), [(0.5, 4, [0.5, 1]), (1.0, 3, [1 / 3, 2 / 3, 1])]
)
def test_the_warm_up_is_linear_and_ends_at_the_peak(warmup, steps, first):
  recipe = Recipe(warmup=warmup)
  found = [schedule(recipe, step, steps) for step in range(len(first))]
  np.testing.assert_allclose(found, first)


def test_a_search_scales_rate_and_length_but_not_the_order():
  full = _set(later=[True, False] * 3).curriculum(Recipe(batch_size=2, epochs=0, min_steps=7))
  short = full.scaled(0.5, 0.3)
  assert (full.steps, short.steps, full.scaled(1, 0.01).steps) == ((7, 7), (2, 2), (1, 1))
  assert short.recipe.learning_rate == 0.5 * full.recipe.learning_rate
  np.testing.assert_array_equal(short.rows(0), full.rows(0))
  assert full.rate(3) == pytest.approx(0.1 * schedule(full.recipe, 3, 7))


def test_each_phase_has_an_order_of_its_own():
  data = make_training_set(np.zeros((8, 2, 2, 3), np.uint8), np.eye(2)[np.arange(8) % 2], later=np.arange(8) >= 4, seed=3)  # fmt: skip
  curriculum = data.curriculum(Recipe(batch_size=4, epochs=1, min_steps=1))
  assert curriculum.steps == (1, 1) and curriculum.seed == 3
  first, second = (np.random.default_rng([3 + phase, 0]).permutation(4) for phase in (0, 1))
  np.testing.assert_array_equal(curriculum.rows(0), first)
  np.testing.assert_array_equal(curriculum.rows(1), 4 + second)
  assert data.curriculum(Recipe(), np.array([5, 6])).phases[0].tolist() == [5, 6]
  assert (len(data), data.num_classes, data.multi_label, _set().seed) == (8, 2, False, 0)


def test_a_source_with_equal_weights_counts_as_its_images():
  np.testing.assert_allclose(source_weights((1, 3), (0.25, 0.75)), 1)
  np.testing.assert_allclose(source_weights((1, 3), (1, 1)), [2, 2 / 3, 2 / 3, 2 / 3])
  np.testing.assert_allclose(source_weights((2, 0, 2), (3, 5, 1)), [1.5, 1.5, 0.5, 0.5])
