"""What the six builders share: features, and how the official files are found and checked."""

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
# What TFDS asks of a generator: a unique key and the example.
Examples = Iterator[tuple[str, dict[str, Any]]]
# Tells the label of a file in an archive, None if it is none of the images asked for.
LabelOf = Callable[[PurePosixPath], str | None]


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A dataset read straight out of its official archives: encoded bytes, nothing unpacked.

  Prepares and reads without TensorFlow when asked for `file_format="array_record"`.
  """

  VERSION = tfds.core.Version("1.0.0")
  # Lets TFDS offer its manual folder to every one of them; files there go before a download.
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
    """Examples of an archive whose file names tell the label, see `labeled_images`."""
    return labeled_images(path, label_of, frozenset(self.info.features["label"].names))


class FolderBuilder(ArchiveBuilder, skip_registration=True):  # type: ignore[call-arg]
  """One archive of `.../{train,valid,test}/<label>/<image>`."""

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    path = fetch(dl_manager, self.ARCHIVES[0])
    folders = {"train": "train", "validation": "valid", "test": "test"}
    return {
      split: self._generate_examples(path, split_and_class_folders(folder))
      for split, folder in folders.items()
    }


def fetch(dl_manager: tfds.download.DownloadManager, archive: Archive) -> Path:
  """The local path of an official file: from the manual folder if it lies there, else downloaded.

  Raises:
    RunError: if it can't be had, or its checksum is wrong.
  """
  path = manual_path(dl_manager, archive.filename)
  if path is None:
    path = _download(dl_manager, archive)
  check_md5(path, archive.md5)
  return path


def manual_path(dl_manager: tfds.download.DownloadManager, name: str) -> Path | None:
  """The file or folder of this name in the manual folder, if there is one."""
  path = manual_folder(dl_manager) / name
  return path if path.exists() else None


def manual_folder(dl_manager: tfds.download.DownloadManager) -> Path:
  """Where the user may put official files. TFDS's own property raises where it is empty."""
  return Path(dl_manager._manual_dir)


def _download(dl_manager: tfds.download.DownloadManager, archive: Archive) -> Path:
  folder = manual_folder(dl_manager)
  if not archive.url:
    raise RunError(f"'{archive.filename}' is missing: put it into {folder}.")
  try:
    return Path(dl_manager.download(archive.url))
  except Exception as error:  # TFDS lets through whatever the network layer raises.
    raise RunError(
      f"can't download {archive.url} ({error}): put '{archive.filename}' into {folder}."
    ) from error


def labeled_images(path: Path, label_of: LabelOf, known: frozenset[str]) -> Examples:
  """Examples of an archive whose file names tell the label; files whose label is None are left out.

  Raises:
    RunError: if a label is unknown, or no file has one.
  """
  found = False
  for name, content in members(path, lambda name: label_of(name) is not None):
    label = label_of(name)
    if label not in known:
      raise RunError(f"{path} holds '{name}', but '{label}' is no class of this dataset.")
    found = True
    yield str(name), {"image": content, "label": label, "file_name": str(name)}
  if not found:
    raise RunError(f"{path} has no images where the official archive has them.")


def split_and_class_folders(folder: str) -> LabelOf:
  """Tells the label of `.../<folder>/<label>/<image>`."""

  def label_of(name: PurePosixPath) -> str | None:
    if len(name.parts) < 3 or name.parts[-3] != folder or name.suffix.lower() not in IMAGE_SUFFIXES:
      return None
    return None if name.name.startswith(".") else name.parts[-2]

  return label_of


def named_images(path: Path, folder: str, labels: dict[str, str]) -> Examples:
  """Examples of the images `.../<folder>/<name>` that `labels` names, in the archive's order.

  Raises:
    RunError: if some of them are missing.
  """
  missing = dict(labels)

  def is_listed(name: PurePosixPath) -> bool:
    return name.parent.name == folder and name.name in missing

  for name, content in members(path, is_listed):
    label = missing.pop(name.name)
    yield name.name, {"image": content, "label": label, "file_name": name.name}
  if missing:
    raise RunError(
      f"{path} lacks {len(missing)} of {len(labels)} listed images, '{min(missing)}' among them:"
      " fetch it again."
    )


def encode_png(pixels: UInt8[np.ndarray, "h w *channels"]) -> bytes:
  """The image as PNG, which loses nothing."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format="PNG")
  return buffer.getvalue()


def as_png(encoded: bytes) -> bytes:
  """The same image as PNG; what can't be decoded stays as it is, for the reader to count as corrupt."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      return encode_png(np.asarray(image))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return encoded
