import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.digests import split_digest
from genbench_jax.benchmark.own import own_spec
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.readiness import readiness
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.config import make_config
from genbench_jax.errors import UsageError
from genbench_jax.store.digests import FileDigests


def write_image(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (9, 7), (value, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path):
  root = tmp_path / "My Leaves"
  for split in ("train", "val", "test"):
    write_image(root / split / "bean_rust" / "1.jpg", 10)
    write_image(root / split / "healthy" / "2.png", 20)
    write_image(root / split / "healthy" / "deeper" / "3.JPG", 30)
    (root / split / "healthy" / "notes.txt").write_text("no image")
  return root


def test_a_folder_alone_is_enough(root):
  spec = dataset_spec(f"folder:{root}")
  assert spec.name == "my_leaves"
  assert spec.group == "own"
  assert spec.names == ("bean rust", "healthy")
  assert spec.splits == {"train": "train", "validation": "val", "test": "test"}
  assert spec.split_sizes == {"train": 3, "validation": 3, "test": 3}
  assert (spec.metric, spec.resize, spec.templates) == ("accuracy", "crop", ("a photo of a {}.",))


def test_splits_may_have_capitals(root):
  for split in ("train", "val", "test"):
    (root / split).rename(root / split.capitalize())
  spec = dataset_spec(str(root))
  assert spec.splits == {"train": "Train", "validation": "Val", "test": "Test"}
  assert len(open_split(spec, "test")) == 3


def test_its_images_are_read_with_their_labels(root):
  split = open_split(dataset_spec(f"folder:{root}"), "validation")
  np.testing.assert_array_equal(split.labels(), [0, 1, 1])
  assert len(split) == 3
  assert [example["id"] for example in split] == [
    "bean_rust/1.jpg",
    "healthy/2.png",
    "healthy/deeper/3.JPG",
  ]
  assert [example["label"] for example in split] == [0, 1, 1]
  assert Image.open(io.BytesIO(split[1]["image"])).getpixel((0, 0)) == (20, 0, 0)


YAML = """
name: beans
class_names:
  healthy: [healthy leaf, green leaf]
  bean_rust: leaf with rust
templates: ["a close-up of a {}."]
metric: mean_per_class
resize: squash
splits: {train: train, test: val}
"""


def test_a_yaml_in_the_folder_adds_settings(root):
  (root / "dataset.yaml").write_text(YAML)
  spec = dataset_spec(f"folder:{root}")
  assert spec.name == "beans"
  assert spec.class_names == (("healthy leaf", "green leaf"), ("leaf with rust",))
  assert spec.label_names == ("healthy", "bean_rust")
  assert (spec.metric, spec.resize) == ("mean_per_class", "squash")
  split = open_split(spec, "test")
  np.testing.assert_array_equal(split.labels(), [0, 0, 1])
  assert split[2]["id"] == "bean_rust/1.jpg"


def test_a_yaml_may_be_elsewhere(root, tmp_path):
  (tmp_path / "beans.yaml").write_text(f"folder: {root.name}\n{YAML}")
  assert dataset_spec(str(tmp_path / "beans.yaml")).folder == str(root)


def test_a_known_name_is_not_replaced(tmp_path):
  write_image(tmp_path / "cifar10" / "test" / "cat" / "1.png", 1)
  assert dataset_spec(f"folder:{tmp_path / 'cifar10'}").name == "own_cifar10"
  assert dataset_spec("cifar10").group == "common"


def test_two_datasets_with_the_same_name_are_distinguished(root, tmp_path):
  other = tmp_path / "other" / "My Leaves"
  write_image(other / "test" / "cat" / "1.png", 1)
  datasets = (f"folder:{root}", f"folder:{other}")
  with pytest.raises(UsageError, match="two datasets have the name 'my_leaves'"):
    make_config({"datasets": datasets, "sources": ("generative",)})
  for dataset in datasets:  # one does not block the other in a process
    config = make_config({"datasets": (dataset,), "sources": ("generative",)})
    assert config.spec("my_leaves").folder == dataset.removeprefix("folder:")


def test_any_tfds_dataset_can_be_named(tmp_path):
  spec = dataset_spec("tfds:beans")
  assert spec.label_names == ("angular_leaf_spot", "bean_rust", "healthy")
  assert spec.names == ("angular leaf spot", "bean rust", "healthy")
  assert spec.tfds_name == "beans"
  steps = readiness(spec, tmp_path / "none").steps
  assert steps[-1] == "genbench benchmark prepare tfds:beans"
  (tmp_path / "voc.yml").write_text(
    "{tfds: voc/2012, label_key: labels, splits: {test: validation}}"
  )
  spec = dataset_spec(str(tmp_path / "voc.yml"))
  assert spec.name == "voc_2012"
  assert spec.multi_label
  assert spec.metric == "map_11_point"
  assert spec.splits == {"test": "validation"}


def test_a_dataset_of_tfds_is_read_by_label_name(tmp_path):
  import tensorflow_datasets as tfds

  from genbench_jax.benchmark.prepare import builder_for

  (tmp_path / "beans.yaml").write_text(
    "{tfds: beans, class_names: {healthy: good, bean_rust: rusty, angular_leaf_spot: spotty}}"
  )
  spec = dataset_spec(str(tmp_path / "beans.yaml"))
  builder = builder_for(spec, tmp_path)
  png = io.BytesIO()
  Image.new("RGB", (500, 500)).save(png, "PNG")
  examples = {name: {"image": png.getvalue(), "label": name} for name in spec.label_names}
  builder._split_generators = lambda dl_manager: {
    split: iter(examples.items()) for split in ("train", "test")
  }
  builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
  names = [spec.names[label] for label in open_split(spec, "test", tmp_path).labels()]
  stored = tfds.data_source("beans", split="test", data_dir=tmp_path)
  labels = [builder.info.features["label"].int2str(int(example["label"])) for example in stored]
  assert names == [
    {"healthy": "good", "bean_rust": "rusty"}.get(label, "spotty") for label in labels
  ]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("color: red", r"unknown key in .*dataset\.yaml: 'color'"),
    ("[1, 2]", "must be a mapping"),
    ("a: [", "is not a valid YAML"),
    ("metric: auc", "unknown metric 'auc'. Did you mean"),
    ("metric: map_11_point", "several labels"),
    ("templates: [a photo]", "one {} each"),
    ("templates: []", "one {} each"),
    ("class_names: [healthy, rust]", "must map each label"),
    (
      "class_names: {healty: leaf}",
      "unknown label in 'class_names': 'healty'. Did you mean 'healthy'",
    ),
    ("class_names: {healthy: leaf, bean_rust: []}", "a name or a list"),
    ("splits: {train: train}", "must name a test split"),
    ("splits: {test: tset}", "there is no folder .*tset"),
    ("splits: {dev: val}", "unknown split 'dev'"),
    ("resize: stretch", "unknown resize 'stretch'"),
    ("name: !!python/object/apply:os.getcwd []", "is not a valid YAML"),
  ],
)
def test_mistakes_give_one_line(text, message, root):
  (root / "dataset.yaml").write_text(text)
  with pytest.raises(UsageError, match=message) as raised:
    dataset_spec(f"folder:{root}")
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("folder:/nowhere/at/all", "there is no folder"),
    ("tfds:no_such_dataset", "TFDS has no dataset 'no_such_dataset'"),
    ("tfds:imdb_reviews", "has no feature 'image'"),
    ("nowhere.yaml", "can't read the dataset file"),
  ],
)
def test_missing_datasets_give_one_line(name, message):
  with pytest.raises(UsageError, match=message) as raised:
    dataset_spec(name)
  assert "\n" not in str(raised.value)


