"""Class centers, prototypes and votes against explicit sums."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.metrics import class_scores

WIDTH, CLASSES = 5, 3
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(7, WIDTH)).astype(np.float32)
LABELS = np.array([0, 1, 0, 0, 1, 0, 0])  # no image of class 2
TEXT = RANDOM.normal(size=(CLASSES, WIDTH)).astype(np.float32)


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _sums(features, labels, mask=None):
  mask = np.ones(len(features), bool) if mask is None else mask
  return class_scores.ClassSums.from_batch(*map(jnp.asarray, (features, labels, mask)), CLASSES)


def test_centers_are_unit_means_of_unit_features_and_an_empty_class_has_none():
  centers, counts = _sums(FEATURES, LABELS).compute()
  assert counts.tolist() == [5, 2, 0]
  for label in (0, 1):
    expected = _unit(_unit(FEATURES[label == LABELS]).mean(0))
    np.testing.assert_allclose(centers[label], expected, atol=1e-6)
  assert not np.asarray(centers[2]).any()


def test_batches_merge_padding_is_left_out_and_both_label_forms_agree():
  whole = _sums(FEATURES, LABELS)
  parts = _sums(FEATURES[:3], LABELS[:3]).merge(_sums(FEATURES[3:], LABELS[3:]))
  padded = _sums(
    np.concatenate([FEATURES, FEATURES[:2]]),
    np.concatenate([LABELS, LABELS[:2]]),
    np.arange(9) < 7,
  )
  hot = _sums(FEATURES, np.eye(CLASSES, dtype=bool)[LABELS])
  for other in (parts, padded, hot):
    np.testing.assert_allclose(other.sums, whole.sums, atol=1e-6)


def test_prototypes_are_the_text_their_sum_and_the_center():
  centers, counts = _sums(FEATURES, LABELS).compute()
  text, both, images = class_scores.class_prototypes(centers, counts, jnp.asarray(TEXT))
  np.testing.assert_allclose(text, _unit(TEXT), atol=1e-6)
  np.testing.assert_allclose(both[0], _unit(_unit(TEXT[0]) + np.asarray(centers[0])), atol=1e-6)
  np.testing.assert_allclose(both[2], text[2], atol=1e-6)  # no images: the text only
  np.testing.assert_array_equal(images, centers)


@pytest.mark.parametrize("reference", [False, True])
def test_an_empty_class_is_never_predicted_or_spoils_the_reference(reference):
  centers, counts = _sums(FEATURES, LABELS).compute()
  prototypes = class_scores.class_prototypes(centers, counts, jnp.asarray(TEXT))
  feature = jnp.asarray(TEXT[2])  # nearest to the class without images
  cosines = class_scores.class_cosines(feature, prototypes, counts, reference)
  predicted = class_scores.predicted_classes(cosines, None, reference)
  assert predicted[0] == 2
  if reference:
    assert predicted[1:].tolist() == [0, 0]
  else:
    assert predicted[1] == 2 and predicted[2] != 2


def test_votes_are_fractions_of_the_existing_neighbors():
  missing = class_scores.NO_NEIGHBOR
  neighbors = class_scores.Neighbors(jnp.array([0.9, 0.5, 0.4, missing]), jnp.array([1, 0, 1, 2]))
  shares, similarity = class_scores.votes(neighbors, CLASSES)
  np.testing.assert_allclose(shares, [1 / 3, 2 / 3, 0], atol=1e-6)
  np.testing.assert_allclose(similarity, [0.5, 1.3, 0], atol=1e-6)


def test_equal_votes_go_to_the_nearer_voters_but_to_the_first_class_in_the_reference():
  neighbors = class_scores.Neighbors(jnp.array([0.5, 0.9]), jnp.array([0, 1]))
  cosines = jnp.zeros((3, CLASSES))
  strict, reference = (
    class_scores.predicted_classes(cosines, neighbors, flag)[3].item() for flag in (False, True)
  )
  assert (strict, reference) == (1, 0)


def test_published_scores_are_softmaxes_and_their_mean_with_the_votes():
  cosines = RANDOM.uniform(-1, 1, (4, 3, CLASSES))
  shares = np.full((4, 1, CLASSES), 1 / CLASSES)
  scores = class_scores.softmax_scores(np.concatenate([cosines, shares], 1))
  for column, scale in enumerate((100, 1, 1)):
    exponents = np.exp(scale * cosines[:, column])
    np.testing.assert_allclose(scores[:, column], exponents / exponents.sum(-1, keepdims=True))
  np.testing.assert_allclose(scores[:, 4], (scores[:, 0] + 1 / CLASSES) / 2)
  assert class_scores.softmax_scores(cosines).shape == (4, 3, CLASSES)


def test_votes_and_text_are_added():
  """Two votes of four for class 1, and softmax(100 cos) that is nearly one for class 0."""
  neighbors = class_scores.Neighbors(jnp.array([0.4, 0.3, 0.2, 0.1]), jnp.array([1, 1, 0, 2]))
  cosines = jnp.array([[0.1, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
  found = class_scores.predicted_classes(cosines, neighbors, False)
  assert found.tolist() == [0, 2, 1, 1, 0]
  # Cosines that differ by a thousandth hardly move the votes.
  near = cosines.at[0].set(jnp.array([0.001, 0.0, 0.0]))
  assert class_scores.predicted_classes(near, neighbors, False)[4] == 1


def test_the_reference_keeps_cosines_if_no_class_is_empty():
  centers = jnp.asarray(_unit(FEATURES[:3]))
  counts = jnp.array([1, 1, 1])
  prototypes = class_scores.class_prototypes(centers, counts, jnp.asarray(TEXT))
  strict, reference = (
    class_scores.class_cosines(jnp.asarray(FEATURES[4]), prototypes, counts, flag)
    for flag in (False, True)
  )
  np.testing.assert_array_equal(strict, reference)
  np.testing.assert_allclose(strict[2], _unit(FEATURES[:3]) @ _unit(FEATURES[4]), atol=1e-6)
  np.testing.assert_allclose(strict[0], _unit(TEXT) @ _unit(FEATURES[4]), atol=1e-6)


def test_an_image_without_neighbors_has_no_votes():
  neighbors = class_scores.Neighbors(jnp.full(2, class_scores.NO_NEIGHBOR), jnp.array([0, 0]))
  shares, similarity = class_scores.votes(neighbors, CLASSES)
  assert not np.asarray(shares).any() and not np.asarray(similarity).any()
  # The most unlike image still votes.
  opposite = class_scores.Neighbors(jnp.array([-1.0, -2.0]), jnp.array([1, 0]))
  assert class_scores.votes(opposite, CLASSES)[0].tolist() == [0, 1, 0]


def test_a_vote_for_several_classes_counts_for_each():
  hot = jnp.array([[True, True, False], [False, True, False]])
  shares, similarity = class_scores.votes(
    class_scores.Neighbors(jnp.array([0.5, 0.25]), hot), CLASSES
  )
  np.testing.assert_allclose(shares, [0.5, 1, 0])
  np.testing.assert_allclose(similarity, [0.5, 0.75, 0])


def test_large_cosine_differences_do_not_overflow():
  columns = np.array([[[5.0, -5.0], [1, 1], [-np.inf, 0]]])
  np.testing.assert_allclose(class_scores.softmax_scores(columns), [[[1, 0], [0.5, 0.5], [0, 1]]])
