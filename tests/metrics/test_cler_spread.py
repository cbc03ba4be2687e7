"""Variance of CLER's scores over fresh draws of the external images."""

import numpy as np
import pytest

from genbench_jax.metrics import cler_spread
from genbench_jax.metrics.cler_spread import (
  TEST_ROWS,
  _group_sums,
  _kept_by_class,
  _pairs,
  _scores,
  _shares,
  _softmax,
  chosen_tests,
  external_variances,
)
from genbench_jax.metrics.half_samples import halves_of

CLASSES, WIDTH = 3, 6


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def world():
  """Class directions, and a function that draws noisy images of them."""
  random = np.random.default_rng(0)
  text = unit(random.normal(size=(CLASSES, WIDTH))).astype(np.float32)

  def images(per_class, seed, noise=1.0):
    labels = np.repeat(np.arange(CLASSES), per_class)
    own = np.random.default_rng(seed)
    return (text[labels] + noise * own.normal(size=(len(labels), WIDTH))).astype(np.float32), labels

  return text, images


def variances(world, external, voters=None, top_k=None, metric="accuracy", **settings):
  text, images = world
  test, test_labels = images(40, 99)
  return external_variances(
    *external, text, test, test_labels, metric, voters, top_k, 0, **settings
  )


def voters_of(external, test, count):
  """The nearest external images of each test image, best first."""
  similarity = unit(test) @ unit(external).T
  rows = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
  return np.take_along_axis(similarity, rows, axis=1), rows


def test_softmax_is_that_of_large_numbers_too():
  found = _softmax(np.array([[1000.0, 1000.0, 0.0], [1.0, 2.0, 3.0]]))
  np.testing.assert_allclose(found[0], [0.5, 0.5, 0], atol=1e-12)
  np.testing.assert_allclose(found[1], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_every_label_of_an_image_is_a_pair():
  image, own = _pairs(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], bool))
  assert image.tolist() == [0, 0, 2] and own.tolist() == [0, 2, 1]
  image, own = _pairs(np.array([2, 0]))
  assert image.tolist() == [0, 1] and own.tolist() == [2, 0]


def test_test_images_are_a_sorted_choice_by_the_seed():
  assert chosen_tests(5, 0).tolist() == [0, 1, 2, 3, 4]
  found = chosen_tests(TEST_ROWS + 500, 1)
  assert len(found) == TEST_ROWS and (np.diff(found) > 0).all()
  assert found.tolist() != chosen_tests(TEST_ROWS + 500, 2).tolist()


@pytest.mark.parametrize("block", [4, 65_536])
def test_class_sums_are_those_of_unit_rows_whatever_the_blocks(world, block, monkeypatch):
  monkeypatch.setattr(cler_spread, "BLOCK_ROWS", block)
  features, labels = world[1](5, 1)
  halves = halves_of(labels, 0, 4)
  sums = _group_sums(features, labels, halves, CLASSES)
  for group in range(sums.shape[0]):
    for label in range(CLASSES):
      own = (halves.group == group) & (labels == label)
      np.testing.assert_allclose(sums[group, label], unit(features)[own].sum(0), atol=1e-5)


def test_a_class_without_images_keeps_no_group():
  labels = np.array([0, 0, 2, 2])
  halves = halves_of(np.array([0, 0, 1, 1]), 0, 3)
  kept = _kept_by_class(halves, 1, labels, CLASSES)
  np.testing.assert_array_equal(kept[1], 0)
  np.testing.assert_array_equal(kept[[0, 2]], halves.kept[1])


def test_the_scores_of_a_half_are_those_of_its_images(world):
  """Class centers by hand, from the images that the half keeps."""
  text, images = world
  features, labels = images(6, 2)
  test, test_labels = images(10, 3)
  halves = halves_of(labels, 0, 5)
  sums = _group_sums(features, labels, halves, CLASSES)
  for replicate in range(5):
    kept = halves.rows(replicate)
    centers = unit(np.stack([
      unit(features)[kept & (labels == label)].sum(0) for label in range(CLASSES)
    ]))  # fmt: skip
    found = _scores(
      sums, halves, replicate, labels, unit(test), text, test_labels, "accuracy", None, None
    )
    right = (unit(test) @ unit(text + centers).T).argmax(1) == test_labels
    np.testing.assert_array_equal(found["cler"], right)
    alone = (unit(test) @ centers.T).argmax(1) == test_labels
    np.testing.assert_array_equal(found["cler_image"], alone)


