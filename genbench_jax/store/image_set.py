"""Image sets: labeled images as a TFDS dataset in ArrayRecord shards, written one shard at a time.

An image set is a folder. Shards are fixed ranges of the image index. Each shard is written under a temporary
name, flushed, renamed, and then sealed by a small file with its checksum and labels. Then the labels are
joined to one file. The manifest is written last, so that a set with a manifest is complete.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genbench_jax.errors import RunError
from genbench_jax.runtime.npz import NPY_DAMAGE
from genbench_jax.store import files
from genbench_jax.store.reading import regular

SPLIT = "train"
MANIFEST = "manifest.json"
LABELS = "labels.npy"
# Metadata that TFDS needs to open a set.
TFDS_FILES = ("dataset_info.json", "features.json")


@dataclasses.dataclass(frozen=True)
class ImageRecord:
  """An encoded image with its class and origin. `prompt` is empty for real images."""

  image: bytes
  label: int | tuple[int, ...]
  index: int
  prompt: str = ""
  negative_prompt: str = ""
  seed: int = 0
  origin: str = ""


@dataclasses.dataclass(frozen=True)
class ImageSetLayout:
  """Description of an image set, known before the first image is made.

  Attributes:
    name: a TFDS name, `[a-z][a-z0-9_]*`.
    class_names: name of each class; need not be distinct.
    num_images: number of images.
    shard_size: images per shard; shard s starts at image s * shard_size.
    made_from: everything that determines the images, as JSON.
    multi_label: whether an image may have several classes.
  """

  name: str
  class_names: tuple[str, ...]
  num_images: int
  shard_size: int
  made_from: Mapping[str, Any]
  multi_label: bool = False

  @property
  def num_shards(self) -> int:
    """Number of shards; at least one."""
    return max(1, -(-self.num_images // self.shard_size))

  def shard_range(self, shard: int) -> range:
    """Return the indices of a shard's images."""
    start = shard * self.shard_size
    return range(start, min(start + self.shard_size, self.num_images))

  @property
  def fingerprint(self) -> str:
    return images_digest(self.class_names, self.shard_size, self.made_from)


def images_digest(class_names: Sequence[str], shard_size: int, made_from: Mapping[str, Any]) -> str:
  """Return the digest in an image set's name. It does not depend on the size, which may not be known yet.

  Args:
    class_names: name of each class.
    shard_size: images per shard.
    made_from: everything that determines the images, as JSON.
  """
  return files.digest([class_names, shard_size, made_from])


class ImageSetWriter:
  """Write the missing shards of an image set, one per call, and complete it with the manifest."""

  def __init__(self, folder: Path, layout: ImageSetLayout) -> None:
    self.folder = folder
    self.layout = layout

  def missing_shards(self, among: Iterable[int] | None = None) -> list[int]:
    """Return the shards that are missing or incomplete, of all or of the given ones."""
    shards = range(self.layout.num_shards) if among is None else among
    return [shard for shard in shards if not self._is_sealed(shard)]

  def is_whole(self) -> bool:
    """Return whether every shard is sealed."""
    return all(self._seal_path(shard).exists() for shard in range(self.layout.num_shards))

  def prepare(self) -> None:
    """Import what writing needs. Call this before another thread writes.

    While TFDS is imported, it replaces Python's import function by a lazy one for all threads.
    """
    _ = self._features

  def write_shard(self, shard: int, records: Sequence[ImageRecord]) -> None:
    """Write one shard; `records` must be those of the shard's range, in order.

    Raises:
      ValueError: the records are not those of the shard's range.
    """
    from array_record.python import array_record_module

    expected = list(self.layout.shard_range(shard))
    if [record.index for record in records] != expected:
      raise ValueError(f"shard {shard} takes the images {expected[:1]}..{expected[-1:]} in order")
    path = self._shard_path(shard)
    payload = [_serialize(self._features, record) for record in records]
    with files.atomic_path(path) as temporary:
      writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
      for record in payload:
        writer.write(record)
      writer.close()
    seal = {
      "sha256": files.sha256(path),
      "images": len(payload),
      "bytes": sum(map(len, payload)),
      "labels": [record.label for record in records],
    }
    files.write_json(self._seal_path(shard), seal)

  def close(self) -> "ImageSet":
    """Write TFDS's metadata, the labels and the manifest. Every shard must have been written."""
    seals = [files.read_json(self._seal_path(s)) for s in range(self.layout.num_shards)]
    files.write_array(self.folder / LABELS, _joined_labels(self.layout, seals))
    _write_tfds_metadata(self.folder, self.layout, self._features, seals)
    labels = files.sha256(self.folder / LABELS)
    metadata = {name: files.sha256(self.folder / name) for name in TFDS_FILES}
    sealed = {"labels_sha256": labels, "metadata_sha256": metadata}
    manifest = {**dataclasses.asdict(self.layout), "shards": seals, **sealed}
    files.write_json(self.folder / MANIFEST, manifest)
    return ImageSet(self.folder)

  def _is_sealed(self, shard: int) -> bool:
    path, seal = self._shard_path(shard), self._seal_path(shard)
    try:
      return path.exists() and files.read_json(seal)["sha256"] == files.sha256(path)
    except (FileNotFoundError, RunError, KeyError, TypeError):  # no seal, or an invalid one
      return False

  def _shard_path(self, shard: int) -> Path:
    total = self.layout.num_shards
    return self.folder / f"{self.layout.name}-{SPLIT}.array_record-{shard:05d}-of-{total:05d}"

  def _seal_path(self, shard: int) -> Path:
    return self.folder / "seals" / f"{shard:05d}.json"

  @functools.cached_property
  def _features(self) -> Any:
    return tfds_features(self.layout.class_names, self.layout.multi_label)


