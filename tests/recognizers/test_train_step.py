"""Losses of images against their formulas."""

import jax
import numpy as np
import pytest

from genbench_jax.recognizers.train_step import image_losses

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], np.float32)
ONE_HOT = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
SEVERAL = np.array([[1, 0, 1], [0, 0, 0]], np.float32)


def softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_smoothing_spreads_mass_over_all_classes(smoothing):
  targets = (1 - smoothing) * ONE_HOT + smoothing / 3
  expected = -np.sum(targets * np.log(softmax(LOGITS)), axis=1)
  np.testing.assert_allclose(image_losses(LOGITS, ONE_HOT, smoothing, False), expected, rtol=1e-5)


def test_the_labels_of_an_image_share_its_weight():
  targets = np.array([[1, 1, 0], [0, 0, 0]], np.float32)
  expected = -0.5 * np.log(softmax(LOGITS)[0, :2]).sum()
  found = image_losses(LOGITS, targets, 0.0, False)
  np.testing.assert_allclose(found, [expected, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_smoothing_moves_targets_towards_a_half(smoothing):
  targets = SEVERAL * (1 - smoothing) + smoothing * 0.5
  chances = 1 / (1 + np.exp(-LOGITS))
  expected = -(targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean(axis=1)
  np.testing.assert_allclose(image_losses(LOGITS, SEVERAL, smoothing, True), expected, rtol=1e-5)


def test_the_loss_is_smallest_at_the_smoothed_targets():
  gradient = jax.grad(lambda logits: image_losses(logits, ONE_HOT, 0.1, False).sum())
  best = np.log(0.9 * ONE_HOT + 0.1 / 3)
  np.testing.assert_allclose(gradient(best), np.zeros((2, 3)), atol=1e-6)