def test_an_empty_folder_has_no_test_split(tmp_path):
  with pytest.raises(UsageError, match="no test split"):
    dataset_spec(f"folder:{tmp_path}")
  (tmp_path / "test").mkdir()
  with pytest.raises(UsageError, match="no class folders"):
    dataset_spec(f"folder:{tmp_path}")


def test_class_names_may_be_given_for_some(root):
  (root / "dataset.yaml").write_text("class_names: {healthy: [green leaf, healthy leaf]}")
  spec = dataset_spec(f"folder:{root}")
  assert spec.class_names == (("bean rust",), ("green leaf", "healthy leaf"))
  assert spec.label_names == ("bean_rust", "healthy")
  np.testing.assert_array_equal(np.sort(open_split(spec, "test").labels()), [0, 1, 1])


def test_a_folder_needs_no_prefix(root):
  assert dataset_spec(str(root)) == dataset_spec(f"folder:{root}")
  with pytest.raises(UsageError, match="Or one of your own: a folder with test/CLASS"):
    dataset_spec("cifar_10x")


def test_a_folder_needs_no_slash_unless_its_name_is_known(root, monkeypatch):
  monkeypatch.chdir(root.parent)
  assert dataset_spec(root.name).folder == root.name
  (root.parent / "digits").symlink_to(root)
  assert dataset_spec("digits").group == "demo"
  assert dataset_spec("./digits").folder == "digits"
  with pytest.raises(UsageError, match="unknown dataset"):
    dataset_spec("")


