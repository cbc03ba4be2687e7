"""Weights and order of mixtures in recognizers that train on features."""

import jax.numpy as jnp
import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.recognizers.linear_probe import ProbeData, linear_probes
from genbench_jax.recognizers.strict_probe import TrainingSet, fit_strict
from genbench_jax.recognizers.training import label_shares, mean_one, mixed_rows


def blobs(count, seed, spread=1.0):
  generator = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  features = 2 * np.eye(8)[labels] + spread * generator.normal(size=(count, 8))
  return features.astype(np.float32), labels


@pytest.mark.slow
def test_an_image_of_weight_two_counts_twice():
  features, labels = blobs(30, 0)
  targets, prior = np.eye(3, dtype=np.float32)[labels], jnp.zeros((3, 8))
  twice = np.arange(30) < 10
  rows = np.concatenate([np.arange(30), np.flatnonzero(twice)])
  weighted = TrainingSet(features, targets, 0, np.where(twice, 2.0, 1.0).astype(np.float32))
  repeated = TrainingSet(features[rows], targets[rows], 0)
  one, other = (fit_strict([s], prior, False, False, penalties=(1.0,))[0] for s in (weighted, repeated))  # fmt: skip
  np.testing.assert_allclose(one.weights, other.weights, atol=5e-3)
  np.testing.assert_allclose(one.bias, other.bias, atol=5e-3)


@pytest.mark.slow
def test_later_real_images_move_the_probe_of_the_others():
  """Mislabeled images first and right ones after: the last word counts, and few right ones change
  less than many."""
  features, labels = blobs(60, 0)
  wrong = np.where(np.arange(60) < 30, (labels + 1) % 3, labels)
  later = np.arange(60) >= 30
  test, test_labels = blobs(90, 1)

  def accuracy(**settings):
    cell = ProbeData(features, wrong, 0, **settings)
    return linear_probes([cell], test, test_labels)[0]["score"]

  assert accuracy(later=later) > accuracy() + 0.1
  assert accuracy(weights=np.where(later, 0.9, 0.1)) > accuracy() + 0.1
  assert accuracy(later=np.ones(60, bool)) == accuracy()


def test_prompts_train_on_later_images_in_the_second_half():
  later = np.arange(10) >= 6
  first = {row for step in range(5) for row in mixed_rows(step, 10, 4, later, 10, 0)}
  second = {row for step in range(5, 10) for row in mixed_rows(step, 10, 4, later, 10, 0)}
  assert first == set(range(6)) and second == set(range(6, 10))
  together = {row for step in range(5) for row in mixed_rows(step, 10, 4, None, 10, 0)}
  assert together == set(range(10))


def test_weights_have_mean_one_and_labels_share_an_image():
  np.testing.assert_allclose(mean_one(np.array([3.0, 1.0]), 2), [1.5, 0.5])
  np.testing.assert_allclose(mean_one(None, 2), [1, 1])
  targets = np.array([[1, 0], [1, 1]], np.float32)
  np.testing.assert_allclose(label_shares(targets), [[1, 0], [0.5, 0.5]])


def test_images_vote_in_the_cache_by_their_weight():
  features, labels = blobs(12, 0)
  text = np.eye(3, 8, dtype=np.float32)
  found = gb.tip_adapter(features, labels, features, labels, text, "reference", loss_weights=np.where(np.arange(12) < 6, 3.0, 1.0))  # fmt: skip
  votes = found["values"].sum(axis=1)
  assert votes[0] == pytest.approx(3 * votes[-1]) and votes.mean() == pytest.approx(1)
