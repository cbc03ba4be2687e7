"""The German Traffic Sign Recognition Benchmark, with the reference's splits."""

import csv
import io
from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds

from genbench_jax.benchmark.archives import Archive, members
from genbench_jax.benchmark.builders.base import (
  ArchiveBuilder,
  Examples,
  LabelOf,
  as_png,
  fetch,
  named_images,
)
from genbench_jax.errors import RunError

_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


def _archive(filename: str, md5: str = "") -> Archive:
  return Archive(filename, _URL + filename, md5)


class Gtsrb(ArchiveBuilder):
  """Train: training set of the online competition; validation: its test set; test: the final test set.

  Images are whole, not cropped to the sign. They are delivered as PPM and stored as PNG, losslessly.
  """

  HOMEPAGE = "https://benchmark.ini.rub.de/"
  DESCRIPTION = "Photographs of German traffic signs of 43 kinds."
  CITATION = "Stallkamp et al., Man vs. computer: benchmarking machine learning algorithms for traffic sign recognition, Neural Networks 32, 2012"
  ARCHIVES = (
    _archive("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
    _archive("GTSRB_Online-Test-Images-Sorted.zip"),
    _archive("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
    _archive("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    train, online, test, truth = (fetch(dl_manager, archive) for archive in self.ARCHIVES)
    labels = _test_labels(truth)
    return {
      "train": self._generate_examples(train, _class_folder),
      "validation": self._generate_examples(online, _class_folder),
      "test": _stored_as_png(named_images(test, "Images", labels)),
    }

  def _generate_examples(self, path: Path, label_of: LabelOf) -> Examples:
    return _stored_as_png(super()._generate_examples(path, label_of))


def _stored_as_png(examples: Examples) -> Examples:
  for key, example in examples:
    yield key, {**example, "image": as_png(example["image"])}


def _class_folder(name: PurePosixPath) -> str | None:
  """Return the label of `.../<five digits>/<image>.ppm`."""
  folder = name.parent.name
  is_class = len(folder) == 5 and folder.isascii() and folder.isdigit()
  return folder if is_class and name.suffix == ".ppm" else None


def _test_labels(path: Path) -> dict[str, str]:
  """Return file name -> label, from `GT-final_test.csv`."""
  for _, content in members(path, lambda name: name.name == "GT-final_test.csv"):
    rows = csv.DictReader(io.StringIO(content.decode()), delimiter=";")
    try:
      return {row["Filename"]: f"{int(row['ClassId']):05d}" for row in rows}
    except (KeyError, TypeError, ValueError) as error:
      raise RunError(
        f"GT-final_test.csv in {path} differs from the published file ({error!r})."
      ) from error
  raise RunError(f"{path} lacks GT-final_test.csv. Delete it and download it again.")