def test_a_known_dataset_can_get_other_names_and_templates(tmp_path):
  file = tmp_path / "mine.yaml"
  file.write_text("dataset: digits\nclass_names: {three: [a three, drei]}\ntemplates: 'digit {}'\n")
  spec, digits = dataset_spec(str(file)), dataset_spec("digits")
  assert (spec.name, spec.data_name, spec.templates) == ("own_digits", "digits", ("digit {}",))
  assert spec.class_names[3] == ("a three", "drei") and spec.class_names[4] == digits.class_names[4]
  mine, theirs = open_split(spec, "test"), open_split(digits, "test")
  np.testing.assert_array_equal(mine.labels(), theirs.labels())
  file.write_text("dataset: digits\nsplits: {test: train}\n")
  with pytest.raises(UsageError, match="'splits' of the known dataset"):
    dataset_spec(str(file))


def test_folders_whose_names_are_not_utf8_are_classes(root):
  for split in ("train", "val", "test"):
    write_image(root / split / "caf\udce9" / "1.png", 40)
  spec = dataset_spec(f"folder:{root}")
  assert spec.names == ("bean rust", "caf\\xe9", "healthy")
  np.testing.assert_array_equal(open_split(spec, "test").labels(), [0, 1, 2, 2])
  assert split_digest(open_split(spec, "test"), FileDigests(None))


def test_images_beside_the_class_folders_are_named(root, capsys):
  write_image(root / "test" / "loose.png", 1)
  (root / "linked").mkdir()
  (root / "linked" / "healthy").symlink_to(root / "test" / "healthy")
  (root / "test" / "nowhere").symlink_to(root / "none")
  assert len(open_split(dataset_spec(f"folder:{root}"), "test")) == 3
  told = capsys.readouterr().err
  assert "1 left out, not in a class folder: 'loose.png'." in told
  assert "1 left out, symbolic links: 'nowhere'." in told
  (root / "dataset.yaml").write_text("splits: {test: linked}")
  assert len(open_split(dataset_spec(f"folder:{root}"), "test")) == 2
  assert not capsys.readouterr().err.count("links")


@pytest.mark.parametrize(
  ("train", "test"),
  [("caf\u00e9", "cafe\u0301"), ("Cat", "cat"), ("black_cat", "black cat"), ("cat ", "cat")],
)
def test_a_class_spelled_differently_in_two_splits_is_rejected(tmp_path, train, test):
  """It would be two classes: one without test images, and one without training images."""
  for split, name in (("train", train), ("test", test)):
    for label in (name, "dog"):
      (tmp_path / split / label).mkdir(parents=True)
  with pytest.raises(UsageError, match="spells a class differently in its splits") as raised:
    own_spec(str(tmp_path))
  assert ascii(f"test/{test}") in str(raised.value) and ascii(f"train/{train}") in str(raised.value)


def test_classes_that_differ_only_in_case_may_stand_in_one_split(tmp_path):
  for name in ("train/A", "train/a", "test/A"):
    (tmp_path / name).mkdir(parents=True)
  assert own_spec(str(tmp_path)).label_names == ("A", "a")
