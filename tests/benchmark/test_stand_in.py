"""Every TFDS dataset with its real features but without its data: stand-ins, and reading them."""

import colorsys
import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.reader import class_of_label, open_split
from genbench_jax.benchmark.registry import dataset_spec, known_datasets
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.errors import RunError, UsageError

COUNTS = {"train": 2, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("stand_ins")


def prepared(name, data_dir):
  spec = dataset_spec(name)
  prepare_stand_in(spec, data_dir, COUNTS)
  return spec


@pytest.mark.parametrize("name", known_datasets())
def test_every_dataset_is_read_by_name_with_all_its_classes(name, data_dir):
  spec = prepared(name, data_dir)
  for split in spec.splits:
    examples = open_split(spec, split, data_dir)
    labels = examples.labels()
    assert len(labels) == len(examples)
    seen = labels.any(axis=0) if spec.multi_label else np.isin(range(spec.num_classes), labels)
    assert seen.all()
    example = examples[len(examples) - 1]
    assert example.keys() == {"image", "label", "id"}
    np.testing.assert_array_equal(example["label"], labels[-1])
    Image.open(io.BytesIO(example["image"])).load()
    ids = {examples[place]["id"] for place in range(min(5, len(examples)))}
    assert len(ids) == min(5, len(examples))
  assert "tensorflow" not in sys.modules


def ground_color(label):
  return np.array([round(255 * c) for c in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 0.35)])


@pytest.mark.parametrize(
  "name", ["cars196", "sun397", "cifar100", "caltech101", "eurosat", "gtsrb"]
)
def test_images_keep_their_class_through_the_mapping(name, data_dir):
  # The color of the background identifies the class, in whatever order TFDS numbers the classes.
  spec = prepared(name, data_dir)
  for example in list(open_split(spec, "test", data_dir))[:40]:
    pixels = np.asarray(Image.open(io.BytesIO(example["image"])).convert("RGB"), np.float32)
    corners = np.concatenate([rows[:, columns] for rows in (pixels[:4], pixels[-4:])
                              for columns in (slice(4), slice(-4, None))])  # fmt: skip
    ground = ground_color(example["label"])
    assert np.abs(np.median(corners, axis=(0, 1)) - ground).max() < 40, (example["id"], ground)


def test_splits_of_derived_datasets_do_not_overlap(data_dir):
  spec = prepared("resisc45", data_dir)
  images = [
    example["image"] for split in spec.splits for example in open_split(spec, split, data_dir)
  ]
  assert len(set(images)) == len(images) == 6 * 45


def test_labels_of_several_classes_are_multi_hot(data_dir):
  spec = prepared("voc2007", data_dir)
  labels = open_split(spec, "train", data_dir).labels()
  assert labels.shape == (40, 20)
  assert labels.dtype == bool
  assert set(labels.sum(axis=1)) == {1, 2}


def test_a_split_can_be_pickled_for_a_worker(data_dir):
  spec = prepared("eurosat", data_dir)
  split = open_split(spec, "test", data_dir)
  before = split[3]
  after = pickle.loads(pickle.dumps(split))[3]
  assert after["image"] == before["image"]
  assert after["id"] == before["id"] == "test/0000003"


def test_indices_beyond_the_end_raise(data_dir):
  split = open_split(prepared("mnist", data_dir), "test", data_dir)
  assert split[-1]["id"] == f"test/{len(split) - 1:07d}"
  with pytest.raises(IndexError, match="10 of a split of 10"):
    split[10]
  assert len(list(split)) == 10


def test_stand_ins_are_made_once_in_a_separate_folder(data_dir, tmp_path):
  prepared("mnist", data_dir)
  (tmp_path / "mnist").mkdir()
  with pytest.raises(UsageError, match="contains other data"):
    prepare_stand_in(dataset_spec("mnist"), tmp_path, COUNTS)


def test_unknown_split_and_unprepared_data_say_what_to_do(tmp_path):
  spec = dataset_spec("imagenet2012")
  with pytest.raises(UsageError, match=r"unknown split of 'imagenet2012' 'train'\. Known: test"):
    open_split(spec, "train", tmp_path)
  with pytest.raises(RunError, match=r"not prepared.*prepare imagenet2012"):
    len(open_split(spec, "test", tmp_path))


def test_unknown_labels_are_rejected():
  spec = dataset_spec("rendered_sst2")
  np.testing.assert_array_equal(class_of_label(spec, ["positive", "negative"]), [1, 0])
  with pytest.raises(RunError, match="labels unknown to the benchmark: \\['mixed'\\]"):
    class_of_label(spec, ["positive", "mixed"])


def test_demo_worlds_are_read_in_the_same_way():
  spec = dataset_spec("shapes")
  split = open_split(spec, "test")
  assert len(split) == spec.split_sizes["test"]
  assert split[9]["label"] == 1
  assert split[9]["image"].size == (32, 32)
