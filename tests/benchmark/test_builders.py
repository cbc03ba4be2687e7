"""The six builders with the real `download_and_prepare`, on miniature archives in the official layout."""

import csv
import hashlib
import http.server
import io
import json
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.archives import Archive
from genbench_jax.benchmark.builders import BUILDERS, builder_class
from genbench_jax.benchmark.prepare import prepare
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.errors import RunError
from tests.tars import write_tar


def encoded(seed, kind="JPEG", size=(12, 8)):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


def write_tgz(path, files):
  write_tar(path, files.items(), "w:gz")


def write_zip(path, files):
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)


@pytest.fixture
def manual(tmp_path):
  folder = tmp_path / "downloads" / "manual"
  folder.mkdir(parents=True)
  return folder


@pytest.fixture
def official(monkeypatch):
  """Make the miniature archives pass for the official ones: set their checksums, prevent downloads."""

  def publish(name, folder):
    archives = tuple(
      Archive(
        archive.filename, "", hashlib.md5((folder / archive.filename).read_bytes()).hexdigest()
      )
      for archive in builder_class(name).ARCHIVES
    )
    monkeypatch.setattr(builder_class(name), "ARCHIVES", archives)

  return publish


def read(name, data_dir):
  """Return split -> {image bytes: label name}."""
  spec = dataset_spec(name)
  splits = {split: open_split(spec, split, data_dir) for split in spec.splits}
  return {
    split: {example["image"]: spec.label_names[example["label"]] for example in examples}
    for split, examples in splits.items()
  }


FOLDER_SETS = {
  "country211": ("country211.tgz", "country211", ("AD", "ZW"), "jpg", "JPEG"),
  "rendered_sst2": ("rendered-sst2.tgz", "rendered-sst2", ("positive", "negative"), "png", "PNG"),
}


def folder_files(root, labels, suffix, kind):
  """Two images of each label in each split, and files around them that are not images."""
  images, expected = {}, {"train": {}, "validation": {}, "test": {}}
  folders = zip(("train", "valid", "test"), expected, strict=True)
  for folder, split in folders:
    for label in labels:
      for number in range(2):
        content = encoded(len(images), kind)
        images[f"{root}/{folder}/{label}/{number}.{suffix}"] = content
        expected[split][content] = label
  return {"README": b"hello", f"{root}/train/AD/._0.jpg": b"", **images}, expected


@pytest.mark.parametrize("name", FOLDER_SETS)
def test_folder_archives(name, manual, official, tmp_path):
  archive, root, labels, suffix, kind = FOLDER_SETS[name]
  files, expected = folder_files(root, labels, suffix, kind)
  write_tgz(manual / archive, files)
  official(name, manual)
  prepare(dataset_spec(name), tmp_path)
  assert read(name, tmp_path) == expected


def aircraft_files():
  variants = dataset_spec("fgvc_aircraft").label_names
  root = "fgvc-aircraft-2013b/data"
  files = {f"{root}/variants.txt": "\n".join(variants).encode() + b"\n"}
  expected = {"train": {}, "validation": {}, "test": {}}
  for place, split in enumerate(expected):
    lines = []
    for number in range(3):
      image, variant = f"{place}{number:06d}", variants[(7 * place + 35 * number) % 100]
      content = encoded((place, number))
      files[f"{root}/images/{image}.jpg"] = content
      expected[split][content] = variant
      lines.append(f"{image} {variant}\n")
    official_name = {"validation": "val"}.get(split, split)
    files[f"{root}/images_variant_{official_name}.txt"] = "".join(lines).encode()
  return files, expected


def test_fgvc_aircraft(manual, official, tmp_path):
  files, expected = aircraft_files()
  assert any(" " in variant for labels in expected.values() for variant in labels.values())
  write_tgz(manual / "fgvc-aircraft-2013b.tar.gz", files)
  official("fgvc_aircraft", manual)
  prepare(dataset_spec("fgvc_aircraft"), tmp_path)
  assert read("fgvc_aircraft", tmp_path) == expected


