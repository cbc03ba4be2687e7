"""Files are whole or absent."""

import errno

import pytest

from genbench_jax.errors import RunError
from genbench_jax.store import files


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  with pytest.raises(KeyError), files.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise KeyError("died")
  assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_one_clear_line(tmp_path, code):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  message = r"can't write .*a\.txt.*Complete files are intact"
  with pytest.raises(RunError, match=message), files.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise OSError(code, "no")
  assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
  assert path.read_text() == "old"


def test_json_lines_and_csv_hold_what_was_written(tmp_path):
  rows = [{"a": 1, "b": "x,y"}, {"a": 2, "b": None}]
  files.write_json_lines(tmp_path / "r.jsonl", rows)
  assert files.read_json_lines(tmp_path / "r.jsonl") == rows
  files.write_csv(tmp_path / "r.csv", rows, ("b", "a"))
  assert (tmp_path / "r.csv").read_text() == 'b,a\n"x,y",1\n,2\n'


def test_damaged_json_is_named(tmp_path):
  (tmp_path / "m.json").write_text("{")
  with pytest.raises(RunError, match=r"m\.json is damaged"):
    files.read_json(tmp_path / "m.json")


def test_a_digest_depends_on_the_value_and_not_on_the_order_of_keys():
  assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
  assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_a_digest_is_twelve_digits_of_the_sorted_json():
  """Names on disk hold it: it must never change."""
  assert files.digest({"b": [1, "ä"], "a": None}) == "5d4c789751ac"
  assert files.digest({"a": None, "b": [1, "ä"]}) == files.digest({"b": [1, "ä"], "a": None})
