"""Read all datasets the same way: encoded images by index, with labels in the benchmark's class order.

Images are not decoded here, and TensorFlow is not needed. The result of `open_split` can be pickled for worker
processes; each of them opens the files itself.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Int, Shaped
from PIL import Image

from genbench_jax.benchmark import derived
from genbench_jax.benchmark.prepare import builder_for, is_readable
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import NotPreparedError, RunError, unknown_name
from genbench_jax.runtime.printable import printable, storable
from genbench_jax.runtime.progress import say
from genbench_jax.store.image_files import LINKS, MOST_BYTES, ImageWalk
from genbench_jax.store.reading import read_beneath

_BATCH = 256


class Example(TypedDict):
  """An image as stored, its label (class index, or multi-hot [k]) and its unique name."""

  image: bytes | Image.Image
  label: int | Bool[np.ndarray, "k"]
  id: str


class Split(Sequence[Example], abc.ABC):
  """A split of a dataset: a sequence of examples, with labels available without the images."""

  spec: DatasetSpec

  @abc.abstractmethod
  def labels(self) -> Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]:
    """Return the labels of all examples, in order."""

  @abc.abstractmethod
  def example(self, index: int) -> Example:
    """Return the example at `index`, from 0 to len - 1."""

  def __getitem__(self, index: Any) -> Any:
    position = int(index)
    if not -len(self) <= position < len(self):
      raise IndexError(f"{position} of a split of {len(self)}")
    return self.example(position % len(self))


def open_split(spec: DatasetSpec, split: str, data_dir: str | Path | None = None) -> Split:
  """Open a split for reading.

  Args:
    spec: the dataset.
    split: one of `spec.splits`.
    data_dir: TFDS's data folder; by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

  Raises:
    UsageError: the dataset has no such split.
    RunError: the dataset is not prepared, or its labels are not those of the benchmark.
  """
  if split not in spec.splits:
    raise unknown_name(f"split of '{spec.name}'", split, spec.splits)
  if spec.folder:
    return FolderSplit(spec, split)
  if spec.group == "demo":
    return WorldSplit(spec, split)
  return TfdsSplit(spec, split, data_dir)


class TfdsSplit(Split):
  """A split of a dataset prepared by TFDS as ArrayRecord."""

  def __init__(self, spec: DatasetSpec, split: str, data_dir: str | Path | None):
    self.spec, self.split, self.data_dir = spec, split, data_dir
    self._indices = self._select()
    self._size = len(self._source) if self._indices is None else len(self._indices)

  def __len__(self) -> int:
    return self._size

  def example(self, index: int) -> Example:
    record = self._source[self._record(index)]
    label = self._label(record)
    return {"image": record[self.spec.image_key], "label": label, "id": f"{self.split}/{index:07d}"}

  def labels(self) -> Shaped[np.ndarray, "n ..."]:
    return self._labels

  @property
  def folder(self) -> Path:
    """Folder of the prepared dataset."""
    return Path(self._opened.data_path)

  def shard_names(self) -> list[str]:
    """Return the names of the files that contain the split."""
    names = _tfds_splits(self.spec.splits[self.split])
    return [str(file) for name in names for file in self._opened.info.splits[name].filenames]

  def __getstate__(self) -> dict[str, Any]:
    unopened = {"_opened", "_source", "_feature", "_class_of"}
    return {key: value for key, value in self.__dict__.items() if key not in unopened}

  @functools.cached_property
  def _labels(self) -> Shaped[np.ndarray, "n ..."]:
    records = np.arange(len(self)) if self._indices is None else self._indices
    return np.stack([self._label(record) for record in self._records(records)])

  @functools.cached_property
  def _opened(self) -> Any:
    builder = builder_for(self.spec, self.data_dir)
    if not builder.is_prepared():
      raise NotPreparedError(
        f"'{self.spec.name}' is not prepared in {builder.data_path}. Run"
        f" `genbench benchmark prepare {self.spec.prepare_name}`."
      )
    return builder

  @functools.cached_property
  def _source(self) -> Any:
    import tensorflow_datasets as tfds

    name = self.spec.splits[self.split]
    available = list(self._opened.info.splits)
    if not set(_tfds_splits(name)) <= set(available):
      raise RunError(
        f"'{self.spec.name}' has no TFDS split '{name}'; it has {', '.join(available)}."
      )
    if not is_readable(self._opened):
      raise RunError(
        f"'{self.spec.name}' was prepared as TFRecord in {self._opened.data_path}. Move it away and"
        f" prepare it with `genbench benchmark prepare {self.spec.prepare_name}`."
      )
    # No image feature is decoded here, including segmentation masks.
    features = self._opened.info.features.items()
    images = [key for key, feature in features if isinstance(feature, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in images}
    return self._opened.as_data_source(name, decoders=decoders)

  @functools.cached_property
  def _feature(self) -> Any:
    return self._opened.info.features[self.spec.label_key]

  @functools.cached_property
  def _class_of(self) -> Int[np.ndarray, "c"]:
    """Class index of the benchmark for each of the builder's labels, matched by name."""
    return class_of_label(self.spec, getattr(self._feature, "feature", self._feature).names)

  def _select(self) -> Int[np.ndarray, "n"] | None:
    """Return the records of a derived split; None for a split of TFDS."""
    sizes = derived.DEALS.get(self.spec.data_name)
    if sizes is None:
      return None
    records = list(self._records(np.arange(len(self._source))))
    labels = np.array([self._label(record) for record in records])
    names = [bytes(record["filename"]).decode() for record in records]
    return derived.deal(names, labels, sizes)[self.split]

  def _record(self, index: int) -> int:
    return index if self._indices is None else int(self._indices[index])

  def _records(self, indices: Int[np.ndarray, "n"]) -> Any:
    """Yield the records at these positions without their images, read in batches."""
    for start in range(0, len(indices), _BATCH):
      for record in self._source.__getitems__(indices[start : start + _BATCH].tolist()):
        record.pop(self.spec.image_key)
        yield record

  def _label(self, record: Mapping[str, Any]) -> Any:
    value = record[self.spec.label_key]
    if self.spec.data_name == "kitti_distance":
      return derived.kitti_label(value, self._feature.feature["type"].names)
    if not self.spec.multi_label:
      return int(self._class_of[value])
    hot = np.zeros(self.spec.num_classes, bool)
    hot[self._class_of[np.asarray(value, np.int64)]] = True
    return hot


