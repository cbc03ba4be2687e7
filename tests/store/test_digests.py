"""Digests detect every change of a file, and files are read without following links."""

import hashlib
import os

import pytest

from genbench_jax.store import digests, reading
from genbench_jax.store.digests import FileDigests


def _sha(content):
  return hashlib.sha256(content).hexdigest()


@pytest.fixture
def settled(monkeypatch):
  """Treat every file as old enough to be cached."""
  monkeypatch.setattr(digests, "_RESOLUTION_NS", -(10**15))


def test_one_digest_is_pinned(tmp_path):
  (tmp_path / "a").write_bytes(b"abc")
  found = FileDigests(None).of([(tmp_path, "a"), (tmp_path, "missing")])
  assert found == ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", ""]


def test_an_unchanged_file_is_not_reread(tmp_path, settled, monkeypatch):
  memory = tmp_path / "memory.json"
  (tmp_path / "a").write_bytes(b"abc")
  FileDigests(memory).of([(tmp_path, "a")])
  monkeypatch.setattr(os, "read", None)
  assert FileDigests(memory).of([(tmp_path, "a")]) == [_sha(b"abc")]


def test_a_file_with_the_same_size_and_time_is_reread(tmp_path, settled):
  path, memory = tmp_path / "a", tmp_path / "memory.json"
  path.write_bytes(b"abc")
  FileDigests(memory).of([(tmp_path, "a")])
  about = path.stat()
  path.write_bytes(b"xyz")
  os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
  assert FileDigests(memory).of([(tmp_path, "a")]) == [_sha(b"xyz")]


def test_a_recently_changed_file_is_not_cached(tmp_path):
  (tmp_path / "a").write_bytes(b"abc")
  FileDigests(tmp_path / "memory.json").of([(tmp_path, "a")])
  assert not (tmp_path / "memory.json").exists()


def test_readers_write_nothing_and_a_damaged_cache_is_ignored(tmp_path, settled):
  (tmp_path / "a").write_bytes(b"abc")
  memory = tmp_path / "memory.json"
  FileDigests(memory, writes=False).of([(tmp_path, "a")])
  assert not memory.exists()
  for damaged in (b"{", b"[1]", b'{"k": 3}', b"\xff"):
    memory.write_bytes(damaged)
    assert FileDigests(memory, writes=False).of([(tmp_path, "a")]) == [_sha(b"abc")]


def test_file_names_are_not_disclosed(tmp_path, settled):
  (tmp_path / "secret").write_bytes(b"abc")
  FileDigests(tmp_path / "memory.json").of([(tmp_path, "secret")])
  assert "secret" not in (tmp_path / "memory.json").read_text()


@pytest.mark.parametrize("name", ["../a", "x/../../a", "", ".", "/"])
def test_nothing_outside_the_folder_is_read(tmp_path, name):
  (tmp_path / "a").write_bytes(b"abc")
  (tmp_path / "in").mkdir()
  with pytest.raises(OSError, match="not a path inside a folder"):
    reading.read_beneath(tmp_path / "in", name, 10)


def test_links_pipes_and_large_files_are_rejected(tmp_path):
  (tmp_path / "a").write_bytes(b"abc")
  (tmp_path / "link").symlink_to(tmp_path / "a")
  (tmp_path / "folder").symlink_to(tmp_path)
  os.mkfifo(tmp_path / "pipe")
  for name, message in (
    ("link", "symbolic link"), ("folder/a", "symbolic link"), ("pipe", "not a regular file"),
    ("a", "larger than 2 bytes"), ("b\0", "zero byte"),
  ):  # fmt: skip
    with pytest.raises(OSError, match=message):
      reading.read_beneath(tmp_path, name, 2)
  assert reading.read_beneath(tmp_path, "./a", 3) == b"abc"
  assert reading.read_file(tmp_path / "link", 3, follow=True) == b"abc"
  with pytest.raises(OSError, match="symbolic link"):
    reading.read_file(tmp_path / "link", 3)
