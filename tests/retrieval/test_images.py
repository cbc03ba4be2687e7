"""Finding the images of a pool by the metadata of their rows."""

import io
from types import SimpleNamespace

import pytest
from PIL import Image

from genbench_jax.errors import UsageError
from genbench_jax.retrieval.images import ImageFinder, origin, remember_collection
from tests.tars import write_tar


def png(value):
  buffer = io.BytesIO()
  Image.new("RGB", (3, 3), (value, 0, 0)).save(buffer, "PNG")
  return buffer.getvalue()


@pytest.fixture
def finder(tmp_path):
  """Images in a folder and in two tars; the key `0001` is in both tars."""
  (tmp_path / "deep").mkdir()
  (tmp_path / "deep" / "a.png").write_bytes(png(1))
  write_tar(tmp_path / "x.tar", [("0001.png", png(1)), ("0002.png", png(2))])
  write_tar(tmp_path / "y.tar", [("0001.png", png(11)), ("0003.png", png(13))])
  return ImageFinder(SimpleNamespace(), str(tmp_path))


def read(finder, **line):
  place = finder.place(line)
  return None if place is None else place.read()


def test_an_image_is_found_by_its_path(finder):
  assert read(finder, image_path="deep/a.png") == png(1)
  assert read(finder, image_path=str(finder.root / "deep" / "a.png")) == png(1)


def test_an_image_in_a_tar_is_found_by_its_key_or_name(finder):
  assert read(finder, key="0002") == png(2)
  assert read(finder, key="0003") == png(13)
  assert read(finder, image_path="0003.png") == png(13)
  assert read(finder, image_path="none.png", key="0002") == png(2)


def test_an_ambiguous_key_finds_nothing(finder):
  assert read(finder, key="0001") is None


def test_a_place_inside_a_tar_is_taken_as_it_is(finder):
  found = finder.place({"key": "0002"})
  assert read(finder, tar="x.tar", offset=found.offset, size=found.size) == png(2)


@pytest.mark.parametrize(
  "line",
  [
    {},
    {"key": "0009"},
    {"image_path": "../outside.png"},
    {"image_path": "/etc/hostname"},
    {"image_path": "deep"},
    {"tar": "x.tar"},
    {"tar": "x.tar", "offset": -1, "size": 3},
    {"tar": "x.tar", "offset": 0, "size": -2},
    {"tar": "x.tar", "offset": "0", "size": 3},
    {"tar": "none.tar", "offset": 0, "size": 3},
    {"tar": "../x.tar", "offset": 0, "size": 3},
  ],
)
def test_other_lines_find_nothing(finder, line, tmp_path):
  (tmp_path.parent / "outside.png").write_bytes(png(9))
  assert finder.place(line) is None


@pytest.mark.parametrize(("offset", "size"), [(0, -1), (0, 0), (5, 7)])
def test_the_smallest_offset_and_sizes_are_places(finder, offset, size):
  place = finder.place({"tar": "x.tar", "offset": offset, "size": size})
  assert (place.offset, place.size) == (offset, size)


def pool(folder, **manifest):
  return SimpleNamespace(folder=folder, manifest=manifest)


@pytest.mark.parametrize("manifest", [{}, {"collection": ""}, {"collection": 3}])
def test_a_pool_that_names_no_folder_has_no_images(tmp_path, manifest):
  finder = ImageFinder(pool(tmp_path, **manifest), "")
  assert finder.root is None and finder.tars == []
  assert finder.place({"image_path": "deep/a.png"}) is None


def test_a_pool_may_name_a_folder_inside_itself(tmp_path):
  assert ImageFinder(pool(tmp_path, collection="in"), "").root == (tmp_path / "in").resolve()


def test_a_folder_elsewhere_is_allowed_to_the_pool_that_was_made_from_it(tmp_path):
  elsewhere = tmp_path / "elsewhere"
  ours, other = (pool(tmp_path / name, collection=str(elsewhere)) for name in ("ours", "other"))
  with pytest.raises(UsageError, match="outside of the pool"):
    ImageFinder(ours, "")
  remember_collection(ours.folder, elsewhere)
  assert ImageFinder(ours, "").root == elsewhere.resolve()
  with pytest.raises(UsageError, match="outside of the pool"):
    ImageFinder(other, "")


@pytest.mark.parametrize(
  ("line", "shown"),
  [
    ({"url": "http://x/1", "image_path": "a.png", "key": "1"}, "http://x/1"),
    ({"tar": "x.tar", "image_path": "a.png", "key": "1"}, "x.tar/a.png"),
    ({"tar": "", "image_path": "a.png", "url": None}, "a.png"),
    ({"key": "1"}, "1"),
    ({}, ""),
  ],
)
def test_the_origin_of_an_image_is_its_url_or_path_or_key(line, shown):
  assert origin(line) == shown
