"""Two runs side by side."""

import json

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.report.compare import compare, differences_table, settings_table, write_comparison
from genbench_jax.report.results import Series

GENERATED = Series("generative", "defined_template")


@pytest.fixture(scope="module")
def better(rows):
  """The same run with two more points on every probe of generated images, and no `digits`."""
  return [
    dict(row, value=row["value"] + 0.02 * (row["quantity"] == "linear_probe" and row["source"] == "generative"))
    for row in rows
    if row["dataset"] != "digits"
  ]  # fmt: skip


def test_differences_are_b_less_a_on_shared_cells(rows, better):
  less = compare(rows, better).less
  found = less.estimate("shapes", GENERATED, 8, "linear_probe")
  assert found.value == pytest.approx(0.02)
  assert found.low < 0.02 < found.high
  assert less.estimate("shapes", Series("original", ""), 8, "linear_probe").value == 0
  assert less.datasets == ("digits_hard", "shapes")


def test_settings_that_differ_are_named():
  a = {"config": json.dumps({"seed": 0, "generation": {"steps": 5}}), "versions": {"jax": "1"}}
  b = {"config": json.dumps({"seed": 0, "generation": {"steps": 9}}), "versions": {"jax": "2"}}
  assert settings_table(a, b).rows == (
    ("generation.steps", "5", "9"),
    ("version of jax", "1", "2"),
  )
  assert settings_table(a, a).rows == ()


def test_table_sets_the_runs_side_by_side(rows, better):
  table = differences_table(compare(rows, better))
  place = table.columns.index("linear_probe_less")
  line = next(r for r in table.rows if r[:4] == ("shapes", "generative", "defined_template", 8))
  a, b = (line[table.columns.index(f"linear_probe_{side}")] for side in ("a", "b"))
  assert line[place] == pytest.approx(b - a)
  assert len(table.rows) == 2 * 5 * 2 * (4 + 1)


def test_runs_without_shared_cells_are_a_user_error(rows):
  other = [dict(row, dataset="elsewhere") for row in rows]
  with pytest.raises(UsageError, match="no cell in common"):
    compare(rows, other)
  with pytest.raises(UsageError, match="no cell in common"):
    compare(rows, [])


@pytest.mark.browser
def test_page_in_the_browser(browser, rows, better, run, tmp_path):
  browser.get_log("browser")
  page = write_comparison(rows, better, run, run | {"title": "<i>Mended</i>"}, tmp_path)
  browser.get(page.as_uri())
  assert browser.find_element("css selector", ".findings .number").text == "+2.0"
  assert (
    browser.find_element("css selector", ".findings .count").text == "B above A on 2 of 2 datasets"
  )
  assert "(A) and <i>Mended</i> (B)" in browser.find_element("css selector", "h1").text
  assert "50 in A alone" in browser.find_element("css selector", ".byline").text
  heads = [head.text for head in browser.find_elements("css selector", "#cells-table thead button")]
  assert "linear probe B − A" in heads
  assert browser.get_log("browser") == []
  assert (tmp_path / "tables" / "differences.csv").exists()
  assert (tmp_path / "figures" / "differences.svg").exists()