def test_a_class_without_images_is_its_text_in_cler_and_nothing_in_cler_image(world):
  text, images = world
  features, labels = images(6, 2)
  own = labels != 1
  test, test_labels = images(30, 3, 0.1)
  halves = halves_of(np.unique(labels[own], return_inverse=True)[1], 0, 1)
  sums = _group_sums(features[own], labels[own], halves, CLASSES)
  found = _scores(
    sums, halves, 0, labels[own], unit(test), text, test_labels, "accuracy", None, None
  )
  assert found["cler_image"][test_labels == 1].sum() == 0
  assert found["cler"][test_labels == 1].mean() > 0.9


def test_votes_are_those_of_the_nearest_kept_images():
  similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
  rows = np.array([[3, 1, 0, 2]])
  labels = np.array([0, 1, 0, 2])
  kept = np.array([True, False, True, True])
  # Half of 8 votes of 3 of 4 images is 6, but only three are kept: rows 3, 0, 2.
  found = _shares((similarity, rows), kept, labels, CLASSES, 8)
  np.testing.assert_allclose(found[0], np.array([1.0007 + 1.0006, 0, 1.0009]) / 3)
  # With one vote, that of row 3.
  one = _shares((similarity, rows), kept, labels, CLASSES, 1)
  np.testing.assert_allclose(one[0], [0, 0, 1.0009])


def test_missing_neighbors_do_not_vote():
  similarity, rows = np.array([[0.9, -np.inf]]), np.array([[0, -1]])
  found = _shares((similarity, rows), np.array([True, True]), np.array([1, 2]), CLASSES, 2)
  np.testing.assert_allclose(found[0], [0, 1.0009, 0])
  nobody = _shares((similarity, rows), np.array([False, True]), np.array([1, 2]), CLASSES, 2)
  np.testing.assert_array_equal(nobody, 0)


def test_an_image_votes_for_all_of_its_labels():
  hot = np.array([[1, 1, 0], [0, 0, 1]], bool)
  found = _shares((np.array([[0.0, 0.0]]), np.array([[0, 1]])), np.ones(2, bool), hot, CLASSES, 2)
  np.testing.assert_allclose(found[0], [0.5, 0.5, 0.5])


def test_one_image_a_class_has_no_variance(world):
  assert variances(world, world[1](1, 5)) is None


def test_copies_of_one_image_have_no_variance(world):
  features, labels = world[1](1, 5)
  found = variances(world, (np.repeat(features, 8, axis=0), np.repeat(labels, 8)))
  assert found == {"cler": pytest.approx(0, abs=1e-9), "cler_image": pytest.approx(0, abs=1e-9)}


def test_the_variance_is_that_over_fresh_external_images(world):
  """Of the accuracy by class centers, against 300 fresh draws; the deviation of a ratio is about 30 %."""
  _, images = world
  per_class, (test, test_labels) = 6, images(40, 99)
  scores = []
  for seed in range(300):
    features, labels = images(per_class, 1000 + seed)
    centers = np.stack([unit(features)[labels == label].sum(0) for label in range(CLASSES)])
    scores.append(np.mean((unit(test) @ unit(centers).T).argmax(1) == test_labels))
  found = [variances(world, images(per_class, seed))["cler_image"] for seed in range(20)]
  assert 0.5 < np.mean(found) / np.var(scores, ddof=1) < 2


def test_votes_have_variances_if_asked_for(world):
  _, images = world
  external = images(8, 5)
  voters = voters_of(external[0], images(40, 99)[0], 9)
  found = variances(world, external, voters, 3)
  assert set(found) == {"cler", "cler_image", "topk_vote", "topk_vote_text"}
  assert found["topk_vote"] > 0
  assert set(variances(world, external, voters, None)) == {"cler", "cler_image"}


def test_a_score_that_is_no_mean_varies_as_a_whole(world):
  """The ROC area has no value per image."""
  _, images = world
  text = world[0][:2]
  labels = np.repeat([0, 1], 8)
  external = images(8, 5)[0][:16], labels
  test, test_labels = images(40, 99)[0][:80], np.repeat([0, 1], 40)
  found = external_variances(*external, text, test, test_labels, "roc_auc", None, None, 0)
  assert 0 < found["cler"] < 0.05


def test_more_halves_than_the_limit_are_not_drawn(world):
  external = world[1](6, 5)
  assert variances(world, external, resamples=10**9) == variances(world, external)
  assert variances(world, external, resamples=5) != variances(world, external)
