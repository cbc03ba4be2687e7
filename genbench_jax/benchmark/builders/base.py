"""Shared by the six builders: features, and locating and checking the official files."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from genbench_jax.benchmark.archives import Archive, check_md5, members
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.errors import RunError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
# What TFDS expects from a generator: a unique key and the example.
Examples = Iterator[tuple[str, dict[str, Any]]]
# Returns the label of a file in an archive; None if the file is not a wanted image.
LabelOf = Callable[[PurePosixPath], str | None]


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A dataset that is read directly from its official archives, as encoded bytes.

  With `file_format="array_record"` it prepares and reads without TensorFlow.
  """

  VERSION = tfds.core.Version("1.0.0")
  # Makes TFDS use the manual folder; files in it take precedence over a download.
  MANUAL_DOWNLOAD_INSTRUCTIONS = "See `python -m genbench_jax.benchmark`."
  HOMEPAGE: ClassVar[str]
  DESCRIPTION: ClassVar[str]
  CITATION: ClassVar[str]
  ARCHIVES: ClassVar[tuple[Archive, ...]]
  IMAGE_SHAPE: ClassVar[tuple[int | None, int | None, int]] = (None, None, 3)

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=self.IMAGE_SHAPE),
      "label": tfds.features.ClassLabel(names=dataset_spec(self.name).label_names),
      "file_name": tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
      homepage=self.HOMEPAGE,
      citation=self.CITATION,
    )

  def _generate_examples(self, path: Path, label_of: LabelOf) -> Examples:
    """Yield the examples of an archive whose file names determine the label, see `labeled_images`."""
    return labeled_images(path, label_of, frozenset(self.info.features["label"].names))


class FolderBuilder(ArchiveBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A single archive of `.../{train,valid,test}/<label>/<image>`."""

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    path = fetch(dl_manager, self.ARCHIVES[0])
    folders = {"train": "train", "validation": "valid", "test": "test"}
    return {
      split: self._generate_examples(path, split_and_class_folders(folder))
      for split, folder in folders.items()
    }


def fetch(dl_manager: tfds.download.DownloadManager, archive: Archive) -> Path:
  """Return the local path of an official file: in the manual folder, or downloaded.

  Raises:
    RunError: it is not available, or its checksum is wrong.
  """
  path = manual_path(dl_manager, archive.filename)
  if path is None:
    path = _download(dl_manager, archive)
  check_md5(path, archive.md5)
  return path


def manual_path(dl_manager: tfds.download.DownloadManager, name: str) -> Path | None:
  """Return the file or folder with this name in the manual folder, if it exists."""
  path = manual_folder(dl_manager) / name
  return path if path.exists() else None


def manual_folder(dl_manager: tfds.download.DownloadManager) -> Path:
  """Return the folder for official files from the user. TFDS's own property raises if it is empty."""
  return Path(dl_manager._manual_dir)


def _download(dl_manager: tfds.download.DownloadManager, archive: Archive) -> Path:
  folder = manual_folder(dl_manager)
  if not archive.url:
    raise RunError(f"'{archive.filename}' is missing. Put it into {folder}.")
  try:
    return Path(dl_manager.download(archive.url))
  except Exception as error:  # TFDS passes on any error of the network layer
    raise RunError(
      f"can't download {archive.url} ({error}). Put '{archive.filename}' into {folder}."
    ) from error


def labeled_images(path: Path, label_of: LabelOf, known: frozenset[str]) -> Examples:
  """Yield the examples of an archive whose file names determine the label; files with label None are skipped.

  Args:
    path: the archive.
    label_of: returns the label of a file name.
    known: all valid labels.

  Raises:
    RunError: a label is unknown, or no file has one.
  """
  found = False
  for name, content in members(path, lambda name: label_of(name) is not None):
    label = label_of(name)
    if label not in known:
      raise RunError(f"{path} contains '{name}', but '{label}' is not a class of this dataset.")
    found = True
    yield str(name), {"image": content, "label": label, "file_name": str(name)}
  if not found:
    raise RunError(f"{path} has no images at the places of the official archive.")


def split_and_class_folders(folder: str) -> LabelOf:
  """Return a function that gives the label of `.../<folder>/<label>/<image>`."""

  def label_of(name: PurePosixPath) -> str | None:
    if len(name.parts) < 3 or name.parts[-3] != folder or name.suffix.lower() not in IMAGE_SUFFIXES:
      return None
    return None if name.name.startswith(".") else name.parts[-2]

  return label_of


def named_images(path: Path, folder: str, labels: dict[str, str]) -> Examples:
  """Yield the examples for the images `.../<folder>/<name>` in `labels`, in the archive's order.

  Args:
    path: the archive.
    folder: folder of the images.
    labels: image name -> label.

  Raises:
    RunError: an image is missing.
  """
  missing = dict(labels)

  def is_listed(name: PurePosixPath) -> bool:
    return name.parent.name == folder and name.name in missing

  for name, content in members(path, is_listed):
    label = missing.pop(name.name)
    yield name.name, {"image": content, "label": label, "file_name": name.name}
  if missing:
    raise RunError(
      f"{path} lacks {len(missing)} of {len(labels)} listed images, such as '{min(missing)}'."
      " Download it again."
    )


def encode_png(pixels: UInt8[np.ndarray, "h w *channels"]) -> bytes:
  """Encode an image as PNG, which is lossless."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format="PNG")
  return buffer.getvalue()


def as_png(encoded: bytes) -> bytes:
  """Re-encode an image as PNG; return undecodable bytes unchanged, which the reader counts as corrupt."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      return encode_png(np.asarray(image))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return encoded
