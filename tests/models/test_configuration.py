"""Settings of checkpoints are within bounds, or rejected by name."""

from pathlib import Path

import pytest

from genbench_jax.errors import RunError
from genbench_jax.models.configuration import Settings


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", [1]])
def test_numbers_out_of_bounds_are_rejected_by_name(value):
  settings = Settings({"x": value}, Path("config.json"), "vision_config.")
  for read in (settings.number, settings.integer):
    with pytest.raises(RunError, match=r"config.json: vision_config.x is .*expected a .*number"):
      read("x")


def test_missing_values_have_defaults():
  settings = Settings({"x": None}, Path("config.json"))
  assert (settings.number("x", 0.5), settings.integer("y", 3)) == (0.5, 3)