def test_fgvc_aircraft_that_lacks_an_image_names_it(manual, official, tmp_path):
  files, _ = aircraft_files()
  del files["fgvc-aircraft-2013b/data/images/1000001.jpg"]
  write_tgz(manual / "fgvc-aircraft-2013b.tar.gz", files)
  official("fgvc_aircraft", manual)
  with pytest.raises(RunError, match=r"lacks 1 of 3 listed images, such as '1000001\.jpg'"):
    prepare(dataset_spec("fgvc_aircraft"), tmp_path)


def test_gtsrb_stores_the_same_pixels_as_png(manual, official, tmp_path):
  ppm = {place: encoded(place, "PPM") for place in range(4)}
  write_zip(
    manual / "GTSRB-Training_fixed.zip",
    {
      "GTSRB/Training/00000/00000_00000.ppm": ppm[0],
      "GTSRB/Training/00042/00001_00000.ppm": ppm[1],
      "GTSRB/Training/00042/GT-00042.csv": b"Filename;...",
      "GTSRB/Readme-Images.txt": b"",
    },
  )
  write_zip(
    manual / "GTSRB_Online-Test-Images-Sorted.zip",
    {"GTSRB/Online-Test-sort/00014/00000.ppm": ppm[2], "GTSRB/Online-Test-sort/Images/1.ppm": b""},
  )
  write_zip(
    manual / "GTSRB_Final_Test_Images.zip",
    {"GTSRB/Final_Test/Images/00000.ppm": ppm[3], "GTSRB/Final_Test/Images/00001.ppm": b"broken"},
  )
  truth = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;53;54;6;5;48;49;16\n00001.ppm;1;1;0;0;1;1;1\n"
  write_zip(manual / "GTSRB_Final_Test_GT.zip", {"GT-final_test.csv": truth.encode()})
  official("gtsrb", manual)
  prepare(dataset_spec("gtsrb"), tmp_path)
  found = read("gtsrb", tmp_path)
  assert sorted(found["train"].values()) == ["00000", "00042"]
  assert list(found["validation"].values()) == ["00014"]
  # Undecodable files keep their bytes, so that the pipeline counts them.
  assert found["test"].pop(b"broken") == "00001"
  (stored, label), = found["test"].items()  # fmt: skip
  assert label == "00016"
  image = Image.open(io.BytesIO(stored))
  assert image.format == "PNG"
  np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(ppm[3]))))


def memes():
  images = {f"img/{number:05d}.png": encoded(number, "PNG") for number in range(4)}
  labels = [0, 1, 1, 0]
  records = [
    json.dumps({"id": place, "img": name, "label": label, "text": "…"})
    for place, (name, label) in enumerate(zip(images, labels, strict=True))
  ]
  files = {
    "train.jsonl": "\n".join(records[:3]).encode(),
    "dev_seen.jsonl": records[3].encode(),
    "test_seen.jsonl": b"",
    **images,
  }
  names = ["hateful" if label else "not_hateful" for label in labels]
  pairs = list(zip(images.values(), names, strict=True))
  return files, {"train": dict(pairs[:3]), "test": dict(pairs[3:])}


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_hateful_memes(form, manual, tmp_path):
  files, expected = memes()
  if form == "zip":
    write_zip(manual / "hateful_memes.zip", {f"data/{name}": c for name, c in files.items()})
  else:
    for name, content in files.items():
      (manual / "hateful_memes" / name).parent.mkdir(exist_ok=True)
      (manual / "hateful_memes" / name).write_bytes(content)
  prepare(dataset_spec("hateful_memes"), tmp_path)
  assert read("hateful_memes", tmp_path) == expected


def test_hateful_memes_never_opens_a_path_from_its_list(manual, tmp_path):
  files, _ = memes()
  (tmp_path / "secret.png").write_bytes(encoded(0, "PNG"))
  files["train.jsonl"] = b'{"img": "../../../secret.png", "label": 1}'
  write_zip(manual / "hateful_memes.zip", files)
  with pytest.raises(RunError, match="lacks 1 of 1 listed images"):
    prepare(dataset_spec("hateful_memes"), tmp_path)


