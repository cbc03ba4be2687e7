"""FER-2013: seven facial expressions, 48 x 48 pixels, gray."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow_datasets as tfds

from genbench_jax.benchmark.archives import Archive, members
from genbench_jax.benchmark.builders.base import (
  ArchiveBuilder,
  Examples,
  LabelOf,
  encode_png,
  manual_folder,
  manual_path,
)
from genbench_jax.errors import RunError

# Emotions by their number in the CSV, which differs from our class order.
_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
_SIDE = 48
# The official CSV has 301 MB.
_MAX_CSV_BYTES = 2**30


class Fer2013(ArchiveBuilder):
  """`fer2013.csv` of the Kaggle competition, or the folder version `{train,test}/<label>/<usage>_*.jpg`."""

  HOMEPAGE = "https://www.kaggle.com/competitions/challenges-in-representation-learning-facial-expression-recognition-challenge"
  DESCRIPTION = "Faces showing one of seven emotions."
  CITATION = "Goodfellow et al., Challenges in Representation Learning: A report on three machine learning contests, arXiv:1307.0414, 2013"
  ARCHIVES = tuple(
    Archive(name) for name in (*_CSV_NAMES, "fer2013.tar.gz", "fer2013.zip", "fer2013")
  )
  IMAGE_SHAPE = (_SIDE, _SIDE, 1)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    paths = (manual_path(dl_manager, archive.filename) for archive in self.ARCHIVES)
    path = next((path for path in paths if path is not None), None)
    if path is None:
      raise RunError(
        f"none of {', '.join(archive.filename for archive in self.ARCHIVES)} is in"
        f" {manual_folder(dl_manager)}. Get one at {self.HOMEPAGE}, or the folder version"
        " (msambare/fer2013) as fer2013.zip. train.csv and test.csv are not sufficient, because test.csv has no labels."
      )
    return {split: self._examples(path, usage) for split, usage in _USAGES.items()}

  def _examples(self, path: Path, usage: str) -> Examples:
    if _has_csv(path):
      return _csv_examples(path, usage)
    return self._generate_examples(path, _usage_and_class_folder(usage))


def _has_csv(path: Path) -> bool:
  return path.suffix == ".csv" or any(True for _ in members(path, _is_csv, _MAX_CSV_BYTES))


def _is_csv(name: PurePosixPath) -> bool:
  return name.name in _CSV_NAMES


def _csv_examples(path: Path, usage: str) -> Examples:
  found = False
  for number, row in enumerate(_rows(path), start=1):
    if row["Usage"] == usage:
      found = True
      name = f"{usage}_{number:05d}.png"
      image = encode_png(_pixels(row["pixels"], path, number))
      yield (
        name,
        {"image": image, "label": _emotion(row["emotion"], path, number), "file_name": name},
      )
  if not found:
    raise RunError(f"{path} has no rows with usage {usage!r}. Download it again.")


def _rows(path: Path) -> Iterator[dict[str, str]]:
  contents = (content for _, content in members(path, _is_csv, _MAX_CSV_BYTES))
  content = path.read_bytes() if path.suffix == ".csv" else next(contents)
  # One published version has a space before each column name.
  text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
  rows = csv.DictReader(text, skipinitialspace=True)
  if missing := {"emotion", "pixels", "Usage"} - set(rows.fieldnames or ()):
    raise RunError(f"{path} has no column {min(missing)!r}: it is not the labeled CSV.")
  yield from rows


def _pixels(text: str, path: Path, number: int) -> np.ndarray:
  try:
    values = np.array(text.split(), np.int64)
  except (ValueError, AttributeError, OverflowError):
    values = np.zeros(0, np.int64)
  if len(values) != _SIDE**2 or values.min() < 0 or values.max() > 255:
    raise RunError(
      f"row {number} of {path} does not have {_SIDE**2} pixels from 0 to 255. Download it again."
    )
  return values.astype(np.uint8).reshape(_SIDE, _SIDE)


def _emotion(text: str, path: Path, number: int) -> str:
  if text not in set("0123456"):
    raise RunError(f"row {number} of {path} has emotion {text!r}, expected 0 to 6.")
  return _EMOTIONS[int(text)]


def _usage_and_class_folder(usage: str) -> LabelOf:
  """Return a function that gives the label of `.../<label>/<usage>_<number>.jpg`."""

  def label_of(name: PurePosixPath) -> str | None:
    is_image = name.suffix == ".jpg" and name.name.startswith(f"{usage}_")
    return name.parent.name if is_image else None

  return label_of
