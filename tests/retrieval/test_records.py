"""TFDS datasets as pools: laion400m's features, its images, and both file formats."""

import dataclasses
import shutil

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

import genbench_jax as gb
from genbench_jax.cli.embed import main
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.collection import open_collection
from genbench_jax.retrieval.images import ImageFinder
from genbench_jax.retrieval.place import Place
from genbench_jax.retrieval.pool import open_pool
from genbench_jax.retrieval.records import RecordFile, record_files, text_of
from genbench_jax.store import files


def _embed(folder, out, clip_folder):
  return main([str(folder), f"--out={out}", f"--checkpoint={clip_folder}", "--batch-per-device=1"])


def _numbers(pool):
  """Which example each row of the pool is of: TFDS shuffles them."""
  lines = pool.metadata(range(len(pool)))
  return [int(lines[index]["url"].split("/")[-1].split(".")[0]) for index in range(len(pool))]


def test_features_are_copied_with_captions_and_urls(laion, tmp_path, row, capfd):
  assert _embed(laion["embeddings"], tmp_path / "pool", "no/such/clip") == 0
  pool = open_pool(tmp_path / "pool")
  assert [len(pool.of(modality)) for modality in ("image", "text")] == [2, 2]
  numbers = _numbers(pool)
  assert sorted(numbers) == list(range(len(pool)))
  for modality, offset in (("image", 0), ("text", 100)):
    wanted = np.stack([row(offset + number) for number in numbers]).astype(np.float32)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(pool.features(modality, np.arange(len(pool))), wanted, atol=1e-4)
  assert pool.metadata([0])[0]["caption"] == f"photo of number {numbers[0]}"
  assert pool.manifest == {"rows": 7, "captions": 7, "left_out": 0, "unreadable": 0}
  assert _embed(laion["embeddings"], tmp_path / "pool", "no/such/clip") == 0
  assert "nothing to do" in capfd.readouterr().err


def test_images_are_embedded_and_found_again(laion, tmp_path, png, clip_folder):
  assert _embed(laion["images"], tmp_path / "pool", clip_folder) == 0
  pool = open_pool(tmp_path / "pool")
  finder = ImageFinder(pool, "")  # from the folder that the command was given
  lines = pool.metadata(range(len(pool)))
  for index, number in enumerate(_numbers(pool)):
    content = finder.place(lines[index]).read()
    assert content == png(number) and lines[index]["sha256"] == _sha256(content, tmp_path)
  images = gb.embed_images([_file(tmp_path, png, n) for n in _numbers(pool)], clip_folder)
  images /= np.linalg.norm(images, axis=1, keepdims=True)
  np.testing.assert_allclose(pool.features("image", np.arange(len(pool))), images, atol=1e-3)


def _sha256(content, folder):
  (folder / "one").write_bytes(content)
  return files.sha256(folder / "one")


def _file(folder, png, number):
  path = folder / f"{number}.png"
  path.write_bytes(png(number))
  return path


@pytest.fixture
def as_tfrecord(laion, tmp_path):
  """laion400m/images with its files as TFRecord, written by TensorBoard's own writer."""
  from array_record.python.array_record_module import ArrayRecordReader

  folder = tmp_path / "tfrecord"
  folder.mkdir()
  shutil.copy(laion["images"] / "dataset_info.json", folder)
  for path in record_files(laion["images"]):
    reader = ArrayRecordReader(str(path))
    writer = RecordWriter(str(folder / path.name.replace("array_record", "tfrecord")))
    for content in reader.read(list(range(reader.num_records()))):
      writer.write(content)
    writer.close()
  return folder


def test_tfrecords_hold_the_same(laion, as_tfrecord):
  arrays, records = (open_collection(folder, 10) for folder in (laion["images"], as_tfrecord))
  for one, other in zip(arrays, records, strict=True):
    ours, theirs = one.listing().entries, other.listing().entries
    assert one.listing().left_out == 0
    plain = [dataclasses.replace(entry, place=Place(one.root)) for entry in (*ours, *theirs)]
    assert plain[: len(ours)] == plain[len(ours) :] and len(ours) > 1
    assert [e.place.read() for e in ours] == [e.place.read() for e in theirs]


def test_damaged_files_end_in_one_line(laion, as_tfrecord, tmp_path):
  (first, *_) = record_files(as_tfrecord)
  whole = first.read_bytes()
  first.write_bytes(whole[:-3])
  with pytest.raises(RunError, match="cut short"):
    open_collection(as_tfrecord, 10)
  first.write_bytes(whole[:12] + b"\xff" * 20 + whole[32:])
  with pytest.raises(RunError, match="can't be read as a record file"):
    open_collection(as_tfrecord, 10)
  array = tmp_path / record_files(laion["images"])[0].name
  array.write_bytes(b"nothing like records")
  with pytest.raises(RunError, match="can't be read as a record file"):
    RecordFile(array)
  with pytest.raises(OSError, match="has no image"):
    Place(record_files(laion["embeddings"])[0], 0).read()


def test_other_datasets_are_refused(laion, tmp_path):
  shutil.copy(laion["images"] / "dataset_info.json", tmp_path)
  with pytest.raises(UsageError, match="holds no records with an 'image'"):
    open_collection(tmp_path, 10)


def test_a_text_that_is_missing_or_broken_is_text():
  assert text_of({}, "caption") == ""
  assert text_of({"caption": [b"\xff"]}, "caption") == "\ufffd"