@pytest.mark.parametrize(
  "line", [b"{", b"[]", b'{"img": 3, "label": 1}', b'{"img": "a", "label": 2}']
)
def test_hateful_memes_names_the_broken_line(line, manual, tmp_path):
  files, _ = memes()
  files["train.jsonl"] += b"\n" + line
  write_zip(manual / "hateful_memes.zip", files)
  with pytest.raises(RunError, match="line 4 of a list"):
    prepare(dataset_spec("hateful_memes"), tmp_path)


def test_hateful_memes_says_where_to_put_which_file(manual, tmp_path):
  with pytest.raises(
    RunError, match=r"hateful_memes\.zip.*missing in .*manual.*Accept the license"
  ):
    prepare(dataset_spec("hateful_memes"), tmp_path)


EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


def faces():
  return np.random.default_rng(0).integers(0, 256, (7, 48, 48), np.uint8)


def fer_csv(blanks=False):
  text = io.StringIO()
  columns = ["emotion", " Usage", " pixels"] if blanks else ["emotion", "pixels", "Usage"]
  writer = csv.writer(text)
  writer.writerow(columns)
  for usage in USAGES.values():
    for emotion, face in enumerate(faces()):
      pixels = " ".join(map(str, face.ravel()))
      writer.writerow([emotion, usage, pixels] if blanks else [emotion, pixels, usage])
  return text.getvalue().encode()


@pytest.mark.parametrize("form", ["csv", "csv with blanks", "archive"])
def test_fer2013_csv(form, manual, tmp_path):
  if form == "csv":
    (manual / "fer2013.csv").write_bytes(fer_csv())
  elif form == "archive":
    write_tgz(manual / "fer2013.tar.gz", {"fer2013/README": b"", "fer2013/fer2013.csv": fer_csv()})
  else:
    (manual / "icml_face_data.csv").write_bytes(fer_csv(blanks=True))
  prepare(dataset_spec("fer2013"), tmp_path)
  spec = dataset_spec("fer2013")
  # The CSV numbers sad, surprise, neutral as 4, 5, 6; the order of our classes is neutral, sad, surprised.
  assert [spec.label_names.index(name) for name in EMOTIONS[4:]] == [5, 6, 4]
  for split in USAGES:
    found = {}
    for example in open_split(spec, split, tmp_path):
      pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
      found[spec.label_names[example["label"]]] = pixels
    assert found.keys() == set(EMOTIONS)
    for emotion, face in enumerate(faces()):
      np.testing.assert_array_equal(found[EMOTIONS[emotion]], face)


def test_fer2013_folders(manual, tmp_path):
  files, expected = {}, {split: {} for split in USAGES}
  for split, usage in USAGES.items():
    folder = "train" if split == "train" else "test"
    for number, emotion in enumerate(EMOTIONS):
      content = encoded((len(files), number), size=(48, 48))
      files[f"{folder}/{emotion}/{usage}_{number}.jpg"] = content
      expected[split][content] = emotion
  write_zip(manual / "fer2013.zip", files)
  prepare(dataset_spec("fer2013"), tmp_path)
  assert read("fer2013", tmp_path) == expected


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("7,{pixels},Training", "emotion '7'"),
    ("0,1 2 3,Training", "does not have 2304 pixels"),
    ("0,{pixels} 0,Training", "does not have 2304 pixels"),
    ("0,x,Training", "does not have 2304 pixels"),
    ("0", "does not have 2304 pixels|no rows"),
  ],
)
def test_fer2013_names_the_broken_row(row, message, manual, tmp_path):
  pixels = " ".join(["0"] * 2304)
  (manual / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{row.format(pixels=pixels)}\n")
  with pytest.raises(RunError, match=message):
    prepare(dataset_spec("fer2013"), tmp_path)


def test_fer2013_without_labels_is_rejected(manual, tmp_path):
  (manual / "fer2013.csv").write_text("pixels\n0 0\n")
  with pytest.raises(RunError, match="no column 'Usage'"):
    prepare(dataset_spec("fer2013"), tmp_path)


def test_a_file_with_another_checksum_is_rejected(manual, tmp_path):
  write_tgz(manual / "country211.tgz", {"country211/train/AD/0.jpg": encoded(0)})
  with pytest.raises(RunError, match=r"country211\.tgz is not the official file \(md5"):
    prepare(dataset_spec("country211"), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_archive_is_named(damage, manual, official, tmp_path):
  files, _ = folder_files("country211", ("AD", "ZW"), "jpg", "JPEG")
  path = manual / "country211.tgz"
  write_tgz(path, files)
  content = path.read_bytes()
  path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"<html>"}[damage])
  official("country211", manual)
  with pytest.raises(RunError, match=r"country211\.tgz is damaged .* download it again"):
    prepare(dataset_spec("country211"), tmp_path)


