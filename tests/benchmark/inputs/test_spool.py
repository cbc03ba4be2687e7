"""Copies of images in one file."""

import os

import pytest

from genbench_jax.benchmark.inputs.spool import copy_name, spool_for
from genbench_jax.errors import RunError

IMAGES = [("0", ("cat",), b"first"), ("1", (), b""), ("2", ("dog", "cat"), b"the third")]


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "given.npz"
  path.write_bytes(b"content")
  return path


def test_images_are_read_in_any_order(source, tmp_path):
  spool = spool_for(tmp_path / "cache", "npz", [source]).fill(lambda: iter(IMAGES))
  assert [spool.read(row) for row in (2, 0, 1, 2)] == [b"the third", b"first", b"", b"the third"]
  images = spool.image_list(source, [source])
  assert images.root == source
  assert images.ids == ["0", "2"]
  assert images.classes == [("cat",), ("dog", "cat")]
  assert images.places == [(tmp_path, "given.npz")] * 2
  assert [images.read(index) for index in range(2)] == [b"first", b"the third"]
  assert images.notes == ("1 left out, without image bytes or class: '1'.",)


def test_images_are_copied_once(source, tmp_path):
  def again():
    raise AssertionError("copied twice")

  spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES))
  assert spool_for(tmp_path, "npz", [source]).fill(again).read(2) == b"the third"


def test_an_interrupted_copy_is_made_again(source, tmp_path):
  def interrupted():
    yield IMAGES[0]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    spool_for(tmp_path, "npz", [source]).fill(interrupted)
  spool = spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES))
  assert len(spool.rows) == 3 and spool.read(2) == b"the third"


def test_a_changed_file_and_another_kind_get_their_own_copies(source, tmp_path):
  before = spool_for(tmp_path, "npz", [source]).path
  assert spool_for(tmp_path, "parquet", [source]).path != before
  source.write_bytes(b"CONTENT")  # as long as before
  os.utime(source, ns=(1, 1))
  assert spool_for(tmp_path, "npz", [source]).path != before


def test_the_images_of_several_files_keep_their_places(source, tmp_path):
  other = tmp_path / "deeper" / "b.parquet"
  other.parent.mkdir()
  other.write_bytes(b"x")
  rows = [("given.npz/0", ("cat",), b"a"), ("b.parquet/0", ("dog",), b"b")]
  spool = spool_for(tmp_path, "parquet", [source, other]).fill(lambda: iter(rows))
  images = spool.image_list(tmp_path, [source, other])
  assert images.places == [(tmp_path, "given.npz"), (tmp_path / "deeper", "b.parquet")]
  assert len({tuple(mark) for mark in images.marks}) == 2


def test_a_deleted_copy_is_named(source, tmp_path):
  spool = spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES))
  spool.path.unlink()
  with pytest.raises(RunError, match=r"can't be read .* Run the same command again"):
    spool.read(0)


def test_a_copy_is_named_by_the_file_and_its_state(source):
  before = copy_name(source)
  assert copy_name(source) == before
  source.write_bytes(b"content!")
  assert copy_name(source) != before


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("change", ["content", "length", "seal", "no seal"])
def test_a_damaged_copy_is_made_again(source, tmp_path, change, settled, monkeypatch):
  """Also if its digest is remembered, as for files that have not changed for a while."""
  monkeypatch.setattr("genbench_jax.store.digests._RESOLUTION_NS", -(10**18) if settled else 10**18)
  path = spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES)).path
  spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES))
  seal, content = path.with_suffix(".json"), path.read_bytes()
  if change == "no seal":
    seal.unlink()
  elif change == "seal":
    seal.write_bytes(seal.read_bytes().replace(b"cat", b"dog"))
  else:
    path.write_bytes(content[:-1] if change == "length" else content.replace(b"third", b"THIRD"))
  again = spool_for(tmp_path, "npz", [source]).fill(lambda: iter(IMAGES))
  assert path.read_bytes() == content
  assert again.rows[0][1] == ["cat"] and again.read(2) == b"the third"
