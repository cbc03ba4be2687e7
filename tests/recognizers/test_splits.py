"""Validation images: taken from the training images, never a whole class."""

import numpy as np
import pytest

from genbench_jax.recognizers import splits


def test_targets_of_indices_and_of_several_labels():
  assert splits.class_targets(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
  hot = np.array([[True, True, False]])
  assert splits.class_targets(hot, 3).dtype == np.float32


def test_an_image_of_several_classes_belongs_to_the_rarest():
  targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]], np.float32)
  assert splits.strata(targets).tolist() == [0, 1, 3, 2]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_balanced_within_each_class(folds):
  labels = np.repeat([0, 1, 2], [7, 4, 1])
  found = splits.stratified_folds(splits.class_targets(labels, 3), folds, seed=1)
  for label in (0, 1):
    counts = np.bincount(found[labels == label], minlength=folds)
    assert counts.max() - counts.min() <= 1
  assert found[-1] == splits.NEVER_HELD_OUT
  again = splits.stratified_folds(splits.class_targets(labels, 3), folds, seed=1)
  np.testing.assert_array_equal(found, again)


def test_one_image_per_class_cannot_be_held_out():
  assert not splits.can_hold_out(np.eye(3, dtype=np.float32))
  assert splits.can_hold_out(np.eye(3, dtype=np.float32)[[0, 0, 1]])


def test_the_references_fifth_is_the_first_of_each_class():
  labels = np.repeat([0, 1], [6, 2])
  chosen = splits.first_fifth(splits.class_targets(labels, 2))
  assert np.flatnonzero(chosen).tolist() == [0, 1, 6]  # ceil(1.2) and ceil(0.4)
  hot = np.array([[1, 1], [1, 0], [0, 1], [1, 0]], np.float32)
  assert np.flatnonzero(splits.first_fifth(hot)).tolist() == [0]


@pytest.mark.parametrize(
  ("counts", "possible"), [([1, 1, 2], True), ([2], True), ([1, 1], False), ([], False)]
)
def test_two_images_of_a_class_can_be_divided(counts, possible):
  labels = np.repeat(np.arange(len(counts)), counts)
  targets = splits.class_targets(labels, max(len(counts), 1))
  assert splits.can_hold_out(targets) == possible


def test_two_images_are_held_out_in_turn():
  targets = splits.class_targets(np.array([0, 0, 1, 1]), 2)
  for seed in range(8):
    folds = splits.stratified_folds(targets, 3, seed)
    assert folds.min() >= 0 and folds.max() <= 2
    assert folds[0] != folds[1] and folds[2] != folds[3]
  # The fold of the first image is drawn, so that all folds occur.
  assert {int(splits.stratified_folds(targets, 3, seed)[0]) for seed in range(20)} == {0, 1, 2}


def test_images_without_a_class_are_a_group_of_their_own():
  targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.float32)
  assert splits.strata(targets).tolist() == [0, 2, 2, 1]
  folds = splits.stratified_folds(targets, 2, 0)
  assert folds[0] == folds[3] == -1 and sorted(folds[1:3]) == [0, 1]


@pytest.mark.parametrize(("count", "first"), [(1, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_the_references_fifth_is_rounded_up(count, first):
  chosen = splits.first_fifth(np.ones((count, 1)))
  assert np.flatnonzero(chosen).tolist() == list(range(first))
