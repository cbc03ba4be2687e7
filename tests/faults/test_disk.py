"""Full, read-only or damaged disks: a clear error, no loss of complete files, and resumption."""

import os
import subprocess

import numpy as np
import pytest

from genbench_jax.errors import RunError, UsageError
from genbench_jax.store import embedding_set, files
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetLayout, ImageSetWriter
from genbench_jax.store.rows import read_rows, write_rows
from genbench_jax.store.workdir import locked

LAYOUT = ImageSetLayout("world_generative", ("a", "b"), 24, 4, {})


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 1 MB; a shard needs at least 128 KB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
    capture_output=True,
    check=False,
  )
  if done.returncode:
    pytest.skip("file systems can't be mounted here")
  yield folder
  subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _records(shard):
  rng = np.random.default_rng(shard)
  return [
    ImageRecord(rng.bytes(50_000), index % 2, index, "prompt")
    for index in LAYOUT.shard_range(shard)
  ]


def test_a_full_disk_loses_nothing_and_the_set_resumes_when_there_is_space(small_disk):
  ballast = small_disk / "ballast"
  ballast.write_bytes(bytes(400_000))
  folder = small_disk / "set"
  writer = ImageSetWriter(folder, LAYOUT)
  with pytest.raises(RunError, match=r"can't write .*array_record.*: No space left on device"):
    for shard in writer.missing_shards():
      writer.write_shard(shard, _records(shard))
  ballast.unlink()
  again = ImageSetWriter(folder, LAYOUT)
  missing = again.missing_shards()
  assert 0 < len(missing) < LAYOUT.num_shards
  kept = {path.name: path.read_bytes() for path in folder.glob("*-of-*")}
  assert len(kept) == LAYOUT.num_shards - len(missing)
  assert not list(folder.glob(".*.part"))
  subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
  for shard in missing:
    again.write_shard(shard, _records(shard))
  again.close().verify()
  assert all((folder / name).read_bytes() == data for name, data in kept.items())


def test_a_full_disk_is_reported_for_every_kind_of_file(small_disk):
  (small_disk / "old.json").write_text("1")
  with pytest.raises(RunError, match=r"can't write .*old.json: No space left.*intact"):
    files.write_json(small_disk / "old.json", "x" * 2_000_000)
  assert files.read_json(small_disk / "old.json") == 1
  many = np.zeros((10_000, 64), np.float32)
  ids = np.arange(10_000)
  with pytest.raises(RunError, match=r"can't write .*x.safetensors: No space left"):
    embedding_set.save(
      small_disk / "x.safetensors",
      EmbeddingSet(many, ids.astype(np.int32), ids, np.ones(10_000, np.uint8)),
      {},
    )
  with pytest.raises(RunError, match=r"can't keep 2 MiB in .*: No space left.*Make room"):
    files.scratch_array(small_disk, (2**21,))
  assert [path.name for path in small_disk.iterdir()] == ["old.json"]


def test_a_read_only_work_folder_is_a_usage_error(small_disk):
  subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
  refused = pytest.raises(UsageError, match=r"can't be written to: Read-only file system")
  with refused, locked(small_disk):
    pass
  with pytest.raises(RunError, match=r"can't write .*rows.jsonl: Read-only file system"):
    files.write_json_lines(small_disk / "rows" / "rows.jsonl", [])


def _features(count=7, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.arange(count)
  return EmbeddingSet(
    rng.normal(size=(count, 5)).astype(np.float32),
    ids.astype(np.int32),
    ids,
    np.ones(count, np.uint8),
  )


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_a_flipped_bit_anywhere_in_features_is_detected(tmp_path, place):
  path = tmp_path / "x.safetensors"
  embedding_set.save(path, _features(), {"clip": "c"})
  data = bytearray(path.read_bytes())
  data[len(data) * place // 100] ^= 1 << place % 8
  path.write_bytes(bytes(data))
  with pytest.raises(RunError, match=f"{path} is damaged"):
    embedding_set.load(path)


def test_truncated_features_are_detected(tmp_path):
  path = tmp_path / "x.safetensors"
  embedding_set.save(path, _features(), {"clip": "c"})
  data = path.read_bytes()
  for size in (0, 4, 8, 100, len(data) - 1):
    path.write_bytes(data[:size])
    with pytest.raises(RunError, match=r"x.safetensors is damaged"):
      embedding_set.load(path)


def test_joined_parts_equal_the_file_of_one_run(tmp_path):
  whole = _features(10)
  embedding_set.save(tmp_path / "whole", whole, {"clip": "c"})
  parts = EmbeddingParts(tmp_path / "joined", 10, {"clip": "c"}, rows=4)
  assert [len(one) for one in parts.ranges] == [4, 4, 2]
  for part in (2, 0):
    rows = parts.ranges[part]
    parts.write(part, whole.take(slice(rows.start, rows.stop)))
  assert not parts.is_whole() and parts.is_missing(1)
  parts.write(1, whole.take(slice(4, 8)))
  parts.join()
  assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
  assert not parts.folder.exists()


def test_damaged_rows_are_named(tmp_path):
  path = tmp_path / "rows.jsonl"
  write_rows(path, [{"value": 1.5}, {"value": 2.5}])
  whole = path.read_bytes()
  assert read_rows([path]) == [{"value": 1.5}, {"value": 2.5}]
  flipped = whole.replace(b"1.5", b"1.4")
  lines = whole.splitlines(keepends=True)
  for damaged in (b"", whole[:-9], b"".join(lines[:-1]), b"".join(lines[1:]), flipped):
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"rows.jsonl is damaged"):
      read_rows([path])
  for damaged in (b"\xff" + whole, b"1.\x005\n", b"[1]\n" + whole):
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"rows.jsonl is damaged"):
      files.read_json_lines(path)


def test_a_damaged_manifest_is_named(tmp_path):
  ImageSetWriter(tmp_path, LAYOUT)
  (tmp_path / "manifest.json").write_text('{"num_images": ')
  with pytest.raises(RunError, match=r"manifest.json is damaged"):
    ImageSet(tmp_path)


def test_truncated_labels_and_labels_with_objects_are_rejected(tmp_path):
  writer = ImageSetWriter(tmp_path, LAYOUT)
  for shard in writer.missing_shards():
    writer.write_shard(shard, _records(shard))
  images = writer.close()
  path = tmp_path / "labels.npy"
  whole = path.read_bytes()
  np.save(path, np.array([print], object), allow_pickle=True)
  for data in (path.read_bytes(), whole[:-1], whole[:40], b"", b"junk"):
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"labels.npy is damaged"):
      _ = images.labels


def test_a_damaged_seal_has_its_shard_made_again(tmp_path):
  writer = ImageSetWriter(tmp_path, LAYOUT)
  writer.write_shard(0, _records(0))
  for text in ("", "[]", '{"images": 4}'):
    (tmp_path / "seals" / "00000.json").write_text(text)
    assert 0 in writer.missing_shards()


def test_nothing_depends_on_the_wall_clock(tmp_path, monkeypatch):
  """The clock jumps by years between any two calls, and file times are in the future."""
  import itertools
  import time

  jumps = itertools.cycle([4e9, 0.0, 1e9])
  monkeypatch.setattr(time, "time", lambda: next(jumps))
  writer = ImageSetWriter(tmp_path, LAYOUT)
  for shard in writer.missing_shards():
    writer.write_shard(shard, _records(shard))
    os.utime(next(tmp_path.glob(f"*-{shard:05d}-of-*")), (next(jumps), next(jumps)))
  assert not ImageSetWriter(tmp_path, LAYOUT).missing_shards()
  writer.close().verify()
