"""Exported image sets and features are readable by the tools that they are exported for."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from genbench_jax.cli.export import main
from genbench_jax.cli.show import main as show
from genbench_jax.export.records import class_folder, safe
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_bytes import UNREADABLE
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout, ImageSetWriter, encode_png

NAMES = (
  "three",
  "../../up",
  "a/b\\c",
  "three",
  "CON",
  "ein schöner Fluß",
  "\u202egnp.exe",
  "x" * 300,
)
HOSTILE = 'say "no",\n<b>{}</b> =cmd|calc'


def picture(index):
  return np.full((8, 8 + index % 3, 3), 10 * index, np.uint8)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
  """Two images per class; the second of class 0 is a JPEG and the second of class 1 a GIF."""
  folder = tmp_path_factory.mktemp("set") / "images"
  layout = ImageSetLayout("digits_generative", NAMES, 16, 6, {"steps": 8})
  records = [
    ImageRecord(encode_png(picture(index)), index % 8, index, HOSTILE, "blurry", 7)
    for index in range(16)
  ]
  for index, form in ((8, "JPEG"), (9, "GIF")):
    buffer = io.BytesIO()
    Image.fromarray(picture(index)).save(buffer, format=form)
    records[index] = ImageRecord(buffer.getvalue(), index % 8, index, origin="train/7")
  writer = ImageSetWriter(folder, layout)
  for shard in writer.missing_shards():
    writer.write_shard(shard, [records[i] for i in layout.shard_range(shard)])
  writer.close()
  return folder


def test_image_folder_follows_torchvisions_rules(image_set, tmp_path):
  out = tmp_path / "out"
  assert main([str(image_set), "--to", "imagefolder", str(out)]) == 0
  classes = sorted(path.name for path in out.iterdir() if path.is_dir())
  assert [int(name[:4]) for name in classes] == list(range(8))
  assert classes[0] == "0000_three"
  assert classes[3] == "0003_three"
  files = sorted(out.glob("*/*"))
  assert len(files) == 16
  assert {path.suffix for path in files} == {".png", ".jpg"}
  with (out / "metadata.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert [int(row["index"]) for row in rows] == list(range(16))
  assert rows[0]["prompt"] == HOSTILE
  assert rows[9]["origin"] == "train/7"
  for row in rows:
    assert int(row["label"]) == int(row["file_name"][:4])
    with Image.open(out / row["file_name"]) as image:
      assert image.size == (8 + int(row["index"]) % 3, 8)


def test_hugging_face_loads_it(image_set, tmp_path, monkeypatch):
  datasets = pytest.importorskip("datasets")
  monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
  out = tmp_path / "out"
  assert main([str(image_set), "--to", "hf", str(out)]) == 0
  loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
  assert len(loaded) == 16
  by_index = {row["index"]: row for row in loaded}
  assert by_index[5]["prompt"] == HOSTILE
  assert by_index[5]["label"] == 5
  assert by_index[5]["class_name"] == NAMES[5]
  np.testing.assert_array_equal(np.asarray(by_index[5]["image"]), picture(5))
  assert json.loads((out / "class_names.json").read_text()) == list(NAMES)


def test_webdataset_shards_contain_every_example_and_are_reproducible(image_set, tmp_path):
  outs = [tmp_path / "a", tmp_path / "b"]
  for out in outs:
    assert main([str(image_set), "--to", "webdataset", str(out)]) == 0
  (shard,) = outs[0].iterdir()
  assert shard.name == "digits_generative-000000.tar"
  assert shard.read_bytes() == (outs[1] / shard.name).read_bytes()
  with tarfile.open(shard) as tar:
    files = {member.name: tar.extractfile(member).read() for member in tar}
  # In WebDataset, consecutive files that share a name up to the first dot form an example.
  stems = [name.partition(".")[0] for name in files]
  assert stems == [f"{index:08d}" for index in range(16) for _ in range(3)]
  assert files["00000013.cls"] == b"5"
  assert json.loads(files["00000013.json"])["prompt"] == HOSTILE
  with Image.open(io.BytesIO(files["00000005.png"])) as image:
    np.testing.assert_array_equal(np.asarray(image), picture(5))


def test_features_include_the_moments_that_fid_tools_read(tmp_path):
  generator = np.random.default_rng(0)
  features = generator.normal(size=(30, 4)).astype(np.float32)
  valid = np.ones(30, np.uint8)
  valid[3] = 0
  labels, ids = np.arange(30, dtype=np.int32) % 3, np.arange(30)
  source, out = tmp_path / "set.safetensors", tmp_path / "set.npz"
  embedding_set.save(source, EmbeddingSet(features, labels, ids, valid), {})
  assert main([str(source), "--to", "npz", str(out)]) == 0
  kept = np.delete(features, 3, axis=0)
  with np.load(out) as found:
    assert len(found["features"]) == len(found["labels"]) == 29
    np.testing.assert_allclose(found["mu"], kept.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["sigma"], np.cov(kept.T), atol=1e-6)
  assert main([str(source), "--to", "npz", str(out)]) == 2
  assert main([str(source), "--to", "npz", str(tmp_path / "unit.npz"), "--unit-norm"]) == 0
  with np.load(tmp_path / "unit.npz") as found:
    np.testing.assert_allclose(np.linalg.norm(found["features"], axis=1), 1, rtol=1e-6)


def test_nothing_is_overwritten_or_left_incomplete(image_set, tmp_path, capfd, monkeypatch):
  out = tmp_path / "out"
  out.mkdir()
  (out / "mine.txt").touch()
  assert main([str(image_set), "--to", "hf", str(out)]) == 2
  assert "is not an empty folder" in capfd.readouterr().err
  assert main([str(image_set.parent), "--to", "hf", str(tmp_path / "new")]) == 2
  assert f"Found: {image_set}" in capfd.readouterr().err

  def full(*_):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patched:
    patched.setattr("pathlib.Path.write_bytes", full)
    assert main([str(image_set), "--to", "imagefolder", str(tmp_path / "new")]) == 1
  assert "No space left" in capfd.readouterr().err
  assert not (tmp_path / "new").exists()
  assert main([str(image_set), "--to", "imagefolder", str(tmp_path / "new")]) == 0


def test_file_names_are_safe():
  for name in NAMES:
    assert safe(name).replace("_", "").replace("-", "").isalnum()
    assert len(safe(name)) <= 60
  assert safe("") == safe("???") == "class"
  assert class_folder(12, ("x",) * 20_000) == "00012_x"


def test_contact_sheet(image_set, tmp_path, capfd):
  out = tmp_path / "sheet.png"
  assert show([str(image_set), "--out", str(out), "--per-class", "2", "--classes", "5"]) == 0
  with Image.open(out) as sheet:
    assert sheet.size == (2 * 24 + 190 + 2 * 102, 3 * 24 + 16 + 5 * 102)
    # Class 0, first image is black; the sheet scales an 8 x 8 image to 96 x 96.
    assert sheet.getpixel((24 + 190 + 48, 64 + 48)) == (0, 0, 0)
  assert show([str(tmp_path), "--out", str(out)]) == 2
  assert capfd.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("form", ["imagefolder", "webdataset"])
def test_images_that_cannot_be_decoded_are_left_out(tmp_path, form, capsys):
  layout = ImageSetLayout("digits_original", ("zero",), 3, 3, {})
  records = [ImageRecord(encode_png(picture(index)), 0, index) for index in range(3)]
  records[1] = ImageRecord(UNREADABLE, 0, 1, origin="train/0000007")
  writer = ImageSetWriter(tmp_path / "set", layout)
  writer.write_shard(0, records)
  writer.close()
  assert main([str(tmp_path / "set"), "--to", form, str(tmp_path / "out")]) == 0
  assert "1 left out, can't be decoded: 'train/0000007'." in capsys.readouterr().err
  found = [path.name for path in (tmp_path / "out").rglob("*")]
  for path in (tmp_path / "out").glob("*.tar"):
    with tarfile.open(path) as tar:
      found += tar.getnames()
  assert "00000002.png" in found and "00000001.png" not in found
