"""Comparison of runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.report.compare import RunToCompare, compare
from genbench_jax.report.comparison_page import short_names, write_comparison
from genbench_jax.report.comparison_tables import (
  differences_table,
  settings_table,
  verdicts_table,
)
from genbench_jax.report.results import Series, View
from genbench_jax.store.hits import PerImage

GENERATED = Series("generative", "defined_template")


@pytest.fixture(scope="module")
def better(rows):
  """The same run with two more points on every probe of generated images, and no `digits`."""
  return [
    dict(row, value=row["value"] + 0.02 * (row["quantity"] == "linear_probe" and row["source"] == "generative"))
    for row in rows
    if row["dataset"] != "digits"
  ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(rows, better):
  return [RunToCompare("old", rows), RunToCompare("mended", better)]


def test_differences_are_run_minus_first_on_shared_cells(runs):
  (less,) = compare(runs).less
  found = less.estimate("shapes", GENERATED, 8, "linear_probe")
  assert found.value == pytest.approx(0.02)
  assert found.low < 0.02 < found.high
  assert less.estimate("shapes", Series("original", ""), 8, "linear_probe").value == 0
  assert less.datasets == ("digits_hard", "shapes")


def test_settings_that_differ_are_named():
  a = {"config": json.dumps({"seed": 0, "generation": {"steps": 5}}), "versions": {"jax": "1"}}
  b = {"config": json.dumps({"seed": 0, "generation": {"steps": 9}}), "versions": {"jax": "2"}}
  runs = [RunToCompare(name, [], about) for name, about in (("x", a), ("y", b), ("z", a))]
  assert settings_table(runs).rows == (
    ("generation.steps", "5", "9", "5"),
    ("version of jax", "1", "2", "1"),
  )
  assert settings_table([runs[0], runs[2]]).rows == ()


def test_table_compares_any_number_of_runs_headline_first(runs):
  table = differences_table(compare([*runs, RunToCompare("third", runs[0].rows)]))
  assert table.columns[5:8] == (
    "linear_probe @ old", "linear_probe @ old_ci_low", "linear_probe @ old_ci_high"
  )  # fmt: skip
  place = table.columns.index("linear_probe @ mended − old")
  line = next(r for r in table.rows if r[:5] == ("shapes", "generative", "", "defined_template", 8))
  a, b = (line[table.columns.index(f"linear_probe @ {side}")] for side in ("old", "mended"))
  assert line[place] == pytest.approx(b - a)
  assert line[table.columns.index("linear_probe @ third − old")] == 0
  assert len(table.rows) == 3 * 5 * 2 * (4 + 1)


def test_paired_hits_detect_a_difference_that_intervals_cannot(rows):
  """A gain of one point on 400 shared test images without a loss is significant only if paired."""
  hits = np.arange(400) % 5 > 0
  more = hits.copy()
  more[np.flatnonzero(~hits)[:8]] = True
  some = [r for r in rows if r["dataset"] == "shapes"]
  better = [
    r | {"value": r["value"] + 0.02} if r["source"] == "generative" and r["quantity"] == "linear_probe" else r
    for r in some
  ]  # fmt: skip
  key = ("shapes", GENERATED, 16, 0, "linear_probe")
  view = View("strict", "zoo/clip")
  kept = [{view: {key: PerImage(values.astype(float), "t")}} for values in (hits, more)]
  plain = verdicts_table(compare([RunToCompare("a", some), RunToCompare("b", better)]))
  paired = verdicts_table(
    compare([RunToCompare("a", some, {}, kept[0]), RunToCompare("b", better, {}, kept[1])])
  )
  assert plain.rows[0][-1] == "can’t be told apart"
  assert paired.rows[0][-1] == "b is better"
  other = {view: {key: PerImage(more.astype(float), "other images")}}
  unlike = compare([RunToCompare("a", some, {}, kept[0]), RunToCompare("b", better, {}, other)])
  assert verdicts_table(unlike).rows[0][-1] == "can’t be told apart"


def test_runs_without_shared_cells_are_a_user_error(rows):
  other = [dict(row, dataset="elsewhere") for row in rows]
  for rest in (other, []):
    with pytest.raises(UsageError, match="no cell in common"):
      compare([RunToCompare("a", rows), RunToCompare("b", rest)])
  with pytest.raises(UsageError, match="two or more"):
    compare([RunToCompare("a", rows)])


@pytest.mark.browser
def test_page_in_the_browser(browser, rows, better, run, tmp_path):
  browser.get_log("browser")
  runs = [RunToCompare("old", rows, run), RunToCompare("<i>Mended</i>", better, run)]
  page = write_comparison(runs, tmp_path)
  browser.get(page.as_uri())
  assert browser.find_element("css selector", ".findings .number").text == "+2.0"
  count = browser.find_element("css selector", ".findings .count").text
  assert count == "<i>Mended</i> above old on 2 of 2 datasets"
  assert browser.find_element("css selector", "h1").text == "old against <i>Mended</i>"
  assert "25 only in old" in browser.find_element("css selector", ".byline").text
  heads = [head.text for head in browser.find_elements("css selector", "#cells-table thead button")]
  assert heads[4:7] == [
    "linear probe old",
    "linear probe <i>Mended</i>",
    "linear probe <i>Mended</i> − old",
  ]
  assert browser.get_log("browser") == []
  assert (tmp_path / "tables" / "differences.csv").exists()
  assert (tmp_path / "figures" / "differences.svg").exists()


@pytest.mark.parametrize(
  ("paths", "names"),
  [
    (["a/run", "b/other"], ["run", "other"]),
    (["a/run", "b/run"], ["a/run", "b/run"]),
    (["x/a/run", "x/b/run", "x/b/more"], ["a/run", "b/run", "more"]),
    (["a/run", "b", "c/run", "b"], ["a/run", "b (1)", "c/run", "b (2)"]),
    (["a/[x]", "b/[x]", "x"], ["a/[x]", "b/[x]", "x"]),
  ],
)
def test_runs_have_the_shortest_names_that_differ(paths, names):
  assert short_names([Path(path) for path in paths]) == names


def test_equal_work_folders_are_numbered(tmp_path):
  name = tmp_path.name
  assert short_names([tmp_path, tmp_path]) == [f"{name} (1)", f"{name} (2)"]
