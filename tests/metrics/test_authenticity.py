"""Authentic images and near copies, image by image, and by parts of the sets."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.authenticity import (
  authentic_images,
  copied_images,
  measure,
  on_parts,
)
from genbench_jax.metrics.registry import Sets

# On a line: neighbors 1 apart at the left, a lonely image at 10.
TRAINING = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)


def test_an_image_is_authentic_if_its_nearest_training_image_has_a_nearer_one():
  generated = np.array([[3.5], [2.5], [11.0], [19.0], [3.0]], np.float32)
  # The nearest have another training image at 1, 1, 8, 8 and 1; equal distances are not authentic.
  found = authentic_images(TRAINING, generated)
  assert found.tolist() == [True, False, False, True, False]


def test_a_copy_is_closer_than_all_but_a_twentieth_of_unseen_images():
  unseen = np.linspace(20, 30, 21, dtype=np.float32)[:, None]  # 10 to 20 from the nearest
  # The quantile .05 of 21 distances is the second smallest: 10.5.
  generated = np.array([[20.25], [20.75], [20.5]], np.float32)
  assert copied_images(TRAINING, generated, unseen).tolist() == [True, False, False]


def test_two_training_images_are_enough():
  assert authentic_images(TRAINING[:2], TRAINING[2:]).tolist() == [False, True]
  for function in (authentic_images, lambda *sets: copied_images(*sets, TRAINING)):
    with pytest.raises(UsageError, match="at least 2 training images, got 1"):
      function(TRAINING[:1], TRAINING)


def test_parts_have_the_shares_of_their_images():
  random = np.random.default_rng(0)
  training, generated, unseen = (random.normal(size=(n, 3)) for n in (30, 20, 40))
  of = on_parts(training)(generated, unseen)
  images, tests = np.arange(20) < 9, np.arange(40) >= 12
  authentic = authentic_images(*(rows.astype(np.float32) for rows in (training, generated)))
  copied = copied_images(
    *(rows.astype(np.float32) for rows in (training, generated[images], unseen[tests]))
  )
  np.testing.assert_allclose(of(images, tests), [authentic[images].mean(), copied.mean()])


def measured(training, external):
  random = np.random.default_rng(1)
  tests, labels = random.normal(size=(40, 3)), np.arange(len(external)) % 2
  sets = Sets(
    external, tests, labels, np.arange(40) % 2, num_classes=2, training=training,
    training_labels=None if training is None else np.zeros(len(training), int), resamples=6,
  )  # fmt: skip
  return {result.name: result for result in measure(sets, ("auth_pct", "near_copies"))}


def test_authentic_images_are_given_in_per_cent_and_near_copies_as_a_share():
  random = np.random.default_rng(0)
  training, external = random.normal(size=(2, 30, 3))
  found = measured(training, external)
  unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (training, external)]
  authentic = authentic_images(*(rows.astype(np.float32) for rows in unit))
  share = found["auth_pct"]
  assert share.value.value == pytest.approx(100 * authentic.mean())
  assert share.by_class == pytest.approx(
    {c: 100 * authentic[np.arange(30) % 2 == c].mean() for c in (0, 1)}
  )
  ends = share.value
  assert 0 <= ends.generator_low <= ends.ci_low < ends.value < ends.ci_high <= ends.generator_high
  assert 10 < ends.ci_high <= 100 and found["near_copies"].value.ci_high <= 1
  assert set(found["near_copies"].by_class) == {0, 1}


def test_without_two_training_images_nothing_is_measured():
  external = np.random.default_rng(0).normal(size=(10, 3))
  assert measured(None, external) == measured(external[:1], external) == {}
  assert set(measured(external[:2], external)) == {"auth_pct", "near_copies"}
