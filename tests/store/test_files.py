"""Files are complete or absent."""

import csv
import errno
import hashlib
import json
import os

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.store import files


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  with pytest.raises(KeyError), files.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise KeyError("died")
  assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EDQUOT])
def test_a_full_or_read_only_disk_gives_one_line(tmp_path, code):
  path = tmp_path / "a.txt"
  files.write_text(path, "old")
  message = r"can't write .*a\.txt.*Complete files are intact"
  with pytest.raises(RunError, match=message), files.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise OSError(code, "no")
  assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
  assert path.read_text() == "old"


def test_json_lines_and_csv_contain_the_rows(tmp_path):
  rows = [{"a": 1, "b": "x,y"}, {"a": 2, "b": None}]
  files.write_json_lines(tmp_path / "r.jsonl", rows)
  assert files.read_json_lines(tmp_path / "r.jsonl") == rows
  files.write_csv(tmp_path / "r.csv", rows, ("b", "a"))
  assert (tmp_path / "r.csv").read_text() == 'b,a\n"x,y",1\n,2\n'


def test_damaged_json_is_named(tmp_path):
  (tmp_path / "m.json").write_text("{")
  with pytest.raises(RunError, match=r"m\.json is damaged"):
    files.read_json(tmp_path / "m.json")


def test_a_digest_does_not_depend_on_the_order_of_keys():
  assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
  assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_a_digest_is_twelve_digits_of_the_sorted_json_hash():
  """File names contain this digest, so it must never change."""
  assert files.digest({"b": [1, "ä"], "a": None}) == "5d4c789751ac"
  assert files.digest({"a": None, "b": [1, "ä"]}) == files.digest({"b": [1, "ä"], "a": None})


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
@pytest.mark.parametrize("sealed", [True, False])
def test_unusual_line_separators_are_kept(tmp_path, letter, sealed):
  rows = [{"name": f"x{letter}y"}, {"name": letter}]
  files.write_json_lines(tmp_path / "r.jsonl", rows, sealed)
  assert files.read_json_lines(tmp_path / "r.jsonl", sealed) == rows


def test_existing_links_are_replaced_and_never_followed(tmp_path, monkeypatch):
  victim = tmp_path / "victim"
  victim.write_text("precious")
  (tmp_path / "a.txt").symlink_to(victim)
  files.write_text(tmp_path / "a.txt", "new")
  assert (victim.read_text(), (tmp_path / "a.txt").read_text()) == ("precious", "new")
  assert not (tmp_path / "a.txt").is_symlink()
  monkeypatch.setattr(files.secrets, "token_hex", lambda count: "guessed")
  (tmp_path / ".b.txt.guessed.part").symlink_to(victim)
  with pytest.raises(FileExistsError):
    files.write_text(tmp_path / "b.txt", "new")
  assert victim.read_text() == "precious"


def test_names_of_any_length_can_be_written_and_temporary_files_removed(tmp_path):
  name = "日" * 80 + ".json"
  files.write_json(tmp_path / name, {})
  assert files.read_json(tmp_path / name) == {}
  (tmp_path / "deep").mkdir()
  for left in (tmp_path / ".x.json.0123.part", tmp_path / "deep" / ".y.part"):
    left.touch()
  files.remove_parts(tmp_path)
  assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name]


def test_pipes_and_deeply_nested_json_are_rejected(tmp_path):
  os.mkfifo(tmp_path / "pipe.json")
  (tmp_path / "deep.json").write_text("[" * 200_000)
  (tmp_path / "digits.json").write_text("9" * 6000)
  for name in ("pipe", "deep", "digits"):
    with pytest.raises(RunError, match=rf"{name}\.json"):
      files.read_json(tmp_path / f"{name}.json")
  with pytest.raises(FileNotFoundError):
    files.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["=1+1", "-x", "@a", "\n=1", "'quoted'", "plain", ""])
def test_protected_cells_are_read_back(text):
  assert files.plain_cell(files.csv_cell(text)) == text


def test_csv_cells_are_never_formulas(tmp_path):
  names = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2", "\tx", "plain", -2.5]
  files.write_csv(tmp_path / "r.csv", [{"name": name} for name in names], ["name"])
  cells = [line.strip('"') for line in (tmp_path / "r.csv").read_text().split("\n")[1:-1]]
  assert [cell[0] for cell in cells] == ["'", "'", "'", "'", "'", "p", "-"]


def test_texts_with_other_bytes_are_stored_and_read_back(tmp_path):
  """Python represents bytes that are not UTF-8, such as in paths, by surrogates."""
  value = {"path": "caf\udce9", "names": ["\ud800", "\u2028"]}
  files.write_json(tmp_path / "a.json", value)
  assert files.read_json(tmp_path / "a.json") == value
  files.write_json_lines(tmp_path / "a.jsonl", [value, value], sealed=True)
  assert files.read_json_lines(tmp_path / "a.jsonl", sealed=True) == [value, value]
  assert files.digest(value) != files.digest({**value, "path": "caf\udce8"})
  files.write_text(tmp_path / "a.txt", "caf\udce9")
  assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9"


