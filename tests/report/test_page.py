"""The page as text: complete, self-contained, honest about what is missing."""

import re

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.report.page import write_report


@pytest.fixture(scope="module")
def page(rows, galleries, run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("report")
  return write_report(rows, galleries, run, folder)


def test_files_beside_the_page(page):
  files = {str(p.relative_to(page.parent)) for p in page.parent.rglob("*") if p.is_file()}
  names = ("cells", "gains", "rank-correlations", "ranking", "who-beats-whom")
  tables = {f"tables/{t}.{e}" for t in names for e in ("csv", "md", "tex")}
  names = (
    "gains",
    "against-originals",
    "strategies",
    "accuracy-against-shots",
    "cler-against-linear-probe",
    "all-metrics",
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
  assert "No result for cifar10: no average contains them." in text
  assert "&lt;b&gt;bold&lt;/b&gt; is not markup here." in text


def test_no_rows_is_a_user_error(tmp_path):
  with pytest.raises(UsageError, match="no row"):
    write_report([], [], {}, tmp_path)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantities", [{"zero_shot", "cler"}, {"fid"}, {"linear_probe"}])
def test_partial_runs_have_a_page(rows, quantities, tmp_path):
  """A run that has only scored, or only trained, or has no baseline, still gets its page."""
  some = [row for row in rows if row["quantity"] in quantities]
  text = write_report(some, [], {}, tmp_path).read_text(encoding="utf-8")
  assert "GenBench report" in text
  assert ("What the images add" in text) == ("zero_shot" in quantities)


def test_full_benchmark_stays_small(full_page):
  """The examples fill what room is left, and the page says how many it left out."""
  text = full_page.read_text(encoding="utf-8")
  assert 9_000_000 < len(text.encode()) < 10_000_000
  assert "images were left out, evenly" in text
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


def test_metrics_on_other_features_are_ranked_with_the_rest(rows, run, tmp_path):
  """The page of the demo's rows with a copy of its FIDs as another encoder's."""
  more = [row | {"encoder": "a/dinov2"} for row in rows if row["quantity"] == "fid"]
  page = write_report([*rows, *more], [], run, tmp_path).read_text(encoding="utf-8")
  assert "FID (dinov2)" in page
  assert "By protocol and encoder" not in page