class ImageSet:
  """A complete image set on disk."""

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    self.manifest = _checked_manifest(folder / MANIFEST)

  @staticmethod
  def exists(folder: Path) -> bool:
    """Return whether a folder contains a complete image set."""
    return (folder / MANIFEST).exists()

  @property
  def fingerprint(self) -> str:
    return files.digest(self.manifest)

  @property
  def class_names(self) -> tuple[str, ...]:
    return tuple(self.manifest["class_names"])

  @property
  def labels(self) -> Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]:
    """Labels of all images, without reading the shards: class indices, or multi-hot.

    Raises:
      RunError: the file is damaged, or contains pickled objects, which could run code.
    """
    path = self.folder / LABELS
    self._check_labels(path)
    try:
      if not path.is_file():  # opening a pipe would wait forever
        raise OSError("not a regular file")
      labels = np.load(path, allow_pickle=False)
    except NPY_DAMAGE as error:
      raise RunError(f"{path} is damaged ({error}). {self._how_to_mend()}") from error
    if not isinstance(labels, np.ndarray) or len(labels) != len(self):
      raise RunError(f"{path} is damaged: expected {len(self)} labels. {self._how_to_mend()}")
    return labels

  def _check_labels(self, path: Path) -> None:
    expected = self.manifest.get("labels_sha256")
    if expected and path.is_file() and files.sha256(path) != expected:
      raise RunError(f"{path} is damaged (its checksum differs). {self._how_to_mend()}")

  def __len__(self) -> int:
    return self.manifest["num_images"]

  def __getitem__(self, index: int) -> ImageRecord:
    try:
      with files.reading(self.folder, self._how_to_mend()):
        return _record(self._source[index])
    except RunError:
      self.verify(range(index, index + 1))  # raises an error that names the shard
      raise

  def __iter__(self) -> Iterator[ImageRecord]:
    return (self[index] for index in range(len(self)))

  def verify(self, rows: range | None = None) -> None:
    """Verify the checksum of every shard, or of those with the given images.

    Raises:
      RunError: a shard is missing or damaged.
    """
    size = self.manifest["shard_size"]
    for shard in range(len(self.manifest["shards"])):
      if rows is None or (rows.start < (shard + 1) * size and shard * size < rows.stop):
        self.verify_shard(shard)

  def verify_shard(self, shard: int) -> None:
    """Verify the checksum of one shard; see `verify`.

    Raises:
      RunError: the shard is missing or damaged.
    """
    path = self.shard_paths()[shard]
    if not path.exists():
      raise RunError(f"shard {path} is missing. {self._how_to_mend()}")
    if files.sha256(path) != self.manifest["shards"][shard]["sha256"]:
      raise RunError(
        f"shard {path} is damaged (its checksum differs). Delete {self.folder / MANIFEST},"
        " then run again: only this shard is remade."
      )

  def _how_to_mend(self) -> str:
    return f"Delete {self.folder / MANIFEST}, then run again."

  def shard_paths(self) -> list[Path]:
    """Return the paths of the shards, in order."""
    name, total = self.manifest["name"], len(self.manifest["shards"])
    return [
      self.folder / f"{name}-{SPLIT}.array_record-{shard:05d}-of-{total:05d}"
      for shard in range(total)
    ]

  @functools.cached_property
  def _source(self) -> Any:
    import tensorflow_datasets as tfds

    with files.reading(self.folder / "dataset_info.json", self._how_to_mend()):
      for path in self.folder.iterdir():
        if not path.is_dir():
          regular(path)
      builder = tfds.builder_from_directory(self.folder)
      return builder.as_data_source(SPLIT, decoders={"image": tfds.decode.SkipDecoding()})


