"""Rankings computed by hand."""

import numpy as np

from genbench_jax.retrieval.ranking import RankedImages, ranked, reordered, without_shared

# Image 7 is hit once at 0.9; image 3 by all three prompts at 0.85; image 5 at 0.95 and 0.6.
ROWS = np.array([[7, 3, -1], [5, 3, -1], [3, 5, -1]])
SCORES = np.array([[0.9, 0.85, -np.inf], [0.95, 0.85, -np.inf], [0.85, 0.6, -np.inf]])


def test_mean_over_the_prompts_that_hit():
  found = ranked(SCORES, ROWS, "mean")
  assert found.row.tolist() == [7, 3, 5]
  np.testing.assert_allclose(found.score, [0.9, 0.85, 0.775])
  assert found.prompt.tolist() == [0, 0, 1]


def test_max_takes_the_best_hit():
  found = ranked(SCORES, ROWS, "max")
  assert found.row.tolist() == [5, 7, 3]
  assert found.score.tolist() == [0.95, 0.9, 0.85]


def test_equal_scores_come_by_row():
  found = ranked(np.full((2, 3), 0.5), np.array([[9, 4, 6], [4, 2, 9]]), "mean")
  assert found.row.tolist() == [2, 4, 6, 9]


def test_nothing_found_is_an_empty_ranking():
  assert len(ranked(np.full((2, 3), -np.inf), np.full((2, 3), -1), "mean").row) == 0


def test_an_image_belongs_to_the_class_where_it_scores_highest():
  one = RankedImages(np.array([1, 2, 3]), np.array([0.9, 0.5, 0.4]), np.array([0, 1, 2]))
  other = RankedImages(np.array([2, 3, 8]), np.array([0.7, 0.4, 0.1]), np.array([3, 4, 5]))
  first, second = without_shared([one, other])
  assert first.row.tolist() == [1, 3]  # the tie for 3 goes to the lower class
  assert second.row.tolist() == [2, 8]
  assert second.prompt.tolist() == [3, 5]


def test_reordered_by_another_score():
  images = RankedImages(np.array([4, 6, 9]), np.array([3.0, 2.0, 1.0]), np.array([0, 1, 2]))
  found = reordered(images, np.array([0.1, 0.3, 0.3]))
  assert found.row.tolist() == [6, 9, 4]
  assert found.prompt.tolist() == [1, 2, 0]


def test_the_first_row_of_a_pool_is_a_hit_like_any_other():
  found = ranked(np.array([[0.5, 0.75]]), np.array([[0, -1]]), "mean")
  assert (found.row.tolist(), found.score.tolist()) == ([0], [0.5])


def test_classes_of_different_sizes_keep_their_own_images():
  one = RankedImages(np.array([5, 2]), np.array([0.9, 0.2]), np.array([0, 1]))
  other = RankedImages(np.array([2, 7, 5]), np.array([0.8, 0.7, 0.1]), np.array([2, 3, 4]))
  kept = without_shared([one, other, RankedImages(*(part[:0] for part in one))])
  assert [images.row.tolist() for images in kept] == [[5], [2, 7], []]
  assert [images.prompt.tolist() for images in kept] == [[0], [2, 3], []]