def test_arrays_are_stored_as_they_are_unless_compressed(tmp_path):
  zeros = np.zeros(5000)
  files.write_arrays(tmp_path / "plain.npz", zeros=zeros)
  files.write_arrays(tmp_path / "small.npz", compressed=True, zeros=zeros)
  plain, small = ((tmp_path / name).stat().st_size for name in ("plain.npz", "small.npz"))
  assert plain > zeros.nbytes > 10 * small
  with np.load(tmp_path / "small.npz") as found:
    files.check_arrays_format(tmp_path, found)
    assert np.array_equal(found["zeros"], zeros) and found["format"] == 1
  with pytest.raises(ValueError, match="Object arrays"):
    files.write_array(tmp_path / "a.npy", np.array([{}]))
  assert not (tmp_path / "a.npy").exists()


@pytest.mark.parametrize(("version", "fine"), [(0, True), (1, True), (2, False), ("1", False)])
def test_files_of_later_versions_are_rejected(tmp_path, version, fine):
  """This version writes and reads format 1."""
  if fine:
    files.check_format(tmp_path, version)
  else:
    with pytest.raises(RunError, match="reads up to 1"):
      files.check_format(tmp_path, version)


def test_checksums_are_those_of_complete_files_at_any_depth(tmp_path):
  (tmp_path / "deep").mkdir()
  for name in ("b", "deep/a", ".b.0123.part", "deep/c.part"):
    (tmp_path / name).write_bytes(b"abc")
  sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  assert files.checksums(tmp_path) == dict.fromkeys(("b", "deep/a", "deep/c.part"), sha)


def test_new_files_have_the_usual_permissions(tmp_path):
  files.write_text(tmp_path / "ours", "")
  (tmp_path / "usual").touch()
  ours, usual = ((tmp_path / name).stat().st_mode for name in ("ours", "usual"))
  assert ours == usual


def test_json_is_readable_text(tmp_path):
  files.write_json(tmp_path / "a.json", ["\u00e9", [1]])
  assert (tmp_path / "a.json").read_text("utf-8") == '[\n  "\u00e9",\n  [\n    1\n  ]\n]\n'
  files.write_json_lines(tmp_path / "a.jsonl", [{"a": "\u00e9"}, {}])
  assert (tmp_path / "a.jsonl").read_text("utf-8") == '{"a": "\u00e9"}\n{}\n'


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_line_may_lack_its_end(tmp_path, end):
  path = tmp_path / "a.jsonl"
  path.write_text('{"a": 1}\n{"b": 2}' + end)
  assert files.read_json_lines(path) == [{"a": 1}, {"b": 2}]
  files.write_json_lines(path, [{"a": 1}], sealed=True)
  path.write_text(path.read_text().removesuffix("\n") + end)
  assert files.read_json_lines(path, sealed=True) == [{"a": 1}]


@pytest.mark.parametrize("text", ["[1]\n", '{}\n3\n{"sha256": ""}\n', "", '{"a": 1}\n'])
def test_lines_that_are_no_objects_or_lack_their_seal_are_rejected(tmp_path, text):
  (tmp_path / "a.jsonl").write_text(text)
  with pytest.raises(RunError, match=r"a\.jsonl is damaged"):
    files.read_json_lines(tmp_path / "a.jsonl", sealed=True)


def test_sealed_lines_of_the_first_version_do_not_state_their_format(tmp_path):
  path = tmp_path / "a.jsonl"

  def write(*lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text + json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n")

  for lines in ([{"a": 1}], [{"format": 1, "a": 2}], [{"a": 1}, {"format": 1}], []):
    write(*lines)
    found = files.read_json_lines(path, sealed=True)
    assert found == [line for line in lines if line != {"format": 1}]
  write({"a": 1}, {"format": 2})
  with pytest.raises(RunError, match="has format 2"):
    files.read_json_lines(path, sealed=True)
  path.write_text(path.read_text().replace('"a"', '"b"'))
  with pytest.raises(RunError, match="checksum"):
    files.read_json_lines(path, sealed=True)


def test_a_scratch_array_has_its_room_and_no_name(tmp_path):
  scratch = files.scratch_array(tmp_path, (3, 5, 2))
  scratch[2, 4, 1] = 7
  assert scratch.shape == (3, 5, 2) and scratch.dtype == np.uint8 and scratch.sum() == 7
  assert not list(tmp_path.iterdir())
  with pytest.raises(RunError, match=r"can't keep 3 MiB in .*none.*Make room"):
    files.scratch_array(tmp_path / "none", (3, 1024, 1024))


@pytest.mark.parametrize("name", ["a\rb", "a\r\nb", "\r", "a\nb", 'a"b,c', "a\u2028b\x85c"])
def test_names_with_line_ends_stay_in_their_cell(tmp_path, name):
  files.write_csv(tmp_path / "r.csv", [{"x": f"0 {name}", "y": 1}] * 2, ["x", "y"])
  with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
    assert list(csv.reader(file)) == [["x", "y"], [f"0 {name}", "1"], [f"0 {name}", "1"]]