def _checked_manifest(path: Path) -> dict[str, Any]:
  """Return a manifest after checking every field that is used.

  Raises:
    RunError: the manifest is damaged.
  """
  manifest = files.read_json(path)
  kinds = {
    "name": str,
    "class_names": list,
    "num_images": int,
    "shard_size": int,
    "made_from": dict,
    "shards": list,
  }
  for key, kind in kinds.items():
    if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
      raise RunError(f"{path} is damaged: it has no valid {key!r}. Delete it, then run again.")
  if manifest["shard_size"] < 1 or not all(
    isinstance(shard, dict) and {"sha256", "images"} <= set(shard) for shard in manifest["shards"]
  ):
    raise RunError(f"{path} is damaged: it has no valid list of shards. Delete it, then run again.")
  return manifest


def layout_of(manifest: Mapping[str, Any]) -> ImageSetLayout:
  """Return the layout that a manifest describes."""
  known = {field.name: manifest[field.name] for field in dataclasses.fields(ImageSetLayout)}
  return ImageSetLayout(**{**known, "class_names": tuple(known["class_names"])})


def tfds_features(class_names: Sequence[str], multi_label: bool = False) -> Any:
  """Return the TFDS features of an image set: image, label(s), and how the image was made."""
  import tensorflow_datasets as tfds

  label = tfds.features.ClassLabel(names=distinct_names(class_names))
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
      "label": tfds.features.Sequence(label) if multi_label else label,
      "index": np.int64,
      "seed": np.int64,
      "prompt": tfds.features.Text(),
      "negative_prompt": tfds.features.Text(),
      "origin": tfds.features.Text(),
    }
  )


def _joined_labels(
  layout: ImageSetLayout, seals: Iterable[dict[str, Any]]
) -> Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]:
  """Return the labels of all shards, and remove them from the seals."""
  labels = [label for seal in seals for label in seal.pop("labels")]
  if not layout.multi_label:
    return np.array(labels, np.int32)
  hot = np.zeros((len(labels), len(layout.class_names)), bool)
  for row, classes in zip(hot, labels, strict=True):
    row[classes] = True
  return hot


def distinct_names(class_names: Sequence[str]) -> list[str]:
  """Return the names, with a number appended to repeated ones."""
  counts = dict.fromkeys(class_names, 0)
  distinct = []
  for name in class_names:
    counts[name] += 1
    distinct.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
  return distinct


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
  """Encode an image as PNG, lossless and deterministic."""
  from PIL import Image

  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
  return buffer.getvalue()


def _serialize(features: Any, record: ImageRecord) -> bytes:
  """Serialize a record as a tf.train.Example with ordered keys, so that equal records give equal bytes."""
  from tensorflow_datasets.proto import tf_example_pb2

  serialized = features.serialize_example(features.encode_example(_example(record)))
  return tf_example_pb2.Example.FromString(serialized).SerializeToString(deterministic=True)


def _example(record: ImageRecord) -> dict[str, Any]:
  example = dataclasses.asdict(record)
  example["image"] = io.BytesIO(record.image)
  if not isinstance(record.label, int):
    example["label"] = list(record.label)
  return example


def _record(example: Mapping[str, Any]) -> ImageRecord:
  label = np.asarray(example["label"])
  return ImageRecord(
    image=example["image"],
    label=int(label) if label.ndim == 0 else tuple(int(index) for index in label),
    index=int(example["index"]),
    seed=int(example["seed"]),
    **{key: example[key].decode("utf-8") for key in ("prompt", "negative_prompt", "origin")},
  )


def _write_tfds_metadata(
  folder: Path, layout: ImageSetLayout, features: Any, seals: Sequence[Mapping[str, Any]]
) -> None:
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=layout.name, split=SPLIT, filetype_suffix="array_record"
  )
  split = tfds.core.SplitInfo(
    name=SPLIT,
    shard_lengths=[seal["images"] for seal in seals],
    num_bytes=sum(seal["bytes"] for seal in seals),
    filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=features,
    split_infos=[split],
    check_data=False,
    description=json.dumps(layout.made_from, sort_keys=True, ensure_ascii=False),
  )


@dataclasses.dataclass(frozen=True)
class StoredImages:
  """The encoded images of an image set, as a sequence."""

  images: ImageSet

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> bytes:
    return self.images[index].image