def test_an_unfinished_preparation_is_not_readable(manual, official, tmp_path):
  test_a_damaged_archive_is_named("cut", manual, official, tmp_path)
  with pytest.raises(RunError, match="not prepared"):
    open_split(dataset_spec("country211"), "train", tmp_path)[0]


@pytest.mark.parametrize("name", ["../../train/AD/0.jpg", "/train/AD/0.jpg"])
def test_a_hostile_archive_is_rejected(name, manual, official, tmp_path):
  write_tgz(manual / "country211.tgz", {name: encoded(0)})
  official("country211", manual)
  with pytest.raises(RunError, match="leaves the archive"):
    prepare(dataset_spec("country211"), tmp_path)


def test_links_in_an_archive_are_not_followed(manual, official, tmp_path):
  (tmp_path / "secret.jpg").write_bytes(encoded(0))
  link = (tarfile.SYMTYPE, str(tmp_path / "secret.jpg"))
  write_tgz(manual / "country211.tgz", {"country211/train/AD/0.jpg": link})
  official("country211", manual)
  with pytest.raises(RunError, match="has no images"):
    prepare(dataset_spec("country211"), tmp_path)


def test_an_unknown_class_is_named(manual, official, tmp_path):
  write_tgz(manual / "country211.tgz", {"country211/train/XX/0.jpg": encoded(0)})
  official("country211", manual)
  with pytest.raises(RunError, match="'XX' is not a class"):
    prepare(dataset_spec("country211"), tmp_path)


@pytest.fixture
def server(tmp_path):
  folder = tmp_path / "served"
  folder.mkdir()

  class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
      super().__init__(*arguments, directory=folder)

    def log_message(self, *arguments):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{running.server_port}/"
    running.shutdown()
    thread.join()


def test_files_are_downloaded_without_tensorflow(server, monkeypatch, tmp_path):
  folder, url = server
  files, expected = folder_files("rendered-sst2", ("positive", "negative"), "png", "PNG")
  write_tgz(folder / "rendered-sst2.tgz", files)
  archive = Archive("rendered-sst2.tgz", f"{url}rendered-sst2.tgz")
  monkeypatch.setattr(builder_class("rendered_sst2"), "ARCHIVES", (archive,))
  prepare(dataset_spec("rendered_sst2"), tmp_path)
  assert read("rendered_sst2", tmp_path) == expected
  assert "tensorflow" not in sys.modules


def test_a_failed_download_says_where_to_put_which_file(server, monkeypatch, tmp_path):
  dead = Archive("rendered-sst2.tgz", f"{server[1]}gone.tgz")
  monkeypatch.setattr(builder_class("rendered_sst2"), "ARCHIVES", (dead,))
  with pytest.raises(
    RunError, match=r"can't download http.*Put 'rendered-sst2\.tgz' into .*manual"
  ):
    prepare(dataset_spec("rendered_sst2"), tmp_path)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_official_file_has_a_name_and_a_source(name):
  for archive in builder_class(name).ARCHIVES:
    assert archive.url.startswith("https://") or not archive.url
    assert len(archive.md5) in (0, 32)
