"""The page as text: complete, self-contained, explicit about missing data."""

import re

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.report.page import write_report
from genbench_jax.report.render import write


@pytest.fixture(scope="module")
def page(rows, galleries, run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("report")
  return write_report(rows, galleries, run, folder)


def test_files_beside_the_page(page):
  files = {str(p.relative_to(page.parent)) for p in page.parent.rglob("*") if p.is_file()}
  names = (
    "cells",
    "gains",
    "rank-correlations",
    "ranking",
    "who-beats-whom",
    "recognizer-agreement",
    "scaling",
  )
  tables = {f"tables/{t}.{e}" for t in names for e in ("csv", "md", "tex")}
  names = (
    "gains",
    "against-originals",
    "strategies",
    "accuracy-against-shots",
    "cler-against-linear-probe",
    "all-metrics",
    "scaling",
  )
  assert files == {"index.html", *tables, *(f"figures/{name}.svg" for name in names)}


def test_page_is_self_contained(page):
  text = page.read_text(encoding="utf-8")
  assert "default-src 'none'" in text
  assert not re.search(r'(?:src|href)="(?!data:|#)', text)
  assert not re.search(r"<(?:link|iframe|object)\b", text)
  assert "<script>window.pwned" not in text


def test_page_names_what_is_missing(page):
  text = page.read_text(encoding="utf-8")
  assert "No result for cifar10: no average includes them." in text
  assert "&lt;b&gt;bold&lt;/b&gt; is not markup here." in text


def test_no_rows_is_a_user_error(tmp_path):
  with pytest.raises(UsageError, match="no row"):
    write_report([], [], {}, tmp_path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantities", [{"zero_shot", "cler"}, {"fid"}, {"linear_probe"}])
def test_partial_runs_have_a_page(rows, quantities, tmp_path):
  """A run with only scores, only training or no baseline gets a page."""
  some = [row for row in rows if row["quantity"] in quantities]
  text = write_report(some, [], {}, tmp_path).read_text(encoding="utf-8")
  assert "GenBench report" in text
  assert ("What the images add" in text) == ("zero_shot" in quantities)


def test_cells_with_fewer_images_than_requested_are_counted(rows, tmp_path):
  first = next(row for row in rows if row["source"] == "original" and row["shots"] == 8)
  keys = ("dataset", "source", "strategy", "shots")
  own = [row for row in rows if all(row[key] == first[key] for key in keys)]
  short = [{**row, "shots_given": 5.5, "missing_classes": 1} for row in own]
  text = write_report(short, [], {}, tmp_path).read_text(encoding="utf-8")
  assert re.search(r"1 dataset, 1 cell\b", text)
  assert "Cells with fewer images than requested: 1, such as 5.50 per class instead of 8 (" in text
  assert "Cells with classes that have no training image: 1." in text


def test_full_benchmark_stays_small(full_page):
  """The examples fill the remaining space, and the page says how many were omitted."""
  text = full_page.read_text(encoding="utf-8")
  assert 9_000_000 < len(text.encode()) < 10_000_000
  assert "images were omitted evenly" in text
  assert text.count("<img ") > 60


def test_a_failed_write_leaves_the_old_page(rows, tmp_path, monkeypatch):
  page = write_report(rows, [], {"title": "first"}, tmp_path)

  def full(*_args, **_kwargs):
    raise OSError("no space left")

  monkeypatch.setattr("pathlib.Path.replace", full)
  with pytest.raises(OSError, match="no space"):
    write_report(rows, [], {"title": "second"}, tmp_path)
  assert "<title>first</title>" in page.read_text(encoding="utf-8")
  assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_metrics_on_other_features_are_ranked_too(rows, run, tmp_path):
  """The page has a copy of the FIDs under the name of another encoder."""
  more = [row | {"encoder": "a/dinov2"} for row in rows if row["quantity"] == "fid"]
  page = write_report([*rows, *more], [], run, tmp_path).read_text(encoding="utf-8")
  assert "FID (dinov2)" in page
  assert "By protocol and encoder" not in page


def test_a_table_too_large_for_the_page_is_thinned_by_a_stated_rule(
  many, run, tmp_path, monkeypatch
):
  """Other encoders are dropped first, then seeds; the file beside the page has every cell."""
  monkeypatch.setattr("genbench_jax.report.cell_table.TABLE_BUDGET", 30_000)
  page = write_report(many.many_rows(datasets=("pets", "textures")), [], run, tmp_path)
  text = page.read_text(encoding="utf-8")
  assert "72 of 288 rows: the page’s protocol and encoder, means over seeds." in text
  assert (tmp_path / "tables" / "cells.csv").read_text(encoding="utf-8").count("\n") == 289


def test_the_last_resort_is_the_first_cells(many, run, tmp_path, monkeypatch):
  monkeypatch.setattr("genbench_jax.report.cell_table.TABLE_BUDGET", 5_000)
  text = write_report(many.many_rows(datasets=("pets",)), [], run, tmp_path).read_text(
    encoding="utf-8"
  )
  assert "the smallest and largest number of images, the first datasets. The file" in text


def test_settings_that_matter_are_near_the_head(rows, tmp_path):
  config = '{"recognition": {"language_init": false}, "sources": ["generative"], "generation": {"steps": 8, "guidance_scale": 5.0, "checkpoint": "zoo/diffusion"}}'
  text = write_report(rows, [], {"config": config}, tmp_path).read_text(encoding="utf-8")
  settings = text[text.index("Settings that matter") : text.index('aria-label="Contents"')]
  assert "test images select no setting" in settings
  assert "The linear probe uses no text" in settings
  assert "come from zoo/clip" in settings
  assert "zoo/diffusion with 8 steps at guidance 5" in settings
  assert "Intervals are for these images" in settings


def test_a_number_is_rounded_once(tmp_path, rows):
  """−4.75 points (19 of 400 test images) are −4.8 everywhere."""
  from genbench_jax.report.number_words import points

  for value in (-0.0475, 0.85 - 0.8975, -0.047499999999999, (0.8525 - 0.9)):
    assert points(value) == "−4.8"


def test_control_characters_of_names_are_escaped_in_files(tmp_path):
  """XML forbids them."""
  write(tmp_path / "a.svg", "<svg>x\x1b[31m\x00\x85\uffff\n\t\u2028</svg>")
  text = (tmp_path / "a.svg").read_text(encoding="utf-8")
  assert text == "<svg>x\\x1b[31m\\x00\\u0085\\uffff\n\t\u2028</svg>"
