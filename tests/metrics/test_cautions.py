"""Rows say so where the coverage table of docs/statistics.md has their interval outside .93 to .97, and nowhere else."""

import re
from pathlib import Path

import pytest

from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cautions import CAUTIONS, MAP_CAUTION, with_caution

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
LINE = re.compile(r"^\| (.+?) \| (\w+) \| (\**)(\d?\.\d+)\**", re.MULTILINE)


def test_the_table_marks_coverage_outside_the_goal_and_rows_say_why():
  lines = LINE.findall(PAGE)
  assert len(lines) > 50
  for what, kind, bold, coverage in lines:
    outside = not 0.93 <= float(coverage) <= 0.97
    assert bool(bold) == outside, (what, kind)
    if outside and (name := re.fullmatch(r"`(\w+)`", what)):
      assert name[1] in CAUTIONS, (what, kind)
      assert f"`{name[1]}`" in PAGE.partition("Reasons for values outside")[2], what
  marked = {what.strip("`") for what, _, bold, _ in lines if bold}
  assert set(CAUTIONS) <= marked


@pytest.mark.parametrize("generator_low", [0.1, None])
def test_a_caution_is_appended_to_an_existing_note(generator_low):
  value = Measurement(0.5, 0.4, 0.6, generator_low, generator_low, "one image a class")
  note = with_caution("mind", value, "accuracy", False).note
  assert note.startswith("one image a class")
  assert (CAUTIONS["mind"] in note) == (generator_low is not None)
  assert with_caution("fid", value, "map_11_point", False) == value
  assert MAP_CAUTION in with_caution("cler", value, "map_11_point", True).note
