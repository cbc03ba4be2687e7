"""Reading of untrusted files."""

import errno
import os
import socket
from pathlib import Path

import pytest

from genbench_jax.store.reading import opened_beneath, read_beneath, read_file, regular


@pytest.fixture
def root(tmp_path):
  (tmp_path / "root" / "deep" / "er").mkdir(parents=True)
  (tmp_path / "root" / "deep" / "er" / "file").write_bytes(b"content")
  (tmp_path / "outside").write_bytes(b"secret")
  return tmp_path / "root"


@pytest.mark.parametrize("name", ["deep/er/file", "./deep//er/./file", "/deep/er/file"])
def test_a_file_is_read_by_its_path_inside_the_folder(root, name):
  assert read_beneath(root, name, 7) == b"content"


def test_the_folder_itself_may_be_a_link(root, tmp_path):
  (tmp_path / "link").symlink_to(root)
  assert read_beneath(tmp_path / "link", "deep/er/file", 7) == b"content"


@pytest.mark.parametrize("name", ["../outside", "deep/../../outside", "", ".", "deep/er/.."])
def test_a_path_that_leaves_the_folder_is_rejected(root, name):
  with pytest.raises(OSError, match="is not a path inside a folder"):
    read_beneath(root, name, 100)


def test_links_are_not_followed_on_any_level(root, tmp_path):
  (root / "link").symlink_to(tmp_path / "outside")
  (root / "folder").symlink_to(root / "deep")
  (root / "deep" / "file").symlink_to(tmp_path / "none")
  for name in ("link", "folder/er/file", "deep/file"):
    with pytest.raises(OSError, match="a symbolic link, or not a folder, is in the way"):
      read_beneath(root, name, 100)


@pytest.mark.parametrize("name", ["deep/er/file/x", "none/x"])
def test_a_missing_folder_is_an_error(root, name):
  with pytest.raises(OSError):
    read_beneath(root, name, 100)


def test_only_regular_files_are_read(root):
  os.mkfifo(root / "pipe")
  for name in ("deep", "pipe"):
    with pytest.raises(OSError, match="not a regular file") as caught:
      read_beneath(root, name, 100)
    assert caught.value.errno == errno.EINVAL


def test_a_socket_is_no_regular_file(root, monkeypatch):
  monkeypatch.chdir(root)  # the name of a socket is short
  with socket.socket(socket.AF_UNIX) as server:
    server.bind("socket")
    with pytest.raises(OSError, match="not a regular file"):
      read_beneath(root, "socket", 100)


def test_a_zero_byte_is_no_name(root):
  with pytest.raises(OSError, match="zero byte"):
    read_beneath(root, "a\0b", 100)


@pytest.mark.parametrize("limit", [0, 6])
def test_a_file_above_the_limit_is_rejected(root, limit):
  with pytest.raises(OSError, match=f"larger than {limit} bytes") as caught:
    read_beneath(root, "deep/er/file", limit)
  assert caught.value.errno == errno.EFBIG
  with pytest.raises(OSError, match="larger than"):
    read_file(root / "deep" / "er" / "file", limit)


def test_a_large_file_is_read_piece_by_piece(tmp_path):
  content = os.urandom((1 << 20) + 5)
  (tmp_path / "large").write_bytes(content)
  assert read_beneath(tmp_path, "large", len(content)) == content
  with pytest.raises(OSError, match="larger than"):
    read_beneath(tmp_path, "large", len(content) - 1)


def test_a_named_file_may_be_a_link_if_asked(root, tmp_path):
  (tmp_path / "link").symlink_to(tmp_path / "outside")
  assert read_file(tmp_path / "link", 100, follow=True) == b"secret"
  with pytest.raises(OSError, match="symbolic link"):
    read_file(tmp_path / "link", 100)


def test_no_descriptor_stays_open(root, tmp_path):
  (root / "link").symlink_to(tmp_path / "outside")

  def count():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())

  before = count()
  with opened_beneath(root, "deep/er/file") as descriptor:
    assert os.read(descriptor, 3) == b"con"
  for name in ("link", "deep", "none", "../outside"):
    with pytest.raises(OSError):
      read_beneath(root, name, 100)
  assert count() == before


def test_libraries_are_given_regular_files_alone(root):
  path = root / "deep" / "er" / "file"
  assert regular(path) == path
  os.mkfifo(root / "pipe")
  for other in (root, root / "pipe"):
    with pytest.raises(OSError, match="not a regular file"):
      regular(other)
