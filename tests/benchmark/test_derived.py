import numpy as np
import pytest

from genbench_jax.benchmark.derived import (
  DEALS,
  PerClassDeal,
  deal,
  kitti_label,
  nearest_vehicle_bin,
)


@pytest.mark.parametrize(
  ("depths", "is_vehicle", "expected"),
  [
    ([8.0], [True], 0),
    ([8.01], [True], 1),
    ([20.0], [True], 1),
    ([20.01], [True], 2),
    ([999.0], [True], 2),
    ([999.5], [True], 3),
    ([], [], 3),
    ([3.0], [False], 3),
    ([3.0, 30.0], [False, True], 2),
    ([30.0, 12.0, -1.0], [True, True, True], 0),
  ],
)
def test_bins_of_the_nearest_vehicle(depths, is_vehicle, expected):
  assert nearest_vehicle_bin(is_vehicle, np.array(depths, np.float32)) == expected


def test_kitti_counts_cars_vans_and_trucks_by_name(tmp_path):
  import tensorflow_datasets as tfds

  builder = tfds.builder("kitti", data_dir=tmp_path, try_gcs=False)
  names = builder.info.features["objects"].feature["type"].names
  location = np.array([[0, 0, 5.0], [9, 9, 12.0]], np.float32)
  for kind in names:
    objects = {"type": np.array([names.index(kind)]), "location": location[1:]}
    assert kitti_label(objects, names) == (1 if kind in ("Car", "Van", "Truck") else 3)
  both = {"type": np.array([names.index("Pedestrian"), names.index("Van")]), "location": location}
  assert kitti_label(both, names) == 1
  none = {"type": np.zeros(0, np.int64), "location": np.zeros((0, 3), np.float32)}
  assert kitti_label(none, names) == 3


def names_and_labels(counts):
  labels = np.repeat(np.arange(len(counts)), counts)
  return [f"class{label}_{place}.jpg" for place, label in enumerate(labels)], labels


def test_deal_splits_each_class_without_overlap():
  names, labels = names_and_labels([20, 25, 30])
  splits = deal(names, labels, PerClassDeal(4, 5, 6))
  for split, count in {"train": 4, "validation": 5, "test": 6}.items():
    np.testing.assert_array_equal(np.bincount(labels[splits[split]]), [count] * 3)
    assert (np.diff(splits[split]) > 0).all()
  together = np.concatenate(list(splits.values()))
  assert len(set(together.tolist())) == 45


def test_deal_depends_on_names_not_on_their_order():
  names, labels = names_and_labels([20, 25])
  order = np.random.default_rng(0).permutation(len(names))
  shuffled = [names[place] for place in order]
  before = deal(names, labels, PerClassDeal(4, 5, 6))
  after = deal(shuffled, labels[order], PerClassDeal(4, 5, 6))
  for split in before:
    assert {names[place] for place in before[split]} == {shuffled[place] for place in after[split]}
  other = deal(names, labels, PerClassDeal(4, 5, 6, seed=1))
  assert not np.array_equal(before["train"], other["train"])


def test_deal_matches_a_manual_example():
  # random.Random(0).shuffle([0, 1, 2, 3]) gives [2, 0, 1, 3].
  splits = deal(["a", "b", "c", "d"], np.zeros(4, int), PerClassDeal(1, 1, 2))
  assert {split: indices.tolist() for split, indices in splits.items()} == {
    "train": [2],
    "validation": [0],
    "test": [1, 3],
  }


@pytest.mark.parametrize(
  ("count", "expected"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [4, 3, 3])]
)
def test_a_small_class_is_split_evenly(count, expected):
  names, labels = names_and_labels([count])
  assert [len(part) for part in deal(names, labels, DEALS["resisc45"]).values()] == expected


def test_sizes_match_the_protocol():
  from genbench_jax.benchmark.registry import dataset_spec

  for name, sizes in DEALS.items():
    spec = dataset_spec(name)
    per_class = {"train": sizes.train, "validation": sizes.validation, "test": sizes.test}
    assert spec.split_sizes == {s: n * spec.num_classes for s, n in per_class.items()}
