"""Formats are detected from the files at a path."""

import zipfile

import pytest

from genbench_jax.benchmark.inputs.find import _ranges, find_images
from genbench_jax.errors import UsageError


def archive(path, name):
  path.parent.mkdir(exist_ok=True)
  with zipfile.ZipFile(path, "w") as file:
    file.writestr(f"cat/{name}", b"x")


def found(folder):
  return find_images(folder, lambda name: name == "cat", folder / "cache")


def test_the_archive_of_a_download_is_found_beside_its_license(tmp_path):
  for split in ("train", "test"):
    archive(tmp_path / "download" / f"{split}.zip", f"{split}.png")
  (tmp_path / "download" / "LICENSE.txt").write_text("free")
  images = found(tmp_path)
  assert images.ids == ["cat/train.png"]
  assert images.notes == ("the files of 'train' are used; 1 left out: 'test.zip'.",)


def test_several_archives_are_not_guessed(tmp_path):
  for name in ("a.zip", "b.zip"):
    archive(tmp_path / name, "0.png")
  with pytest.raises(UsageError, match=r"has several archives: 'a.zip', 'b.zip'. Give one"):
    found(tmp_path)


def test_class_folders_are_used_beside_an_archive(tmp_path):
  archive(tmp_path / "old.zip", "0.png")
  (tmp_path / "cat").mkdir()
  (tmp_path / "cat" / "new.png").write_bytes(b"x")
  assert found(tmp_path).ids == ["cat/new.png"]


def test_a_list_without_classes_and_an_archive_of_other_files_say_what_is_there(tmp_path):
  (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
  with pytest.raises(
    UsageError, match=r"metadata.csv has no class column among 'file_name', 'text'"
  ):
    found(tmp_path)
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
    file.writestr("data/train.parquet", b"x")
  with pytest.raises(UsageError, match=r"no class folders.*not images: 'data/train.parquet'"):
    found(tmp_path / "a.zip")


def test_ranges_of_shards():
  assert _ranges("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
  assert _ranges("plain.tar") == ["plain.tar"]
  for text in ("a{0..99}{0..99}{0..99}", f"a{{0..{10**8}}}"):
    with pytest.raises(UsageError, match="more than"):
      _ranges(text)
  assert _ranges("a{0..9999999999}") == ["a{0..9999999999}"]  # too long to be a number of shards
