"""What the page says of its settings: which intervals there are, and whose comparisons hold for these images only."""

import pytest

from genbench_jax.report.results import results_of, views
from genbench_jax.report.settings_words import _interval_words

ROW = {"dataset": "d", "source": "generative", "strategy": "", "shots": 4, "protocol": "strict", "encoder": "e",
       "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}  # fmt: skip
WIDE = {"generator_low": 0.3, "generator_high": 0.7}


def words(*rows):
  return _interval_words(results_of(rows, views(rows)[0]))


@pytest.mark.parametrize(("seeds", "told"), [((0,), True), ((0, 1, 2), False)])
def test_a_recognizer_trained_once_is_named(seeds, told):
  """Several seeds have an interval for the generator, one has none."""
  probes = [
    {**ROW, "quantity": "linear_probe", "seed": seed, "value": 0.5 + seed / 100} for seed in seeds
  ]
  found = words({**ROW, **WIDE, "quantity": "cler", "seed": 0}, *probes)
  assert "There are two kinds of interval" in found
  assert ("comparisons by linear probe are for these images only" in found) == told


def test_rows_without_the_second_interval_have_one_kind():
  assert words({**ROW, "quantity": "cler", "seed": 0}).startswith("Intervals are for these images")
  assert words({**ROW, "quantity": "cler", "seed": 0, "ci_low": None, "ci_high": None}) == ""
