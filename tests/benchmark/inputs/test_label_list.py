"""Lists of images and labels."""

import json

import pytest
from PIL import Image

from genbench_jax.benchmark.inputs.label_list import list_in, open_list
from genbench_jax.errors import UsageError


@pytest.fixture
def folder(tmp_path):
  for name in ("a.png", "b.png", "deep/c.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(tmp_path / name)
  (tmp_path / "notes.txt").write_text("no image")
  return tmp_path


def opened(folder, name, text):
  (folder / name).write_text(text, encoding="utf-8")
  images = open_list(folder / name)
  return dict(zip(images.ids, [names[0] for names in images.classes], strict=True))


WANTED = {"a.png": "cat", "b.png": "dog", "deep/c.png": "cat"}
TWO_LEVELS = [{"coarse_label": 0, "file_name": p, "fine_label": c} for p, c in WANTED.items()]


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("labels.csv", "file,label\na.png,cat\nb.png,dog\ndeep/c.png,cat\n"),
    ("labels.csv", "\ufefffile,label\r\na.png, cat \r\n./b.png,dog\r\ndeep//c.png,cat\r\n"),
    ("labels.csv", "File Name,anything\na.png,cat\nb.png,dog\ndeep/c.png,cat\n"),
    ("metadata.csv", "x,file_name,class\n1,a.png,cat\n2,b.png,dog\n3,deep/c.png,cat\n"),
    ("list.tsv", "path\ttarget\na.png\tcat\nb.png\tdog\ndeep/c.png\tcat\n"),
    ("list.csv", "Image ID;class-id\na.png;cat\nb.png;dog\ndeep\\c.png;cat\n"),
    ("metadata.jsonl", "\n".join(map(json.dumps, TWO_LEVELS))),
    ("list.json", json.dumps(WANTED)),
    ("list.json", json.dumps([{"image": p, "category": c} for p, c in WANTED.items()])),
    ("l.jsonl", "\n".join(json.dumps({"img": p, "y": c}) for p, c in WANTED.items())),
    ("l.ndjson", "\n\n".join(json.dumps({"img": p, "label": [c]}) for p, c in WANTED.items())),
  ],
)
def test_every_format_names_the_same_images(folder, name, text):
  assert opened(folder, name, text) == WANTED


def test_files_that_are_no_images_or_missing_are_left_out(folder):
  text = "file,label\na.png,cat\nnotes.txt,dog\nnone.png,dog\n"
  assert opened(folder, "labels.csv", text) == {"a.png": "cat"}
  images = open_list(folder / "labels.csv")
  assert images.named == ("cat", "dog")  # a class may have no images


def test_an_absolute_path_inside_the_folder_is_relative(folder):
  text = f"file,label\n{folder / 'a.png'},cat\n"
  assert opened(folder, "labels.csv", text) == {"a.png": "cat"}


@pytest.mark.parametrize("path", ["../a.png", "deep/../../a.png", "..\\a.png", "/etc/passwd"])
def test_files_outside_are_rejected(folder, path):
  with pytest.raises(UsageError, match="names files outside its folder"):
    opened(folder, "labels.csv", f"file,label\n{path},cat\n")


@pytest.mark.parametrize("value", ["['cat', 'dog']", '["cat", "dog"]'])
def test_the_first_of_several_classes_is_used(folder, value):
  path = folder / "list.json"
  path.write_text(json.dumps([{"file": "a.png", "label": value}]))
  images = open_list(path)
  assert images.classes == [("cat",)]
  assert images.notes == ("1 images have several classes; the first one is used.",)


def test_two_lines_for_a_file_are_a_contradiction_unless_equal(folder):
  (folder / "labels.csv").write_text("file,label\na.png,cat\na.png,dog\na.png,cat\n")
  assert open_list(folder / "labels.csv").classes == [("cat", "dog")]


@pytest.mark.parametrize("value", ["", "  "])
def test_a_file_without_a_class_is_left_out(folder, value):
  assert opened(folder, "labels.csv", f"file,label\na.png,{value}\nb.png,dog\n") == {"b.png": "dog"}


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("labels.csv", "", "must have the columns file,label"),
    ("labels.csv", "file,label,label\na.png,cat,dog\n", "several columns are named 'label'"),
    ("labels.csv", "a.png,cat\nb.png,dog\n", "has no header: its first line is 'a.png,cat'"),
    ("labels.csv", "file\na.png\n", "has no class column"),
    ("other.csv", "file,anything\na.png,cat\n", "has no class column among 'file', 'anything'"),
    ("labels.csv", "file,label\na.png,cat,more\n", "must have the columns"),
    ("labels.csv", "file,label\na.png\n", "must have the columns"),
    (
      "list.csv",
      "file,label\nx.png,cat\n",
      r"no image that can be used. 1 left out.* Paths are relative",
    ),
    ("list.json", "3", "can't be read as JSON: expected one object per image"),
    ("list.json", "[1]", "expected one object per image"),
    ("list.jsonl", "{", "can't be read as JSON"),
  ],
)
def test_other_content_is_rejected(folder, name, text, message):
  with pytest.raises(UsageError, match=message):
    opened(folder, name, text)


def test_text_that_is_not_utf_8_is_rejected(folder):
  (folder / "labels.csv").write_bytes(b"file,label\na.png,caf\xe9\n")
  with pytest.raises(UsageError, match="can't be read as CSV"):
    open_list(folder / "labels.csv")


def test_a_folder_may_have_a_list(folder):
  assert list_in(folder) is None
  (folder / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
  assert list_in(folder) is None  # captions, no classes
  (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "cat"}\n')
  assert list_in(folder) == folder / "metadata.jsonl"
  (folder / "labels.csv").write_text("anything")
  assert list_in(folder) == folder / "labels.csv"


def test_images_are_read_from_the_folder_of_the_list(folder):
  (folder / "labels.csv").write_text("file,label\ndeep/c.png,cat\n")
  images = open_list(folder / "labels.csv")
  assert images.read(0) == (folder / "deep" / "c.png").read_bytes()
