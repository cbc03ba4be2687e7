"""All readers of folders use one traversal: they find the same images and name what they skip."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError, features

from genbench_jax.benchmark.archives import members
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import list_images, open_user_images
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.collection import open_collection
from genbench_jax.retrieval.pool import open_pool
from genbench_jax.store.image_files import (
  ImageWalk,
  decoding_fault,
  image_formats,
  is_hidden,
  visible,
)
from genbench_jax.store.reading import read_beneath, read_file


def _write(path, form="PNG", value=9):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (8, 8), (value, 99, 200)).save(path, format=form)


@pytest.fixture
def root(tmp_path):
  """Two classes with an image each, and hidden files that are never data."""
  root = tmp_path / f"{tmp_path.name}_data"  # a dataset's name must have one folder
  for name in ("cat", "dog"):
    _write(root / "test" / name / "0.png")
    for hidden in (
      "._0.png",
      ".thumbs/0.png",
      ".ipynb_checkpoints/0-checkpoint.png",
      "__MACOSX/0.png",
      "@eaDir/0.png",
    ):
      _write(root / "test" / name / hidden)
  _write(root / "test" / "__MACOSX" / "0.png")
  return root


def _read(root):
  """Return the ids of a dataset's test images, checked against the counted size."""
  spec = dataset_spec(f"folder:{root}")
  found = [example["id"] for example in open_split(spec, "test")]
  assert spec.split_sizes["test"] == len(found)
  return found


def test_hidden_files_are_never_data(root):
  assert _read(root) == ["cat/0.png", "dog/0.png"]
  listed = list_images(root / "test", dataset_spec(f"folder:{root}"))
  assert listed.paths == ("cat/0.png", "dog/0.png")
  (part,) = open_collection(root / "test", 100)
  assert [entry.name for entry in part.listing().entries] == ["cat/0.png", "dog/0.png"]
  assert is_hidden("a/.b/c") and not is_hidden("./a") and not is_hidden("../a")


def test_all_suffixes_of_pillow_and_names_without_suffix_are_read(root, capsys):
  cats = root / "test" / "cat"
  for name, form in (
    ("a.jfif", "JPEG"),
    ("b.JPE", "JPEG"),
    ("c", "PNG"),
    ("d.v2", "WEBP"),
    ("e.jp2", "JPEG2000"),
  ):
    _write(cats / name, form)
  if features.check("avif"):
    _write(cats / "f.avif", "AVIF")
  (cats / "notes.md").write_text("no image")
  (cats / "g.dat").write_bytes(b"neither")
  found = _read(root)
  assert {"cat/a.jfif", "cat/b.JPE", "cat/c", "cat/d.v2", "cat/e.jp2"} < set(found)
  assert "2 left out, not images: 'g.dat', 'notes.md'." in capsys.readouterr().err
  listed = list_images(root / "test", dataset_spec(f"folder:{root}"))
  assert list(listed.paths) == found
  assert "EPS" not in image_formats()  # would be handed to Ghostscript


def test_links_below_a_root_are_not_followed_and_roots_may_be_links(root, tmp_path, capsys):
  (root / "test" / "cat" / "link.png").symlink_to(root / "test" / "dog" / "0.png")
  (root / "test" / "cat" / "more").symlink_to(root / "test" / "dog")
  (root / "test" / "cat" / "self.png").symlink_to("self.png")
  _write(tmp_path / "elsewhere" / "1.png")
  (root / "test" / "cow").symlink_to(tmp_path / "elsewhere")
  (root / "test" / "loop").symlink_to("loop")
  assert _read(root) == ["cat/0.png", "cow/1.png", "dog/0.png"]
  said = capsys.readouterr().err
  assert "3 left out, symbolic links: 'link.png', 'more', 'self.png'." in said
  (tmp_path / "linked").symlink_to(root)
  assert (
    len(list(ImageWalk(tmp_path / "linked" / "test").images())) == 2
  )  # `cow` is a link below this root


@pytest.fixture
def nested(tmp_path):
  """1,200 nested folders, with an image in the first and the last."""
  folders = [tmp_path / "0"]
  _write(folders[0] / "a.png")
  for _ in range(1200):
    folders.append(folders[-1] / "d")
    folders[-1].mkdir()
  _write(folders[-1] / "deep.png")
  yield tmp_path
  (folders[-1] / "deep.png").unlink()
  for folder in reversed(folders[1:]):  # too deep for `rmtree`, which pytest uses
    folder.rmdir()


def test_very_deeply_nested_folders_are_read(nested):
  found = list_images(nested, dataset_spec("digits"))
  assert [Path(path).name for path in found.paths] == ["a.png", "deep.png"]
  assert len(list(ImageWalk(nested).images())) == 2


