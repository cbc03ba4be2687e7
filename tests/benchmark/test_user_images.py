"""A folder with all kinds of problems: good images are used, the rest is named and counted."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import open_user_images
from genbench_jax.errors import UsageError

SPEC = dataset_spec("digits")


def _write(path, value=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (8, 8), (value, 0, 0)).save(path, format="PNG")


def _bomb():
  """Return a PNG whose header claims 60,000 x 60,000 pixels."""
  header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
  chunk = b"IHDR" + header
  return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "my images"
  for label in range(3):
    for shot in range(label + 1):
      _write(root / f"digit {label}" / f"{shot}.png", shot)
  return root


@pytest.fixture
def named(folder):
  """Class folders named by index."""
  for path in list(folder.iterdir()):
    path.rename(folder / path.name.removeprefix("digit "))
  return folder


def test_images_come_class_by_class_in_the_order_of_their_names(named, tmp_path):
  images = open_user_images(named, SPEC, tmp_path / "cache")
  assert images.labels().tolist() == [0, 1, 1, 2, 2, 2]
  assert [example["id"] for example in images] == [
    "0/0.png", "1/0.png", "1/1.png", "2/0.png", "2/1.png", "2/2.png",
  ]  # fmt: skip
  assert images.example(5)["image"].startswith(b"\x89PNG")
  assert images.notes == (
    "7 classes have no image: 'three', 'four', 'five', 'six', 'seven' and 2 more.",
  )


def test_problematic_files_are_named_counted_and_never_used(named, tmp_path, capsys):
  (named / "0" / "cut.png").write_bytes((named / "0" / "0.png").read_bytes()[:45])
  (named / "0" / "bomb.png").write_bytes(_bomb())
  (named / "0" / "text.jpg").write_text("no image")
  (named / "0" / "empty.png").touch()
  (named / "0" / "readme.md").write_text("hello")
  (named / "0" / ".hidden.png").write_bytes(b"")
  (named / "0" / "link.png").symlink_to(named / "2" / "0.png")
  (named / "1" / "loop").symlink_to(named)
  (named / "7").symlink_to(tmp_path)
  os.mkfifo(named / "1" / "pipe.png")
  _write(named / "unicorn" / "0.png")
  (named / "2" / os.fsdecode(b"\xff\x1b[31m.png")).write_bytes((named / "2" / "0.png").read_bytes())
  images = open_user_images(named, SPEC, tmp_path / "cache")
  assert images.labels().tolist() == [0, 1, 1, 2, 2, 2, 2]
  notes = "\n".join(images.notes)
  assert "1 left out, not a class of 'digits': 'unicorn'." in notes
  assert "3 left out, symbolic links: '7', '0/link.png', '1/loop'." in notes
  assert "2 left out, not images: '0/readme.md', '1/pipe.png'." in notes
  assert "1 left out, empty or above 256 MB: '0/empty.png'." in notes
  assert "3 left out, can't be decoded: '0/bomb.png', '0/cut.png', '0/text.jpg'" in notes
  said = capsys.readouterr().err
  assert all(note in said for note in images.notes)
  assert "\x1b" not in said
  assert images.example(6)["id"] == "2/\\xff\x1b[31m.png"


def test_an_unchanged_folder_is_decoded_once(named, tmp_path, capsys):
  first = open_user_images(named, SPEC, tmp_path / "cache")
  capsys.readouterr()
  again = open_user_images(named, SPEC, tmp_path / "cache")
  assert (first.digest, first.notes) == (again.digest, again.notes)
  assert not capsys.readouterr().err
  (tmp_path / "cache" / f"{first.digest}.json").write_text('{"unreadable": [[1]]}')
  assert len(open_user_images(named, SPEC, tmp_path / "cache")) == len(first)
  _write(named / "2" / "3.png", 9)
  assert open_user_images(named, SPEC, tmp_path / "cache").digest != first.digest


def test_a_list_of_labels_stands_for_class_folders(folder, tmp_path):
  lines = [f"digit {label}/0.png,{label}" for label in range(3)] + ["gone.png,1", "x.png,unicorn"]
  (folder / "labels.csv").write_text("\n".join(["file,label", *lines]))
  images = open_user_images(folder, SPEC, tmp_path / "cache")
  assert images.labels().tolist() == [0, 1, 2]
  assert any("gone.png" in note for note in images.notes)
  (folder / "labels.csv").write_text("file,label\n../outside.png,1\n")
  with pytest.raises(UsageError, match="names files outside its folder"):
    open_user_images(folder, SPEC, tmp_path / "cache")


def test_mistakes_give_one_line(tmp_path, folder):
  with pytest.raises(UsageError, match="there is no folder"):
    open_user_images(tmp_path / "nowhere", SPEC, tmp_path)
  (tmp_path / "bare").mkdir()
  with pytest.raises(UsageError, match="has no class folders and no"):
    open_user_images(tmp_path / "bare", SPEC, tmp_path)
  (tmp_path / "bare" / "3").mkdir()
  with pytest.raises(UsageError, match="has no image of a class of 'digits'"):
    open_user_images(tmp_path / "bare", SPEC, tmp_path)
  (tmp_path / "bare" / "3" / "x.png").write_bytes(b"?")
  with pytest.raises(UsageError, match="has no image that can be read"):
    open_user_images(tmp_path / "bare", SPEC, tmp_path)


def test_grayscale_palette_and_16_bit_images_are_images(named, tmp_path):
  for place, mode in enumerate(("L", "P", "RGBA", "I;16", "CMYK")):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new(mode, (5, 9)).save(named / "0" / f"m{place}.{suffix}")
  images = open_user_images(named, SPEC, tmp_path / "cache")
  assert np.sum(images.labels() == 0) == 6
