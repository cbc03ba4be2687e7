"""Several seeds of one cell: their mean, and the interval for the generator."""

import numpy as np
import pytest
from scipy import stats

from genbench_jax.analysis.seeds import over_seeds
from genbench_jax.runtime.protocol import NORMAL


def row(seed, value, error=0.0, **more):
  return {
    "dataset": "d", "source": "generative", "generator": "g", "strategy": "", "shots": 4, "seed": seed, "protocol": "strict",
    "encoder": "e", "quantity": "linear_probe", "value": value, "ci_low": value - 1.96 * error, "ci_high": value + 1.96 * error,
    "generator_low": None, "generator_high": None, **more,
  }  # fmt: skip


def test_the_interval_for_the_generator_contains_its_mean():
  random = np.random.default_rng(0)
  held = []
  for _ in range(400):
    test = 0.02 * random.normal()  # shared by all seeds
    values = 0.7 + test + 0.03 * random.normal(size=4)
    (found,) = over_seeds([row(seed, value, 0.02) for seed, value in enumerate(values)])
    held.append(found.generator_low <= 0.7 <= found.generator_high)
  assert 0.93 < np.mean(held) < 0.99


def test_cells_are_separate_and_one_seed_keeps_its_interval():
  rows = [row(0, 0.5), row(1, 0.7), row(0, 0.9, shots=8, generator_low=0.8, generator_high=1.0)]
  first, second = over_seeds(rows)
  assert (first.seeds, first.value) == (2, pytest.approx(0.6))
  assert first.generator_low < first.ci_low <= first.ci_high < first.generator_high
  assert (second.seeds, second.generator_low, second.generator_high) == (1, 0.8, 1.0)
  assert over_seeds([row(0, 0.5)])[0].generator_low is None


def test_the_interval_joins_the_test_images_and_students_t_over_seeds():
  values, error = [0.5, 0.6, 0.8], 0.02
  (found,) = over_seeds([row(seed, value, error) for seed, value in enumerate(values)])
  test = NORMAL * error * 1.96 / NORMAL
  spread = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
  assert found.value == pytest.approx(np.mean(values))
  assert found.generator_high - found.value == pytest.approx(np.hypot(test, spread))
  assert found.value - found.generator_low == pytest.approx(np.hypot(test, spread))


def test_two_seeds_are_the_fewest_for_a_spread():
  (found,) = over_seeds([row(0, 0.5), row(1, 0.7)])
  spread = stats.t.ppf(0.975, 1) * 0.1 * np.sqrt(2) / np.sqrt(2)
  assert found.generator_high == pytest.approx(0.6 + spread)


def test_a_missing_end_of_one_seed_leaves_the_test_images_out():
  rows = [row(0, 0.5, 0.1), row(1, 0.7, 0.1, ci_low=None)]
  (found,) = over_seeds(rows)
  assert found.ci_low is None
  assert found.ci_high == pytest.approx(0.6 + 0.196)
  spread = stats.t.ppf(0.975, 1) * 0.1
  assert found.generator_high == pytest.approx(0.6 + spread)


@pytest.mark.parametrize(
  "key", ["dataset", "source", "generator", "strategy", "protocol", "encoder"]
)
def test_every_key_but_the_seed_separates_cells(key):
  found = over_seeds([row(0, 0.5), row(1, 0.7), row(2, 0.9, **{key: "other"})])
  assert [(summary.seeds, summary.about[key]) for summary in found][1] == (1, "other")
  assert "seed" not in found[0].about


def test_failed_seeds_do_not_count():
  (found,) = over_seeds([row(0, 0.5), row(1, float("nan")), row(2, 0.7)])
  assert found.seeds == 2
