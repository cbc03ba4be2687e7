"""An image's bytes are read from their place, and never more than allowed."""

import pytest

from genbench_jax.retrieval import place
from genbench_jax.retrieval.place import Place


@pytest.fixture
def path(tmp_path):
  (tmp_path / "shard.tar").write_bytes(bytes(range(20)))
  return tmp_path / "shard.tar"


def test_a_part_of_a_file_and_the_whole(path):
  assert Place(path, 3, 4).read() == bytes([3, 4, 5, 6])
  assert Place(path).read() == bytes(range(20))
  assert Place(path, 16, 4).read() == bytes([16, 17, 18, 19])


@pytest.mark.parametrize(("offset", "size"), [(17, 4), (20, 1), (-1, 3), (2**70, 1)])
def test_bytes_that_are_not_there_are_an_error(path, offset, size):
  with pytest.raises(OSError, match=r"cut short|no byte"):
    Place(path, offset, size).read()


def test_more_than_the_limit_is_an_error(path, monkeypatch):
  monkeypatch.setattr(place, "MAX_IMAGE_BYTES", 19)
  assert len(Place(path, 0, 19).read()) == 19
  for size in (-1, 20):
    with pytest.raises(OSError, match="exceeds the limit"):
      Place(path, 0, size).read()


def test_a_link_below_the_root_is_not_followed(path, tmp_path):
  (tmp_path / "pool").mkdir()
  (tmp_path / "pool" / "image.png").symlink_to(path)
  with pytest.raises(OSError):
    Place(tmp_path / "pool" / "image.png", root=tmp_path / "pool").read()


def test_a_place_without_a_size_is_the_whole_file_and_one_of_size_zero_is_empty(path):
  assert (Place(path).offset, Place(path).size) == (0, -1)
  assert Place(path, 3, 0).read() == b""
