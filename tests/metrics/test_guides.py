"""Intervals of the scores from guides."""

import numpy as np
import pytest

from genbench_jax.metrics.guides import _measurement

STRATA = np.repeat([0, 1], 8)


def test_a_fraction_of_recognized_guides_has_wilsons_interval():
  found = _measurement("guide_ridge", np.ones(16), STRATA, 0.0)
  assert found.value == found.ci_high == 1
  # Wilson's lower end for 16 of 16: n / (n + z^2).
  assert abs(found.ci_low - 16 / (16 + 1.959964**2)) < 1e-6


def test_a_distance_has_a_symmetric_interval_around_its_mean():
  values = np.linspace(1, 3, 16)
  found = _measurement("class_chamfer", values, STRATA, 0.01)
  assert found.ci_high - found.value == pytest.approx(found.value - found.ci_low)
  within = values - np.repeat([values[:8].mean(), values[8:].mean()], 8)
  # Guides are drawn by class: only the variance within classes counts.
  expected = 1.959964 * np.sqrt(np.sum(within**2) * 8 / 7 / 16**2)
  assert abs(found.ci_high - found.value - expected) < 1e-6
  assert found.generator_high - found.value > found.ci_high - found.value


def test_without_external_variance_only_the_guides_vary():
  found = _measurement("class_chamfer", np.linspace(1, 3, 16), STRATA, None)
  assert found.generator_high is None and found.note
