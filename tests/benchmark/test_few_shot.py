import random

import numpy as np
import pytest

from genbench_jax.benchmark.few_shot import few_shot, reference_few_shot


def imbalanced():
  return np.repeat([0, 1, 2], [10, 10, 2])


@pytest.mark.parametrize("sample", [few_shot, reference_few_shot])
def test_small_classes_keep_all_images(sample):
  labels = imbalanced()
  chosen = sample(labels, 5, 0)
  np.testing.assert_array_equal(np.bincount(labels[chosen]), [5, 5, 2])
  assert len(set(chosen.tolist())) == len(chosen)


@pytest.mark.parametrize("shots", [0, -1])
@pytest.mark.parametrize("sample", [few_shot, reference_few_shot])
def test_zero_and_minus_one_mean_all(sample, shots):
  assert sorted(sample(imbalanced(), shots, 0)) == list(range(22))
  assert sorted(sample(multi_hot(), shots, 0)) == list(range(40))


def multi_hot(seed=0):
  return np.random.default_rng(seed).random((40, 5)) < [0.6, 0.3, 0.2, 0.1, 0.05]


@pytest.mark.parametrize("labels", [imbalanced(), multi_hot()], ids=["one label", "several"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fewer_shots_are_a_prefix(labels, seed):
  most = few_shot(labels, 8, seed)
  for shots in range(1, 8):
    fewer = few_shot(labels, shots, seed)
    np.testing.assert_array_equal(fewer, most[: len(fewer)])
  assert len(few_shot(labels, 1, seed)) < len(most)


def test_seeds_differ_and_repeat():
  labels = np.repeat(np.arange(4), 50)
  np.testing.assert_array_equal(few_shot(labels, 5, 3), few_shot(labels, 5, 3))
  assert set(few_shot(labels, 5, 3)) != set(few_shot(labels, 5, 4))


def test_the_first_shot_has_one_image_of_each_class_in_class_order():
  labels = np.repeat(np.arange(4), 50)
  np.testing.assert_array_equal(labels[few_shot(labels, 3, 0)], [0, 1, 2, 3] * 3)


def test_reference_keeps_the_first_of_each_class_in_the_shuffled_order():
  # random.Random(0) shuffles 0..5 to [4, 2, 1, 0, 5, 3].
  labels = np.array([0, 1, 0, 0, 1, 1])
  assert reference_few_shot(labels, 2, 0).tolist() == [4, 2, 1, 0]
  assert reference_few_shot(labels, 3, 0).tolist() == [4, 2, 1, 0, 5, 3]


def test_reference_takes_two_for_one_shot():
  labels = imbalanced()
  np.testing.assert_array_equal(np.bincount(labels[reference_few_shot(labels, 1, 0)]), [2, 2, 2])


def test_reference_order_is_pythons_shuffle():
  labels = np.zeros(30, int)
  order = list(range(30))
  random.Random(7).shuffle(order)
  assert reference_few_shot(labels, 12, 7).tolist() == order[:12]


def test_reference_rule_for_several_labels_matches_a_manual_example():
  # Visited in the order 4, 2, 1, 0, 5, 3 (see above) with two shots; counts of (a, b) before each:
  # 4 {a} (0,0) kept; 2 {a} (1,0) kept; 1 {a, b} (2,0): rarest 0 <= 1, kept; 0 {a} (3,1): rarest 3, dropped;
  # 5 {b} (3,1) kept; 3 {a, b} (3,2): both have two, dropped.
  labels = np.array([[1, 0], [1, 1], [1, 0], [1, 1], [1, 0], [0, 1]], bool)
  assert reference_few_shot(labels, 2, 0).tolist() == [4, 2, 1, 5]


def test_reference_drops_images_that_would_overfill_a_frequent_class():
  # Four shots, visited as 4, 2, 1, 0, 5, 3, 6, ...: `a` is in every image, `b` in the last few.
  order = list(range(16))
  random.Random(0).shuffle(order)
  labels = np.zeros((16, 2), bool)
  labels[order[:4], 0] = True
  # a has 4 and b increases: {a, b} is kept while b <= 2 (half) or a <= 6 (1.5 times).
  labels[order[4:], :] = True
  chosen = reference_few_shot(labels, 4, 0)
  # b = 0, 1, 2 are kept (a = 4, 5, 6). At b = 3, a = 7 > 6 and b > 2, so it is dropped.
  assert chosen.tolist() == order[:7]


def test_unlabeled_images_count_as_a_class():
  labels = np.zeros((10, 3), bool)
  assert len(reference_few_shot(labels, 4, 0)) == 4
  assert len(few_shot(labels, 4, 0)) == 4