def test_a_file_replaced_after_listing_is_not_read(root, tmp_path):
  (tmp_path / "secret.png").write_bytes((root / "test" / "cat" / "0.png").read_bytes())
  spec = dataset_spec(f"folder:{root}")
  splits = [open_split(spec, "test"), open_user_images(root / "test", spec, tmp_path / "cache")]
  (root / "test" / "cat" / "0.png").unlink()
  (root / "test" / "cat" / "0.png").symlink_to(tmp_path / "secret.png")
  for split in splits:
    with pytest.raises(RunError, match="can't be read any more"):
      split[0]
  (root / "test" / "cat").rename(root / "moved")
  (root / "test" / "cat").symlink_to(root / "moved")
  with pytest.raises(OSError, match="symbolic link"):
    read_beneath(root, "test/cat/0.png", 100)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  (tmp_path / "big").write_bytes(bytes(11))
  for name, words in (
    ("pipe", "not a regular file"),
    ("big", "larger than 10"),
    (".", "not a path"),
    ("a\0b", "zero byte"),
  ):
    with pytest.raises(OSError, match=words):
      read_beneath(tmp_path, name, 10)
  assert read_beneath(tmp_path, "./big", 11) == bytes(11)
  (tmp_path / "link").symlink_to("big")
  assert read_file(tmp_path / "link", 11, follow=True) == bytes(11)
  with pytest.raises(OSError, match="symbolic link"):
    read_file(tmp_path / "link", 11)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("0.png,cat\n1.png,dog\n", "has no header"),
    ("file,label\n0.png,cat\n0.png,dog\n", "gives '0.png' several classes: 'cat', 'dog'"),
    ("file,label\n./0.png,cat\n0.png,dog\n", "gives '0.png' several classes"),
    ("file,label\n0.png,cat\n0.png,nothing\n", "gives '0.png' several classes"),
  ],
)
def test_inconsistent_lists_are_rejected(root, tmp_path, text, words):
  _write(tmp_path / "gen" / "0.png")
  _write(tmp_path / "gen" / "1.png")
  (tmp_path / "gen" / "labels.csv").write_text(text)
  with pytest.raises(UsageError, match=words):
    list_images(tmp_path / "gen", dataset_spec(f"folder:{root}"))


def test_a_list_may_name_a_class_in_two_ways_but_no_hidden_file(root, tmp_path):
  _write(tmp_path / "gen" / "0.png")
  _write(tmp_path / "gen" / ".1.png")
  (tmp_path / "gen" / "labels.csv").write_text("file,label\n0.png,cat\n./0.png,Cat\n.1.png,dog\n")
  found = list_images(tmp_path / "gen", dataset_spec(f"folder:{root}"))
  assert found.paths == ("0.png",)
  assert "1 left out, hidden: '.1.png'." in found.notes


@pytest.mark.parametrize("link", [True, False])
def test_a_list_that_is_a_link_or_a_pipe_is_rejected(root, tmp_path, link):
  _write(tmp_path / "gen" / "0.png")
  path = tmp_path / "gen" / "labels.csv"
  path.symlink_to("/dev/zero") if link else os.mkfifo(path)
  with pytest.raises(UsageError, match=r"labels\.csv can't be read: .*(link|not a regular file)"):
    list_images(tmp_path / "gen", dataset_spec(f"folder:{root}"))


def test_postscript_under_another_name_starts_no_program(tmp_path, monkeypatch):
  from PIL import EpsImagePlugin

  from genbench_jax.embedding.input_pipeline import opened

  def ghostscript(*_, **__):
    raise AssertionError("another program was called")

  monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
  script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
  with pytest.raises(UnidentifiedImageError):
    opened(script)
  (tmp_path / "0").mkdir()
  _write(tmp_path / "0" / "a.png")
  (tmp_path / "0" / "b.png").write_bytes(script)
  found = open_user_images(tmp_path, dataset_spec("digits"), tmp_path / "cache")
  assert [example["id"] for example in found] == ["0/a.png"]


def test_leftovers_of_macos_are_no_shards_tars_or_submissions(tmp_path):
  (tmp_path / "img_emb").mkdir()
  np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.ones((2, 3), np.float32))
  (tmp_path / "img_emb" / "._img_emb_0.npy").write_bytes(b"\0\5\x16\7")
  (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7")
  (tmp_path / "a.tar").write_bytes(b"")
  assert len(open_pool(tmp_path)) == 2
  assert [part.files[0].name for part in open_collection(tmp_path, 1)] == ["a.tar"]
  assert visible(tmp_path / ".hidden", "*") == []
  (tmp_path / ".hidden").mkdir()
  (tmp_path / ".hidden" / "x").touch()
  assert [path.name for path in visible(tmp_path / ".hidden", "*")] == ["x"]


def test_leftovers_of_macos_in_an_archive_are_skipped(tmp_path):
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    for name in ("__MACOSX/a/._1.jpg", "a/1.jpg", "a/._1.jpg", ".git/1.jpg"):
      archive.writestr(name, b"x")
  found = members(tmp_path / "a.zip", lambda name: name.suffix == ".jpg")
  assert [str(name) for name, _ in found] == ["a/1.jpg"]


def test_a_decoding_fault_is_one_line_without_addresses():
  with pytest.raises(UnidentifiedImageError) as raised:
    Image.open(io.BytesIO(b"no image"))
  assert decoding_fault(raised.value) == "cannot identify image file"
  assert decoding_fault(ValueError("a\n\x1b[2J b")) == "a \\x1b[2J b"
  assert decoding_fault(OSError()) == "OSError"
