"""Files that map the user's names to classes."""

import pytest

from genbench_jax.benchmark.inputs.class_map import read_class_map, read_class_words
from genbench_jax.errors import UsageError

WANTED = {"tabby": "cat", "spaniel": "dog", "mug": ""}


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("map.csv", "tabby,cat\nspaniel,dog\nmug,\n"),
    ("map.csv", "\ufeffname,class\r\ntabby,cat\r\n\r\nspaniel, dog\r\nmug,\r\n"),
    ("map.csv", "Folder,To,remark\ntabby,cat,x\nspaniel,dog,y\nmug,,z\n"),
    ("map.tsv", "from\tclass_name\ntabby\tcat\nspaniel\tdog\nmug\t\n"),
    ("map.txt", "tabby,cat\nspaniel,dog\nmug,\n"),
    ("map.json", '{"tabby": "cat", "spaniel": "dog", "mug": null}'),
    ("map.yaml", "tabby: cat\nspaniel: dog\nmug:\n"),
  ],
)
def test_every_format_gives_the_same_map(name, text, tmp_path):
  (tmp_path / name).write_bytes(text.encode("utf-8"))
  assert read_class_map(tmp_path / name) == WANTED


def test_numbers_are_names(tmp_path):
  (tmp_path / "map.json").write_text('{"7": 3}')
  assert read_class_map(tmp_path / "map.json") == {"7": "3"}


def test_a_line_that_resembles_a_header_but_is_none_is_kept(tmp_path):
  (tmp_path / "map.csv").write_text("name,dog\nclass,cat\n")
  assert read_class_map(tmp_path / "map.csv") == {"name": "dog", "class": "cat"}


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("map.csv", b"tabby\n", "must map each name to a class"),
    ("map.csv", b"", "must map each name to a class"),
    ("map.json", b"[1, 2]", "must map each name to a class"),
    ("map.json", b"{", "can't be read: Expecting"),
    ("map.yaml", b"a: [", "can't be read"),
    ("map.csv", b"\xff\xfe\x00", "can't be read"),
  ],
)
def test_other_content_is_rejected(name, content, message, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UsageError, match=message):
    read_class_map(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UsageError, match=r"none\.csv"):
    read_class_map(tmp_path / "none.csv")


@pytest.mark.parametrize(
  ("name", "text", "said"),
  [
    ("m.csv", "a" * 200_000 + ",heart\n", "field larger"),
    ("m.csv", "a,heart\na,na\n", "'a' has two values, 'heart' and 'na'"),
    ("m.json", '{"a": "heart", "a": "na"}', "'a' has two values"),
    ("m.yaml", "a: heart\na: na\n", "'a' is given twice"),
  ],
)
def test_a_damaged_or_contradictory_class_map_is_rejected(name, text, said, tmp_path):
  (tmp_path / name).write_text(text)
  with pytest.raises(UsageError, match=said):
    read_class_map(tmp_path / name)
  (tmp_path / "twice.csv").write_text("a,heart\na,heart\n")
  assert read_class_map(tmp_path / "twice.csv") == {"a": "heart"}


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("words.csv", "rust,leaf with rust,rusty leaf\nhealthy,healthy leaf\n"),
    ("words.csv", "label;class_name\nrust;leaf with rust, rusty leaf\nhealthy;healthy leaf\n"),
    ("words.json", '{"rust": ["leaf with rust", "rusty leaf"], "healthy": "healthy leaf"}'),
    ("words.yaml", "rust: [leaf with rust, rusty leaf]\nhealthy: [healthy leaf]\n"),
    ("words.yml", "rust: leaf with rust, rusty leaf\nhealthy: healthy leaf\n"),
  ],
)
def test_a_class_may_have_several_words(name, text, tmp_path):
  (tmp_path / name).write_text(text)
  wanted = {"rust": ["leaf with rust", "rusty leaf"], "healthy": ["healthy leaf"]}
  assert read_class_words(tmp_path / name) == wanted
