"""TFDS's own builders on miniature archives in the official layout. Preparing them requires TensorFlow."""

import importlib.util
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark import derived
from genbench_jax.benchmark.prepare import prepare
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec

pytestmark = [
  pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow"),
  pytest.mark.filterwarnings("default"),
]


def encoded(seed, size, kind="JPEG"):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


@pytest.fixture
def manual(tmp_path, monkeypatch):
  """The manual folder, with miniature files that pass for the official ones."""
  from tensorflow_datasets.core.download import download_manager

  monkeypatch.setattr(
    download_manager.DownloadManager, "_register_or_validate_checksums", lambda *_, **__: None
  )
  folder = tmp_path / "downloads" / "manual"
  folder.mkdir(parents=True)
  return folder


def write_zip(path, files):
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)


def dealt(spec, data_dir):
  """Return split -> {image bytes: label name}, each image in one split only."""
  found = {
    split: {e["image"]: spec.label_names[e["label"]] for e in open_split(spec, split, data_dir)}
    for split in spec.splits
  }
  assert len(set().union(*found.values())) == sum(map(len, found.values()))
  return found


def test_resisc45_is_split_per_class(manual, tmp_path, monkeypatch):
  monkeypatch.setitem(derived.DEALS, "resisc45", derived.PerClassDeal(1, 1, 2))
  spec = dataset_spec("resisc45")
  images = {}
  for label in spec.label_names:
    for number in range(5):
      path = manual / "NWPU-RESISC45" / label / f"{label}_{number + 1:03d}.jpg"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded(len(images), (256, 256)))
      images[path.read_bytes()] = label
  prepare(spec, tmp_path)
  found = dealt(spec, tmp_path)
  for split, count in {"train": 1, "validation": 1, "test": 2}.items():
    assert sorted(found[split].values()) == sorted(spec.label_names * count)
    assert found[split].items() <= images.items()


def test_eurosat_is_split_per_class(manual, tmp_path, monkeypatch):
  monkeypatch.setitem(derived.DEALS, "eurosat", derived.PerClassDeal(1, 1, 1))
  spec = dataset_spec("eurosat")
  files = {
    f"2750/{label}/{label}_{number}.jpg": encoded((place, number), (64, 64))
    for place, label in enumerate(spec.label_names)
    for number in range(1, 5)
  }
  write_zip(manual / "EuroSAT.zip", files)
  prepare(spec, tmp_path)
  labels = {content: name.split("/")[1] for name, content in files.items()}
  for images in dealt(spec, tmp_path).values():
    assert sorted(images.values()) == sorted(spec.label_names)
    assert images.items() <= labels.items()


KITTI_OBJECTS = {
  0: [("Car", 8.0), ("Pedestrian", 2.0)],
  1: [("Van", 20.0), ("Car", 90.0)],
  2: [("Truck", 20.01)],
  3: [("Pedestrian", 3.0), ("DontCare", -1000.0)],
}


def kitti_line(kind, depth):
  return f"{kind} 0.00 0 -1.50 10.00 10.00 20.00 20.00 1.50 1.60 4.00 0.10 1.50 {depth:.2f} 0.00"


def test_kitti_labels_depend_on_the_nearest_vehicle(manual, tmp_path):
  pytest.importorskip("cv2")
  spec = dataset_spec("kitti_distance")
  count = 12
  images, texts = {}, {}
  for number in range(count):
    image = np.full((30, 90, 3), 10 * number, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    images[f"training/image_2/{number:06d}.png"] = buffer.getvalue()
    lines = [kitti_line(*item) for item in KITTI_OBJECTS[number % 4]]
    texts[f"training/label_2/{number:06d}.txt"] = "\n".join(lines) + "\n"
  mapping = "\n".join(f"2011_09_26 video_{number // 2} {number:010d}" for number in range(count))
  order = ",".join(str(number + 1) for number in range(count))
  write_zip(manual / "data_object_image_2.zip", images)
  write_zip(manual / "data_object_label_2.zip", texts)
  write_zip(
    manual / "devkit_object.zip",
    {"mapping/train_rand.txt": order, "mapping/train_mapping.txt": mapping},
  )
  prepare(spec, tmp_path)
  seen = 0
  for split in spec.splits:
    for example in open_split(spec, split, tmp_path):
      gray = np.asarray(Image.open(io.BytesIO(example["image"])))[0, 0, 0]
      assert example["label"] == (gray // 10) % 4
      seen += 1
  assert seen == count
