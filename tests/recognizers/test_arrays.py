"""Arrays of images and labels: what is accepted, and what is said of the others."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers.arrays import (
  check_protocol,
  checked_arrays,
  class_count,
  stored_squares,
)
from genbench_jax.recognizers.problem import View

VIEW = View(4, (0.5,) * 3, (0.5,) * 3)
IMAGES = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def checked(labels=LABELS, test_labels=LABELS, images=IMAGES, **more):
  given = {"view": VIEW, "num_classes": 3, "metric": "accuracy", **more}
  return checked_arrays(images, labels, IMAGES, test_labels, **given)


def test_valid_arrays_become_a_training_set():
  found = checked(seed=3, loss_weights=[1, 1, 1, 3, 3, 3], later=[False] * 5 + [True])
  assert found.data.images is IMAGES and found.test_images is IMAGES
  np.testing.assert_array_equal(found.data.targets, np.eye(3)[LABELS])
  np.testing.assert_allclose(found.data.weights, [0.5] * 3 + [1.5] * 3)
  assert found.data.later.tolist() == [False] * 5 + [True]
  assert (found.data.seed, found.data.multi_label, checked().data.seed) == (3, False, 0)
  hot = np.eye(3, dtype=bool)[LABELS]
  assert checked(hot, hot, metric="map_11_point").data.multi_label


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"labels": LABELS[:5]}, r"labels must be \[6\] or \[6, 3\], got \(5,\)"),
    ({"test_labels": LABELS[:5]}, r"test_labels must be \[6\] or"),
    ({"labels": np.zeros((6, 3, 1))}, r"got \(6, 3, 1\)"),
    ({"labels": LABELS + 1}, r"labels must lie in 0..2, got 1..3"),
    ({"labels": LABELS + 0.5}, "labels must be whole numbers"),
    ({"test_labels": LABELS - 1}, r"test_labels must lie in 0..2, got -1..1"),
    ({"labels": np.eye(4, dtype=bool)[LABELS]}, r"0 or 1 of shape \[6, 3\], got \(6, 4\)"),
    ({"labels": LABELS[:0], "images": IMAGES[:0]}, "0 images to train on and 6 to test on"),
    ({"loss_weights": np.ones(5)}, r"weights have shape \(5,\), but there are 6 images"),
    ({"loss_weights": np.zeros(6)}, "not all of them 0"),
    ({"loss_weights": [1, 1, 1, 1, 1, -1]}, "at least 0"),
    ({"loss_weights": [1, 1, 1, 1, 1, np.nan]}, "finite"),
    ({"later": [True] * 5}, r"`later` is bool \(5,\), expected one truth value for each of 6"),
    ({"later": [0, 1, 2, 3, 4, 5]}, "`later` is int64"),
    ({"metric": "accuracies"}, "Did you mean 'accuracy'"),
    ({"metric": "roc_auc"}, "two classes"),
  ],
)
def test_arrays_that_do_not_fit_are_usage_errors(given, message):
  with pytest.raises(UsageError, match=message):
    checked(**given)


def test_there_is_something_to_test():
  with pytest.raises(UsageError, match="6 images to train on and 0 to test on"):
    checked_arrays(IMAGES, LABELS, IMAGES[:0], LABELS[:0], VIEW, 3, "accuracy")


@pytest.mark.parametrize(
  ("labels", "test_labels", "given", "count"),
  [
    ([0, 3], [1, 5], None, 6),
    ([0, 7], [1, 5], None, 8),
    (np.zeros((2, 4)), np.zeros((3, 4)), None, 4),
    ([], [0], None, 1),
    ([0, 3], [1, 5], 9, 9),
  ],
)
def test_classes_are_counted_in_both_sets_of_labels(labels, test_labels, given, count):
  assert class_count(labels, test_labels, given) == count


def test_images_become_squares_of_their_middle():
  wide = np.zeros((1, 4, 8, 3), np.uint8)
  wide[:, :, 2:6] = 200
  assert (stored_squares("images", wide, 4) == 200).all()
  assert stored_squares("images", wide, 2).shape == (1, 2, 2, 3)
  assert stored_squares("images", wide[:0], 5).shape == (0, 5, 5, 3)
  assert stored_squares("images", IMAGES, 4) is IMAGES
  tall = wide.transpose(0, 2, 1, 3)
  assert stored_squares("images", tall, 8).shape == (1, 8, 8, 3)


def test_images_of_a_list_may_differ_in_size_and_be_gray():
  wide, gray = np.full((4, 8, 3), 7, np.uint8), np.full((6, 6), 9, np.uint8)
  found = stored_squares("images", [wide, gray, IMAGES[0]], 4)
  assert found.shape == (3, 4, 4, 3)
  assert (found[0] == 7).all() and (found[1] == 9).all()
  np.testing.assert_array_equal(found[2], IMAGES[0])
  with pytest.raises(UsageError, match="must be uint8"):
    stored_squares("images", [wide, wide / 255], 4)


@pytest.mark.parametrize(
  "images", [IMAGES[0], IMAGES[..., :2], IMAGES.astype(np.float32), IMAGES.astype(np.int32)]
)
def test_images_are_rgb_of_eight_bits(images):
  with pytest.raises(UsageError, match=r"photos are .* expected uint8 \[n, h, w, 3\]"):
    stored_squares("photos", images, 4)


def test_unknown_protocols_are_rejected():
  check_protocol("strict")
  check_protocol("reference")
  with pytest.raises(UsageError, match="Did you mean 'strict'"):
    check_protocol("stict")
