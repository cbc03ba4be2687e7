"""How a network takes images."""

import numpy as np
import pytest

from genbench_jax.recognizers.problem import Problem, View


@pytest.mark.parametrize(
  ("size", "stored"), [(8, 8), (64, 64), (65, 72), (112, 128), (224, 256), (336, 384), (384, 440)]
)
def test_images_are_stored_an_eighth_larger_unless_they_are_small(size, stored):
  assert View(size, (0.5,) * 3, (0.5,) * 3).stored_size == stored


def test_pixels_are_normalized_by_channel():
  view = View(2, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
  found = view.normalized(np.array([[0.0, 255, 255], [255, 0, 51]]))
  np.testing.assert_allclose(found, [[-1, 3, 0.5], [1, -1, 0.1]], rtol=1e-6)


def test_a_problem_has_single_labels_and_one_rate_by_default():
  problem = Problem(lambda: None, View(2, (0.5,) * 3, (0.5,) * 3))
  assert problem.multi_label is False and problem.layer_rates == ()
