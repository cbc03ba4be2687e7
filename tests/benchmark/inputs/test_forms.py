"""The same images in every supported format give the same classes and pixels."""

import bz2
import csv
import gzip
import io
import json
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.inputs.class_map import read_class_map
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import ClassMatching, list_images, open_user_images
from genbench_jax.errors import UsageError
from genbench_jax.export.image_folder import hugging_face, image_folder
from genbench_jax.export.webdataset import webdataset
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetLayout, ImageSetWriter
from tests.tars import write_tar

NAMES = ("crème brûlée", "日本", "heart", "naïve")
PER_CLASS = 2


def png(label, shot):
  buffer = io.BytesIO()
  Image.new("RGB", (6, 5), (40 * label, 90 * shot, 7)).save(buffer, format="PNG")
  return buffer.getvalue()


IMAGES = [(label, shot, png(label, shot)) for label in range(4) for shot in range(PER_CLASS)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
  root = tmp_path_factory.mktemp("own") / "ds"
  for name in NAMES:
    (root / "test" / name).mkdir(parents=True)
    (root / "test" / name / "0.png").write_bytes(png(0, 0))
  (root / "dataset.yaml").write_text(
    json.dumps({"class_names": {name: name for name in NAMES}}), encoding="utf-8"
  )
  return dataset_spec(f"folder:{root}")


def write_tree(root, prefix=""):
  for label, shot, content in IMAGES:
    path = root / prefix / NAMES[label] / f"{shot}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return root


def plain_folder(place):
  return write_tree(place / "given")


def wrapped_folder(place):
  return write_tree(place / "given", "generated images")


def split_folders(place):
  (place / "given" / "test" / NAMES[0]).mkdir(parents=True)
  (place / "given" / "test" / NAMES[0] / "9.png").write_bytes(png(3, 1))
  return write_tree(place / "given", "train")


def zipped(place):
  with zipfile.ZipFile(place / "given.zip", "w") as archive:
    archive.writestr("../outside.txt", "no")
    for label, shot, content in IMAGES:
      archive.writestr(f"set/{NAMES[label]}/{shot}.png", content)
      archive.writestr(f"__MACOSX/set/{NAMES[label]}/._{shot}.png", b"x")
  return place / "given.zip"


def _tar(path, members, mode="w"):
  link = (f"{NAMES[0]}/link.png", (tarfile.SYMTYPE, "/etc/passwd"))
  return write_tar(path, [*members, link], mode)


TREE = [(f"{NAMES[label]}/{shot}.png", content) for label, shot, content in IMAGES]


def tarred(place):
  return _tar(place / "given.tar", TREE)


def compressed_tar(place):
  return _tar(place / "given.tar.gz", TREE, "w:gz")


def shards(place):
  (place / "shards").mkdir()
  for shard in range(2):
    members = []
    for number, (label, _, content) in enumerate(IMAGES[shard::2]):
      stem = f"{number:04d}"  # the same keys in both shards
      members += [(f"{stem}.png", content), (f"{stem}.cls", str(label).encode())]
    _tar(place / "shards" / f"a-{shard:03d}.tar", members)
  return place / "shards"


def brace_pattern(place):
  return f"{shards(place)}/a-{{000..001}}.tar"


def labels_csv(place):
  root = write_tree(place / "given")
  with (place / "given" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["file", "label"])
    writer.writerows([f"./{NAMES[label]}/{shot}.png", NAMES[label]] for label, shot, _ in IMAGES)
  return root


def _flat(place):
  (place / "given").mkdir()
  rows = []
  for number, (label, _, content) in enumerate(IMAGES):
    (place / "given" / f"{number}.png").write_bytes(content)
    rows.append({"file_name": f"{number}.png", "text": "a photo", "label": NAMES[label]})
  return place / "given", rows


def metadata_csv(place):
  root, rows = _flat(place)
  with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return root


def metadata_jsonl(place):
  root, rows = _flat(place)
  (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
  return root


def json_lines(place):
  root, rows = _flat(place)
  lines = [
    {"path": str(root / row["file_name"]), "class": row["label"]} for row in rows
  ]  # absolute paths
  (root / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
  return root / "mine.jsonl"


def json_mapping(place):
  root, rows = _flat(place)
  (root / "mine.json").write_text(json.dumps({r["file_name"]: r["label"] for r in rows}))
  return root / "mine.json"


def parquet(place):
  pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  (place / "hub" / "data").mkdir(parents=True)
  names = json.dumps({"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}})
  table = pa.table(
    {
      "image": [{"bytes": content, "path": None} for *_, content in IMAGES],
      "label": [label for label, *_ in IMAGES],
    }
  ).replace_schema_metadata({"huggingface": names})
  pq.write_table(table, place / "hub" / "data" / "train-00000-of-00001.parquet")
  pq.write_table(table.slice(0, 1), place / "hub" / "data" / "test-00000-of-00001.parquet")
  return place / "hub"


def arrays(place):
  pixels = np.stack([np.asarray(Image.open(io.BytesIO(content))) for *_, content in IMAGES])
  labels = np.array([label for label, *_ in IMAGES])
  np.savez_compressed(place / "given.npz", arr_0=pixels, arr_1=labels)
  return place / "given.npz"


def _image_set(place):
  records = [
    ImageRecord(content, label, number, "a prompt", "", 0)
    for number, (label, _, content) in enumerate(IMAGES)
  ]
  layout = ImageSetLayout("given", NAMES, len(records), 8, {"by": "test"})
  writer = ImageSetWriter(place / "images", layout)
  writer.write_shard(0, records)
  writer.close()
  return ImageSet(place / "images")


def zipped_without_flag(place):
  """Names in UTF-8 without the flag that says so, as macOS writes them."""
  path = zipped(place)
  names = [info.filename.encode() for info in zipfile.ZipFile(path).infolist()]
  content = path.read_bytes()
  for name in filter(lambda name: not name.isascii(), names):
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
      begin = content.rfind(start, 0, content.find(name) if flags == 6 else content.rfind(name))
      content = content[: begin + flags] + bytes(2) + content[begin + flags + 2 :]
  path.write_bytes(content)
  assert not any(info.flag_bits for info in zipfile.ZipFile(path).infolist())
  return path


def lonely_zip(place):
  (place / "download").mkdir()
  return zipped(place).rename(place / "download" / "ALL.ZIP").parent


def zip_with_list(place):
  root = metadata_jsonl(place)
  with zipfile.ZipFile(place / "given.zip", "w") as archive:
    for path in root.iterdir():
      archive.write(path, f"set/train/{path.name}")
    archive.writestr("set/test/other.png", png(0, 0))
  return place / "given.zip"


def tar_with_list(place):
  root = metadata_csv(place)
  return _tar(place / "t.tar", [(f"./{path.name}", path.read_bytes()) for path in root.iterdir()])


def tar_of_class_folders_with_sidecars(place):
  beside = [(name.replace(".png", ".json"), b'{"seed": 7}') for name, _ in TREE]
  return _tar(place / "given.tar", sorted(TREE + beside))


def wrapped_shards(place):
  inside = place / "download" / "train"
  shards(place).rename(inside.parent.with_name("s"))
  inside.mkdir(parents=True)
  (place / "s").rename(inside / "shards")
  return inside.parent


def wrapped_parquet(place):
  inside = parquet(place) / "data"
  (place / "refs" / "default").mkdir(parents=True)
  inside.rename(place / "refs" / "default" / "train")
  return place / "refs"


def upper_case_suffixes(place):
  return json_lines(place).rename(place / "given" / "MINE.JSONL")


FORMS = (
  plain_folder, wrapped_folder, split_folders, zipped, zipped_without_flag, lonely_zip, zip_with_list, tarred,
  tar_with_list, tar_of_class_folders_with_sidecars, compressed_tar, shards, wrapped_shards, brace_pattern,
  labels_csv, metadata_csv, metadata_jsonl, json_lines, upper_case_suffixes, json_mapping, parquet,
  wrapped_parquet, arrays,
)  # fmt: skip


def pixels_of(images):
  return [
    (example["label"], np.asarray(Image.open(io.BytesIO(example["image"]))).tobytes())
    for example in images
  ]


EXPECTED = sorted(
  (label, np.asarray(Image.open(io.BytesIO(content))).tobytes()) for label, _, content in IMAGES
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_images_and_classes(form, tmp_path, spec):
  given = form(tmp_path)
  images = open_user_images(given, spec, tmp_path / "cache")
  assert sorted(pixels_of(images)) == EXPECTED
  again = open_user_images(given, spec, tmp_path / "cache")
  assert again.digest == images.digest and sorted(pixels_of(again)) == EXPECTED


def test_skipped_splits_are_reported(tmp_path, spec):
  images = open_user_images(split_folders(tmp_path), spec, tmp_path / "cache")
  assert "the images of 'train' are used; 'test' are left out." in images.notes


def test_a_list_in_an_archive_is_not_left_out_and_missing_images_are_named(tmp_path, spec):
  path = zip_with_list(tmp_path)
  with zipfile.ZipFile(path) as archive:
    kept = {info.filename: archive.read(info) for info in archive.infolist()}
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in kept.items():
      if not name.endswith("/0.png"):
        archive.writestr(name, content)
  assert list_images(path, spec).notes == (
    "the images of 'train' are used; 'test' are left out.",
    "1 left out, can't be found: 'set/train/0.png'.",
  )


def test_shards_of_other_splits_are_reported(tmp_path, spec):
  images = list_images(parquet(tmp_path), spec, tmp_path / "cache")
  note = "the files of 'train' are used; 1 left out: 'test-00000-of-00001.parquet'."
  assert note in images.notes


def test_rows_of_parquet_without_bytes_or_class_are_counted(tmp_path, spec):
  pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  images = [{"bytes": png(2, 0), "path": "0.png"}, {"bytes": None, "path": "1.png"}, None]
  pq.write_table(pa.table({"image": images, "label": [2, 2, None]}), tmp_path / "X.PARQUET")
  found = list_images(tmp_path / "X.PARQUET", spec, tmp_path / "cache")
  assert found.labels == (2,)
  assert any("2 left out, without image bytes or class:" in note for note in found.notes)
  pq.write_table(pa.table({"image": images[1:], "label": [2, 2]}), tmp_path / "y.parquet")
  with pytest.raises(UsageError, match=r"has no image with a class\. 2 left out"):
    list_images(tmp_path / "y.parquet", spec, tmp_path / "cache")


def test_a_split_is_no_class_of_the_same_name(tmp_path):
  for path in ("train/apple/0.png", "train/train/0.png", "test/apple/0.png"):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(png(1, 0))
  cifar100 = dataset_spec("cifar100")
  images = list_images(tmp_path, cifar100)
  assert [cifar100.names[label] for label in images.labels] == ["apple", "train"]


@pytest.mark.parametrize("write", [image_folder, hugging_face, webdataset])
def test_exports_are_read_back_with_all_classes(write, tmp_path, spec):
  images = _image_set(tmp_path)
  write(images, tmp_path / "out", lambda count: None)
  back = open_user_images(tmp_path / "out", spec, tmp_path / "cache")
  assert sorted(pixels_of(back)) == EXPECTED


def test_class_folders_of_an_export_are_matched_without_its_list(tmp_path, spec):
  image_folder(_image_set(tmp_path), tmp_path / "out", lambda count: None)
  (tmp_path / "out" / "metadata.csv").unlink()
  assert set(list_images(tmp_path / "out", spec).labels) == set(range(4))


def test_changed_images_have_another_digest(tmp_path, spec):
  path = zipped(tmp_path)
  before = list_images(path, spec).digest
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("set/heart/7.png", png(1, 1))
  assert list_images(path, spec).digest != before


@pytest.mark.parametrize(
  ("name", "content", "said"),
  [
    ("a.zip", b"no zip", "can't be read as zip"),
    ("a.tar", b"no tar", "can't be read as tar"),
    ("a.tar.gz", gzip.compress(b"x", mtime=0)[:9], "can't be read as tar"),
    ("a.tar.bz2", bz2.compress(b"x"), "can't be read as tar"),
    ("a.parquet", b"PAR1", "can't be read as Parquet"),
    ("a.npz", b"PK\x05\x06" + bytes(18), "has no array of images"),
    ("a.npz", b"no", "can't be read as .npz"),
    ("a.csv", b"x,y\n1,2\n", "has no header"),
    ("a.csv", b"path\nx.png\n", "no class column"),
    ("a.csv", b"path,label\n/etc/passwd,heart\n", "outside its folder"),
    ("a.jsonl", b"{\n", "can't be read as JSON"),
    (
      "a.jsonl",
      b'{"file": "x.png", "label": "heart"}\n{"label": "heart"}\n',
      "entry 2 has no 'file'",
    ),
    ("a.json", b'[{"file": null, "label": "heart"}]', "entry 1 has no 'file'"),
    ("a.json", b'{"x.png": "heart", "x.png": "na"}', "'x.png' has two values, 'heart' and 'na'"),
    ("a.exe", b"MZ", "has no supported format"),
  ],
)
def test_unreadable_inputs_give_one_line(name, content, said, tmp_path, spec):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UsageError, match=said) as raised:
    list_images(tmp_path / name, spec, tmp_path / "cache")
  assert "\n" not in str(raised.value)


def _archive(path, members):
  if path.suffix == ".tar":
    return _tar(path, members)
  with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the second file with a name
    for name, content in members:
      archive.writestr(name, content)
  return path


@pytest.mark.parametrize("name", ["given.zip", "given.tar"])
def test_a_later_file_of_the_same_name_replaces_the_earlier(name, tmp_path, spec):
  """As when an archive is extracted, after `tar --append`."""
  path = _archive(
    tmp_path / name,
    [("heart/a.png", png(1, 1)), ("heart/a.png", png(2, 0)), ("heart/b.png", png(0, 2))],
  )
  found = list_images(path, spec)
  assert [found.read(index) for index in range(len(found.paths))] == [png(2, 0), png(0, 2)]
  assert "1 left out, replaced by a later file of the same name: 'heart/a.png'." in found.notes


def test_a_damaged_copy_of_a_compressed_tar_is_made_again(tmp_path, spec):
  path, cache = compressed_tar(tmp_path), tmp_path / "cache"
  before = list_images(path, spec, cache)
  contents = [before.read(index) for index in range(len(before.paths))]
  (copy,) = cache.glob("tar-*.tar")
  copy.write_bytes(copy.read_bytes().replace(contents[0], bytes(len(contents[0]))))
  after = list_images(path, spec, cache)
  assert [after.read(index) for index in range(len(after.paths))] == contents


def test_features_are_not_images(tmp_path, spec):
  np.savez(tmp_path / "f.npz", features=np.ones((3, 2)), labels=np.zeros(3, int))
  with pytest.raises(UsageError, match="contains features, not images"):
    list_images(tmp_path / "f.npz", spec, tmp_path / "cache")


def test_an_unmatched_class_gets_a_hint_a_map_or_an_error(tmp_path, spec):
  root = write_tree(tmp_path / "given")
  (root / "heart").rename(root / "haert")
  (root / "日本").rename(root / "japan")
  found = list_images(root, spec)
  assert set(found.labels) == {0, 3}
  assert any("'haert': did you mean 'heart'?" in note for note in found.notes)
  with pytest.raises(UsageError, match=r"2 left out, not a class of 'ds'.*--class-map"):
    list_images(root, spec, matching=ClassMatching(strict=True))
  (tmp_path / "map.csv").write_text("name,class\nhaert,heart\njapan,日本\n", encoding="utf-8")
  matching = ClassMatching(read_class_map(tmp_path / "map.csv"), strict=True)
  assert set(list_images(root, spec, matching=matching).labels) == {0, 1, 2, 3}
  wrong = ClassMatching({"haert": "hart"})
  with pytest.raises(UsageError, match="maps 'haert' to 'hart'"):
    list_images(root, spec, matching=wrong)
  left_out = ClassMatching({"haert": "", "japan": ""}, strict=True)
  assert set(list_images(root, spec, matching=left_out).labels) == {0, 3}


def test_arrays_that_claim_to_be_huge_are_rejected(tmp_path, spec):
  header = io.BytesIO()
  about = {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)}
  np.lib.format.write_array_header_1_0(header, about)
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
    archive.writestr("images.npy", b"")
    archive.writestr("labels.npy", header.getvalue())
  with pytest.raises(UsageError, match="'labels' takes 8796093022208 bytes"):
    list_images(tmp_path / "a.npz", spec, tmp_path / "cache")
