"""Several seeds of one cell: their mean, and the interval for the generator."""

import numpy as np
import pytest

from genbench_jax.analysis.seeds import over_seeds


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
