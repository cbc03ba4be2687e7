"""Digests detect every change of a file, and files are read without following links."""

import hashlib
import json
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


@pytest.mark.parametrize(
  ("changed", "inode", "settled"),
  [
    ((2_000_000_001, 2_000_000_001), 0, True),
    # Modified two seconds ago: FAT's clock may not have moved since.
    ((2_000_000_000, 9_000_000_000), 0, False),
    ((9_000_000_000, 2_000_000_000), 0, False),
    ((9_000_000_000, 9_000_000_000), 10**18, True),  # an inode is no time
  ],
)
def test_a_file_is_settled_two_seconds_after_its_last_change(monkeypatch, changed, inode, settled):
  now = 10**18
  monkeypatch.setattr(digests.time, "time_ns", lambda: now)
  modified, status = (now - ago for ago in changed)
  assert digests._is_settled((3, modified, status, inode)) == settled
  assert not digests._is_settled(())  # changed while it was read


def test_the_memory_of_an_earlier_version_is_used(tmp_path, monkeypatch):
  path, memory = tmp_path / "a", tmp_path / "memory.json"
  path.write_bytes(b"abc")
  key = _sha(os.fsencode(path.absolute()))[:24]
  memory.write_text(json.dumps({key: ["remembered", *digests.identity(path.stat())]}))
  assert FileDigests(memory).of([(tmp_path, "a")]) == ["remembered"]


def test_the_memory_does_not_depend_on_the_order_of_the_files(tmp_path, settled):
  places = [(tmp_path, name) for name in "abcdef"]
  for _, name in places:
    (tmp_path / name).write_bytes(name.encode())
  FileDigests(tmp_path / "one").of(places)
  FileDigests(tmp_path / "other").of(places[::-1])
  assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
