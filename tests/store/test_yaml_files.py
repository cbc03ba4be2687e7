"""Dataset files that are bombs, deeply nested, pipes or links give one short line without delay."""

import json
import os
import time

import pytest

from genbench_jax.benchmark.own import own_spec
from genbench_jax.errors import UsageError
from genbench_jax.planning.machines import machines
from genbench_jax.store.yaml_files import DEEPEST, YamlError, as_yaml, parse_yaml, read_yaml

NINE = "[" + ",".join(["x"] * 9) + "]"
LEVELS = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
BOMBS = {
  "unknown key": "\n".join(["folder: .", f"a0: &a0 {NINE}", *LEVELS]),
  "name": f"folder: .\nname: [&b0 {NINE}, " + ", ".join(f"&b{n} [{','.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 9)) + "]",
  "holds itself": "&x [*x]",
  "deep": "folder: " + "[" * 5000 + "]" * 5000,
  "deep blocks": "\n".join(" " * n + "- " for n in range(2000)),
  "digits": "folder: .\nclass_names: {a: " + "9" * 5000 + ", b: x}",
  "merge": "<<: [1,2]\nfolder: .",
  "no date": "folder: 2020-13-45",
  "large": "folder: .\nname: " + "x" * (1 << 21),
  "long key": "folder: .\n" + "k" * 100_000 + ": 1",
  "long name": "folder: .\nname: " + "x" * 5000,
  "long metric": "folder: .\nmetric: " + "x" * 5000,
  "zero byte": 'folder: "a\\0b"',
  "given twice": "folder: .\nname: x\nname: y",
  "climbs out": "folder: .\nsplits: {test: ../../etc}",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  for label in ("a", "b"):
    (tmp_path / "test" / label).mkdir(parents=True)
  return tmp_path


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_gives_one_short_line_without_delay(folder, kind):
  (folder / "own.yaml").write_text(BOMBS[kind])
  began = time.process_time()
  with pytest.raises(UsageError) as caught:
    own_spec(str(folder / "own.yaml"))
  assert time.process_time() - began < 2
  assert len(str(caught.value)) < 500 + len(str(folder))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "link", "link to a device"])
def test_a_dataset_file_in_a_folder_must_be_a_regular_file(folder, kind):
  path = folder / "dataset.yaml"
  if kind == "pipe":
    os.mkfifo(path)
  else:
    path.symlink_to("/dev/zero" if "device" in kind else folder / "elsewhere.yaml")
    (folder / "elsewhere.yaml").write_text("name: x")
  with pytest.raises(UsageError, match="can't read the dataset file"):
    own_spec(f"folder:{folder}")


def test_a_file_named_by_the_user_may_be_a_link_but_not_a_device(folder):
  (folder / "real.yaml").write_text("folder: .\nname: by link")
  (folder / "link.yaml").symlink_to("real.yaml")
  assert own_spec(str(folder / "link.yaml")).name == "by_link"
  (folder / "zero.yaml").symlink_to("/dev/zero")
  with pytest.raises(UsageError, match="not a regular file"):
    own_spec(str(folder / "zero.yaml"))


def test_a_table_of_machines_is_read_in_the_same_way(tmp_path):
  (tmp_path / "m.yaml").write_text("machines: &x {a: *x}")
  with pytest.raises(UsageError, match="not a table of machines"):
    machines(str(tmp_path / "m.yaml"))
  assert "h100" in machines()


@pytest.mark.parametrize("depth", [DEEPEST, DEEPEST + 1])
def test_the_deepest_nesting_that_is_read(depth, tmp_path):
  path = tmp_path / "deep.yaml"
  path.write_text("[" * depth + "]" * depth)
  if depth <= DEEPEST:
    assert read_yaml(path) is not None
  else:
    with pytest.raises(YamlError, match="nested more than 16 deep"):
      read_yaml(path)


def test_json_is_written_so_that_yaml_reads_it_back():
  odd = "".join(map(chr, (9, 10, 13, 0x7F, 0x85, 0x9F, 0xA0, 0x2028, 0x2029, 0xFEFF, 0x1F600)))
  value = {f"key {odd}": [odd, "no", "1", ""], "- x": {"#": "*a"}}
  assert parse_yaml(as_yaml(value)) == json.loads(as_yaml(value)) == value


def test_links_are_followed_only_if_asked(tmp_path):
  (tmp_path / "a.yaml").write_text("x: 1")
  (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
  assert read_yaml(tmp_path / "link.yaml", follow=True) == {"x": 1}
  with pytest.raises(OSError, match="symbolic link"):
    read_yaml(tmp_path / "link.yaml")


def test_a_file_of_a_mebibyte_is_read_and_a_larger_one_is_not(tmp_path):
  path = tmp_path / "a.yaml"
  path.write_bytes(b"x: 1\n#".ljust(1024**2, b"-"))
  assert read_yaml(path) == {"x": 1}
  path.write_bytes(path.read_bytes() + b"-")
  with pytest.raises(YamlError, match="larger than 1 MB"):
    read_yaml(path)


def test_a_reason_has_200_characters_at_most():
  with pytest.raises(YamlError) as caught:
    parse_yaml(f"!{'x' * 300} 1")
  assert len(str(caught.value)) == 200
