"""Results files as JSON lines and CSV."""

from genbench_jax.store.files import read_json_lines
from genbench_jax.store.rows import COLUMNS, write_results


def _row(value):
  return {**dict.fromkeys(COLUMNS, 1), "dataset": "digits", "value": value, "ci_low": None}


def test_results_are_written_as_json_lines_and_csv(tmp_path):
  write_results(tmp_path, [_row(0.5), _row(0.25)])
  assert read_json_lines(tmp_path / "results.jsonl") == [_row(0.5), _row(0.25)]
  lines = (tmp_path / "results.csv").read_text().splitlines()
  assert lines[0] == ",".join(COLUMNS)
  assert len(lines) == 3


def test_unchanged_or_empty_rows_do_not_rewrite_the_file(tmp_path):
  write_results(tmp_path, [_row(0.5)])
  (tmp_path / "results.csv").write_text("opened in a spreadsheet")
  write_results(tmp_path, [_row(0.5)])
  write_results(tmp_path, [])
  assert (tmp_path / "results.csv").read_text() == "opened in a spreadsheet"
  write_results(tmp_path, [_row(0.75)])
  assert "0.75" in (tmp_path / "results.csv").read_text()
