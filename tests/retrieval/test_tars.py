"""Caption files of a tar are read up to their limit."""

import io

import pytest
from PIL import Image

from genbench_jax.retrieval import tars
from genbench_jax.retrieval.captions import MAX_CAPTION_BYTES
from genbench_jax.retrieval.tars import tar_listing
from tests.tars import write_tar


def png():
  held = io.BytesIO()
  Image.new("RGB", (3, 3)).save(held, "PNG")
  return held.getvalue()


@pytest.mark.parametrize(("more", "caption"), [(0, "a cat"), (1, "")])
def test_a_caption_file_of_a_mebibyte_is_read_and_a_longer_one_is_not(tmp_path, more, caption):
  assert MAX_CAPTION_BYTES == 1024**2
  text = b"a cat".ljust(MAX_CAPTION_BYTES + more)
  write_tar(tmp_path / "x.tar", [("1.png", png()), ("1.txt", text)])
  (entry,) = tar_listing(tmp_path / "x.tar").entries
  assert entry.caption == caption


@pytest.mark.parametrize(("room", "names"), [(0, ["1.png", "2.png"]), (-1, [])])
def test_images_up_to_the_limit_are_listed(tmp_path, monkeypatch, room, names):
  monkeypatch.setattr(tars, "MAX_IMAGE_BYTES", len(png()) + room)
  path = write_tar(tmp_path / "x.tar", [("1.png", png()), ("2.png", png())])
  entries, left_out = tar_listing(path)
  assert [entry.name for entry in entries] == names
  assert left_out == 2 - len(names)


def test_files_without_a_suffix_are_images_by_their_content_alone(tmp_path):
  images = [("photo", png()), ("other photo", png())]
  others = [("empty", b""), ("README", b"text"), ("x.bin", png()), ("x.bin.", png())]
  path = write_tar(tmp_path / "x.tar", images + others)
  entries, left_out = tar_listing(path)
  assert [entry.name for entry in entries] == ["photo", "other photo"]
  assert left_out == 0