def _tfds_splits(expression: str) -> list[str]:
  """Return the distinct splits in a TFDS expression such as `train[:50%]+test`."""
  return sorted({part.partition("[")[0].strip() for part in expression.split("+")})


def class_of_label(spec: DatasetSpec, names: Sequence[str]) -> Int[np.ndarray, "c"]:
  """Return the benchmark's class index for each of a builder's label names.

  Raises:
    RunError: the names are not the benchmark's.
  """
  if not spec.label_names:
    return np.arange(len(names))
  position = {label: index for index, label in enumerate(spec.label_names)}
  if unknown := [name for name in names if name not in position]:
    raise RunError(
      f"the prepared '{spec.name}' has labels unknown to the benchmark: {unknown[:3]}."
    )
  return np.array([position[name] for name in names])


class FolderSplit(Split):
  """A split of a user's tree `split/class/image`; ids are paths inside the split.

  The folders of the split and of its classes may be links; below them, links are not followed
  (`store.image_files`). Skipped files are reported when the split is opened.

  Attributes:
    files: (class folder, path inside it, class index) of each image.
  """

  def __init__(self, spec: DatasetSpec, split: str):
    self.spec, self.split = spec, split
    self.root = Path(spec.folder) / spec.splits[split]
    self.files: list[tuple[str, str, int]] = []
    _say_left_out(_beside_classes(self.root))
    for label, folder in enumerate(spec.label_names):
      walk = ImageWalk(self.root / folder)
      self.files += [(folder, path, label) for path in walk.images()]
      _say_left_out(walk)

  def __len__(self) -> int:
    return len(self.files)

  def example(self, index: int) -> Example:
    folder, path, label = self.files[index]
    try:
      image = read_beneath(self.root / folder, path, MOST_BYTES)
    except OSError as error:
      place = printable(str(self.root / folder / path))
      raise RunError(
        f"{place} can't be read any more ({error.strerror}). Leave the folder unchanged during a"
        " run, then run again."
      ) from error
    return {"image": image, "label": label, "id": storable(f"{folder}/{path}")}

  def labels(self) -> Int[np.ndarray, "n"]:
    return np.array([label for *_, label in self.files], np.int64)


def _beside_classes(root: Path) -> ImageWalk:
  """Return a walk that has recorded the images beside the class folders of a split."""
  walk = ImageWalk(root)
  walk.folders()
  # Folders of classes may be links.
  links = [path for path in walk.passed.pop(LINKS, []) if not (root / path).is_dir()]
  if links:
    walk.passed[LINKS] = links
  return walk


def _say_left_out(walk: ImageWalk) -> None:
  for note in walk.notes():
    say(f"{walk.root}: {note}")


class WorldSplit(Split):
  """A split of a demo world, drawn while it is read."""

  def __init__(self, spec: DatasetSpec, split: str):
    self.spec, self.split = spec, split

  def __len__(self) -> int:
    return self.spec.split_sizes[self.split]

  def example(self, index: int) -> Example:
    from genbench_jax.benchmark.worlds import world_example

    drawn = world_example(self.spec.data_name, self.split, index)
    image = Image.fromarray(np.asarray(drawn.image))
    return {"image": image, "label": int(drawn.label), "id": f"{self.split}/{index:07d}"}

  def labels(self) -> Int[np.ndarray, "n"]:
    return np.array([self.example(index)["label"] for index in range(len(self))])


@dataclasses.dataclass(frozen=True)
class SplitImages:
  """The images of a split, as a sequence."""

  split: Split

  def __len__(self) -> int:
    return len(self.split)

  def __getitem__(self, index: int) -> bytes | Image.Image:
    return self.split.example(index)["image"]
