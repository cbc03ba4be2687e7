"""Results files as JSON lines and CSV."""

import pytest

from genbench_jax.errors import RunError
from genbench_jax.store.files import read_json_lines
from genbench_jax.store.rows import COLUMNS, read_rows, results_run, write_results, write_rows


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


def test_results_name_their_run_and_whether_they_are_unchanged(tmp_path):
  write_results(tmp_path, [_row(0.5)], "one")
  assert results_run(tmp_path) == ("one", True)
  write_results(tmp_path, [_row(0.5)], "two")  # equal rows of another config
  assert results_run(tmp_path) == ("two", True)
  with (tmp_path / "results.jsonl").open("a") as file:
    file.write("{}\n")
  assert results_run(tmp_path) == ("two", False)
  (tmp_path / "results.about.json").unlink()  # of a version before them
  assert results_run(tmp_path) == ("", True)


def test_changed_rows_of_a_cell_are_rejected(tmp_path):
  write_rows(tmp_path / "a", [_row(0.5), _row(0.25)])
  write_rows(tmp_path / "b", [_row(0.75)])
  assert read_rows([tmp_path / "b", tmp_path / "a"]) == [_row(0.75), _row(0.5), _row(0.25)]
  (tmp_path / "a").write_text((tmp_path / "a").read_text().replace("0.25", "0.95"))
  with pytest.raises(RunError, match="checksum"):
    read_rows([tmp_path / "a"])
