"""Splits and labels that the benchmark derives from what TFDS has."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

# KITTI's kinds of objects that count as vehicles: Car, Van, Truck.
VEHICLES = ("Car", "Van", "Truck")
# Upper ends in metres of the bins of the nearest vehicle; beyond the last there is none.
DISTANCE_BINS = (8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0


@dataclasses.dataclass(frozen=True)
class PerClassDeal:
  """How many images of each class go to each split."""

  train: int
  validation: int
  test: int
  seed: int = 0


# TFDS has one split of these. The reference's file lists are not public: the sizes are its own,
# the choice of images is ours.
DEALS = {
  "eurosat": PerClassDeal(500, 500, 500),
  "resisc45": PerClassDeal(70, 70, 560),
}


def deal(
  file_names: Sequence[str], labels: Int[np.ndarray, "n"], sizes: PerClassDeal
) -> dict[str, Int[np.ndarray, "m"]]:
  """Deals the images of each class out to train, validation and test.

  The images of a class are sorted by file name, shuffled by the seed and dealt in this order, so that
  the result depends on names alone, not on how the data lie on disk. A class that has fewer images
  than asked for is dealt out in turns.

  Returns:
    For each split the sorted indices of its images.
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


def nearest_vehicle_bin(is_vehicle: Sequence[bool], depths: Float[np.ndarray, "n"]) -> int:
  """The class of a KITTI image: how far the nearest car, van or truck is.

  Args:
    is_vehicle: for each object whether it is one.
    depths: the distance of each object along the camera's axis, in metres.

  Returns:
    0 up to 8 m, 1 up to 20 m, 2 beyond, 3 without vehicle (VTAB's closest_vehicle_distance).
  """
  vehicles = [float(depth) for depth, vehicle in zip(depths, is_vehicle, strict=True) if vehicle]
  return int(np.searchsorted(DISTANCE_BINS, min([*vehicles, NO_VEHICLE])))


def kitti_label(objects: Mapping[str, np.ndarray], type_names: Sequence[str]) -> int:
  """The class of a decoded TFDS `kitti` example, given the names of its object types."""
  vehicle_ids = [type_names.index(name) for name in VEHICLES]
  is_vehicle = np.isin(objects["type"], vehicle_ids)
  return nearest_vehicle_bin(
    is_vehicle.tolist(), np.asarray(objects["location"]).reshape(-1, 3)[:, 2]
  )
