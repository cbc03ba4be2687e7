"""Constants of published metrics, with their sources."""

import numpy as np
import pytest
from scipy import stats

from genbench_jax.analysis import correlation, paired
from genbench_jax.metrics import (
  authenticity,
  bootstrap,
  class_distances,
  class_scores,
  cler_spread,
  fd_infinity,
  guides,
  half_samples,
  inception,
  inputs,
  kernel_sums,
  kernels,
  manifold,
  manifold_spread,
  mind,
  proxy,
  sanity,
  strata,
  vendi,
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


def test_numbers_that_decide_intervals_and_which_classes_count():
  assert (cler_spread.TEST_ROWS, cler_spread.SPARE, manifold_spread.MOST_ROWS) == (2000, 3, 400)
  assert (half_samples.MOST_GROUPS, kernels.SPREAD_ROWS, bootstrap.MOST_UNITS) == (16, 512, 2**15)
  assert (strata.EVENNESS, strata.FEWEST_PAIRED) == (1e-3, 0.5)
  assert (guides.PENALTY, class_distances.FEWEST, vendi.NOTHING) == (0.1, 4, 1e-7)
  assert (sanity.DIVISIONS, sanity.FEWEST_A_CLASS, sanity.MOVES) == (5, 8, 4)
  assert (mind.FEW_DIRECTIONS, proxy.SVM_ITERATIONS) == (100, 20_000)
  assert {"vendi": 1, "vendi_q2": 2, "vendi_inf": np.inf} == vendi.ORDERS


def test_sizes_by_which_sets_are_divided():
  """They bound the memory of a device; the values do not depend on them."""
  assert (inputs.BUCKETS, inputs.BLOCK_ROWS, inputs.SMALL_SET) == ((1024, 4096), 65_536, 32_768)
  assert inputs.SAFE_SIZES == (1e-9, 1e13) and inputs.REACH == 1e37
  assert class_scores.NO_NEIGHBOR == -2
