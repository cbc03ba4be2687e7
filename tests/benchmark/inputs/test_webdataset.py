"""Webdataset shards with dots in names, several images of a key, and members that are no files."""

import io
import tarfile

import pytest
from PIL import Image

from genbench_jax.benchmark.inputs.archives import tar_images
from genbench_jax.errors import UsageError
from tests.tars import write_tar


def image(value):
  buffer = io.BytesIO()
  Image.new("RGB", (2, 2), (value, 0, 0)).save(buffer, format="PNG")
  return buffer.getvalue()


def shard(path, *members):
  return write_tar(path, members)


def listed(tmp_path, *paths):
  found = tar_images(paths, lambda name: False, tmp_path)
  contents = [found.read(index) for index in range(len(found.ids))]
  return list(zip(found.ids, (name for (name,) in found.classes), contents, strict=True)), found


def test_names_with_dots_are_examples_of_their_own(tmp_path):
  names = ("a.1", "a.2", "photo.v2", "22.05")
  members = []
  for number, name in enumerate(names):
    members += [(f"{name}.png", image(number)), (f"{name}.cls", b"%d" % number)]
  found, about = listed(tmp_path, shard(tmp_path / "0.tar", *members))
  assert found == [(f"{name}.png", str(n), image(n)) for n, name in enumerate(names)]
  assert about.notes == ()


def test_a_mask_is_not_taken_for_the_image(tmp_path):
  path = shard(tmp_path / "0.tar", ("a.cls", b"7"), ("a.mask.png", image(0)), ("a.png", image(9)))
  found, about = listed(tmp_path, path)
  assert found == [("a.png", "7", image(9))]
  assert about.notes == ("1 left out, without a class: 'a.mask.png'.",)


def test_the_class_of_a_key_goes_to_its_only_image(tmp_path):
  members = [("a.json", b'{"class": "cat"}'), ("a.rgb.png", image(1)), ("a.depth.png", image(2))]
  found, about = listed(tmp_path, shard(tmp_path / "0.tar", *members))
  assert found == [("a.rgb.png", "cat", image(1))]
  assert about.notes == ("1 left out, without a class: 'a.depth.png'.",)


def test_names_of_classes_come_before_indices(tmp_path):
  about = b'{"class_id": 3, "classname": " cat ", "label": [7], "category": null}'
  found, _ = listed(tmp_path, shard(tmp_path / "0.tar", ("a.png", image(1)), ("a.json", about)))
  assert found == [("a.png", "cat", image(1))]


def test_equal_keys_of_several_shards_and_a_second_image_of_a_key(tmp_path):
  first = shard(tmp_path / "0.tar", ("a.png", image(1)), ("a.cls", b"0"), ("a.jpg", image(5)))
  second = shard(tmp_path / "1.tar", ("a.cls", b"1"), ("a.png", image(2)))
  found, about = listed(tmp_path, first, second)
  assert found == [("a.png", "0", image(1)), ("a.png", "1", image(2))]
  assert about.notes == ("1 left out, not the first image of their key: 'a.jpg'.",)


def test_links_are_named(tmp_path):
  link = ("b.png", (tarfile.SYMTYPE, "/etc/passwd"))
  path = shard(tmp_path / "0.tar", ("a.png", image(1)), ("a.cls", b"0"), link)
  _, about = listed(tmp_path, path)
  assert about.notes == ("1 left out, links, devices or sparse files: 'b.png'.",)


def test_shards_without_a_class_are_rejected(tmp_path):
  path = shard(tmp_path / "0.tar", ("a.png", image(1)), ("a.json", b"{}"))
  with pytest.raises(UsageError, match="no image with a class"):
    listed(tmp_path, path)
