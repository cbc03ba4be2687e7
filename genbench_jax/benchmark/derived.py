"""Splits and labels that the benchmark derives from TFDS's data."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Num

# KITTI's object types that count as vehicles.
VEHICLES = ("Car", "Van", "Truck")
# Upper bounds, in meters, of the distance bins; images without a vehicle are the last class.
DISTANCE_BINS = (8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0


@dataclasses.dataclass(frozen=True)
class PerClassDeal:
  """Number of images of each class in each split."""

  train: int
  validation: int
  test: int
  seed: int = 0


# Datasets with a single split in TFDS. The reference's file lists are not public: we use its sizes and our own
# choice of images.
DEALS = {
  "eurosat": PerClassDeal(500, 500, 500),
  "resisc45": PerClassDeal(70, 70, 560),
}


def deal(
  file_names: Sequence[str], labels: Int[np.ndarray, "n"], sizes: PerClassDeal
) -> dict[str, Int[np.ndarray, "m"]]:
  """Distribute the images of each class to train, validation and test.

  The images of a class are sorted by file name, shuffled with the seed, and assigned in this order, so that
  the result depends only on names, not on the order on disk. Classes with too few images are split into
  thirds.

  Args:
    file_names: name of each image.
    labels: class of each image.
    sizes: images per class and split.

  Returns:
    Sorted indices of the images of each split.
  """
  splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
  names = np.asarray(file_names)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    order = members[np.argsort(names[members], kind="stable")].tolist()
    random.Random(sizes.seed).shuffle(order)
    start = 0
    for split, count in _counts(len(order), sizes).items():
      splits[split] += order[start : start + count]
      start += count
  return {split: np.sort(np.asarray(indices, np.int64)) for split, indices in splits.items()}


def _counts(available: int, sizes: PerClassDeal) -> dict[str, int]:
  wanted = {"train": sizes.train, "validation": sizes.validation, "test": sizes.test}
  if available >= sum(wanted.values()):
    return wanted
  turns = {"train": 2, "test": 1, "validation": 0}
  return {split: (available + turns[split]) // 3 for split in wanted}


def nearest_vehicle_bin(is_vehicle: Sequence[bool], depths: Num[np.ndarray, "n"]) -> int:
  """Return the class of a KITTI image: the distance to the nearest car, van or truck.

  Args:
    is_vehicle: whether each object is a vehicle.
    depths: distance of each object along the camera's axis, in meters.

  Returns:
    0 up to 8 m, 1 up to 20 m, 2 beyond, 3 without a vehicle (VTAB's closest_vehicle_distance).
  """
  vehicles = [float(depth) for depth, vehicle in zip(depths, is_vehicle, strict=True) if vehicle]
  return int(np.searchsorted(DISTANCE_BINS, min([*vehicles, NO_VEHICLE])))


def kitti_label(objects: Mapping[str, Any], type_names: Sequence[str]) -> int:
  """Return the class of a decoded TFDS `kitti` example, given the names of its object types."""
  vehicle_ids = [type_names.index(name) for name in VEHICLES]
  is_vehicle = np.isin(objects["type"], vehicle_ids)
  return nearest_vehicle_bin(
    is_vehicle.tolist(), np.asarray(objects["location"]).reshape(-1, 3)[:, 2]
  )
