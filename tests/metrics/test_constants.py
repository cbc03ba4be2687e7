"""Constants of published metrics, with their sources."""

import numpy as np
import pytest
from scipy import stats

from genbench_jax.analysis import correlation, paired
from genbench_jax.metrics import (
  authenticity,
  bootstrap,
  class_scores,
  fd_infinity,
  inception,
  kernel_sums,
  kernels,
  manifold,
  mind,
  proxy,
)
from genbench_jax.runtime.protocol import NORMAL


def test_intervals_have_95_percent():
  assert pytest.approx(stats.norm.ppf(0.975), abs=1e-6) == NORMAL
  assert bootstrap.LEVEL == 0.95 and paired.LEVEL == 0.05
  assert bootstrap.RESAMPLES == 1000 and correlation.RESAMPLES == 2000


def test_cmmd_has_its_published_unit_and_bandwidth():
  """Jayasumana et al. 2024: sigma = 10 and a factor of 1,000."""
  assert (kernels.CMMD_SCALE, kernel_sums.BANDWIDTH) == (1000, 10)


def test_inception_scores_are_over_the_published_parts():
  """Binkowski et al. 2018: 100 subsets of 1,000 images; Salimans et al. 2016: ten splits."""
  assert (inception.SUBSETS, inception.SUBSET_SIZE, inception.SPLITS) == (100, 1000, 10)


def test_fd_infinity_extrapolates_from_fifteen_sizes():
  """Chong and Forsyth 2020, section 3."""
  assert (fd_infinity.PARTS, fd_infinity.SMALLEST) == (15, 0.25)


def test_manifolds_have_five_neighbors():
  """Naeem et al. 2020, section 5."""
  assert manifold.NEIGHBORS == 5
  assert 16 * np.finfo(np.float32).eps == manifold.ROUNDING


def test_classifiers_of_the_proxy_distance_search_their_grids():
  np.testing.assert_allclose(proxy.PENALTIES, 10.0 ** np.arange(-4, 4))
  np.testing.assert_allclose(proxy.SVM_COSTS, 10.0 ** np.arange(-5, 5))
  assert (proxy.REPEATS, proxy.MOST_IMAGES, proxy.FEWEST_IMAGES) == (10, 1000, 4)


def test_other_numbers_that_decide_values():
  assert mind.DIRECTIONS == 1000
  assert authenticity.NEAREST_SHARE == 0.05
  assert class_scores.ZERO_SHOT_SCALE == 100  # CLIP's logit scale
