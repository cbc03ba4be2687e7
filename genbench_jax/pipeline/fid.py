"""FID and KID between two folders of images, comparable with papers."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32

from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.input_pipeline import Preprocessing, image_batches
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import RunError, UsageError, unknown_name
from genbench_jax.metrics.class_distances import distances_by_class, frechet_of_few
from genbench_jax.metrics.fd_infinity import SMALLEST, fd_infinity
from genbench_jax.metrics.inception import MeanOverParts, fid_inception, kid_inception
from genbench_jax.metrics.reference_statistics import (
  ReferenceStatistics,
  read_statistics,
  statistics_of,
  write_statistics,
)
from genbench_jax.models.image_encoder import load_image_encoder
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store.image_files import ImageWalk

Features: TypeAlias = Float32[np.ndarray, "n d"]
# With fewer images in a set, the distance is mostly bias.
FEW = 2048


@dataclasses.dataclass(frozen=True)
class FolderDistance:
  """Distance between two sets of images.

  Attributes:
    fid: Fréchet distance of their features.
    kid: kernel distance over random subsets; None if a side consists of statistics.
    images: number of images of each side; 0 for statistics.
    encoder: the encoder of the features.
    resize: how images were resized to the encoder's input.
    fingerprint: SHA-256 of the encoder's weights.
    fd_infinity: FID extrapolated to infinitely many images of the first folder; None with statistics, or with
      too few images.
    by_class: FID of the images in each subfolder that both folders have, if there are a few in both.
  """

  fid: float
  kid: MeanOverParts | None
  images: tuple[int, int]
  encoder: str
  resize: str
  fingerprint: str
  fd_infinity: float | None = None
  by_class: Mapping[str, float] = dataclasses.field(default_factory=dict)


class FolderFeatures(NamedTuple):
  """The readable images of a folder.

  Attributes:
    features: one row an image.
    classes: the first subfolder of each image's path; empty for an image directly in the folder.
  """

  features: Features
  classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FolderImages:
  """The images below a folder, without hidden files and links."""

  walk: ImageWalk
  paths: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> bytes:
    return self.walk.read(self.paths[index])


def fid_between_folders(
  first: str | Path,
  second: str | Path,
  encoder: str = "inception",
  resize: Resize | None = None,
  batch_per_device: int = 32,
  save: str | Path | None = None,
  revision: str | None = None,
  sha256: str = "",
) -> FolderDistance:
  """Return the distance between two folders of images.

  Args:
    first: folder of images of any size, nested to any depth.
    second: another folder, or reference statistics: an .npz with `mu` and `sigma`.
    encoder: encoder of the features; FID uses `inception` or `inception:FILE.safetensors`.
    resize: `clean` or `legacy` for Inception, else `crop` or `squash`; by default the encoder's
      own.
    batch_per_device: images on each device at once.
    save: file for the statistics of `first`, for later comparisons.
    revision: commit, tag or branch, if the encoder comes from the hub.
    sha256: expected fingerprint of the encoder's weights; empty accepts any.

  Raises:
    UsageError: a folder or checkpoint does not exist, a folder has fewer than two readable images,
      or `save` is a folder.
    RunError: the checkpoint is damaged, or its fingerprint is not `sha256`.
  """
  if save is not None and Path(save).is_dir():
    raise UsageError(f"{save} is a folder; name a file for the statistics.")
  loaded = load_image_encoder(encoder, revision)
  if sha256 and sha256.lower() != loaded.fingerprint:
    raise RunError(f"the weights of {encoder!r} have SHA-256 {loaded.fingerprint}, not {sha256}.")
  ways = loaded.input.ways
  if resize is not None and resize not in ways:
    raise unknown_name("resize method for this encoder", resize, ways)
  way = ways[0] if resize is None else resize
  embedder = ImageEmbedder(loaded, batch_per_device=batch_per_device)
  how = Preprocessing(loaded.input, way)  # type: ignore[arg-type]
  # Both are opened before the first is embedded, which may take hours.
  opened = [_opened(Path(place).expanduser(), loaded.width) for place in (first, second)]
  sides = [
    side if isinstance(side, ReferenceStatistics) else _featured(side, embedder, how)
    for side in opened
  ]
  statistics = [
    side if isinstance(side, ReferenceStatistics) else statistics_of(side.features)
    for side in sides
  ]
  if save is not None:
    write_statistics(save, statistics[0])
  folders = [side for side in sides if isinstance(side, FolderFeatures)]
  counts = [len(side.features) if isinstance(side, FolderFeatures) else 0 for side in sides]
  if any(len(folder.features) < FEW for folder in folders):
    say(
      f"fewer than {FEW} images: this FID is mostly bias. Compare it only with values for as many images."
    )
  found = FolderDistance(
    fid_inception(statistics[0], statistics[1]), None, (counts[0], counts[1]), encoder, str(way),
    loaded.fingerprint,
  )  # fmt: skip
  return found if len(folders) < 2 else _of_images(found, *folders)


def _of_images(
  found: FolderDistance, first: FolderFeatures, second: FolderFeatures
) -> FolderDistance:
  """Add what needs the images themselves: KID, the limit of many images, and the distance of each class."""
  x, y = first.features, second.features
  has_limit = len(x) * SMALLEST > x.shape[1]
  return dataclasses.replace(
    found,
    kid=kid_inception(x, y),
    fd_infinity=fd_infinity(x, y) if has_limit else None,
    by_class=_by_class(first, second),
  )


def _by_class(first: FolderFeatures, second: FolderFeatures) -> dict[str, float]:
  names = sorted({*first.classes} & {*second.classes} - {""})
  # Images of other classes share a label that no image of the other folder has.
  own, others = (
    np.array([names.index(c) if c in names else len(names) + side for c in folder.classes], int)
    for side, folder in enumerate((first, second))
  )
  found = distances_by_class(first.features, second.features, own, others, frechet_of_few)
  return {names[c]: value for c, value in found.items()}


def _opened(place: Path, width: int) -> FolderImages | ReferenceStatistics:
  """Return the images of a folder, or the statistics in a file."""
  if place.is_file() and place.suffix == ".npz":
    found = read_statistics(place)
    if len(found.mean) != width:
      raise UsageError(f"{place} has {len(found.mean)} features, but the encoder has {width}.")
    return found
  if not place.is_dir():
    raise UsageError(f"{place} is neither a folder of images nor an .npz of statistics.")
  walk = ImageWalk(place)
  images = FolderImages(walk, tuple(walk.images()))
  for note in walk.notes():
    say(f"{place}: {note}")
  _refuse_few(place, len(images))
  return images


def _refuse_few(place: Path, count: int) -> None:
  if count < 2:
    raise UsageError(f"{place} has {count} readable images; a distance needs at least 2.")


def _featured(images: FolderImages, embedder: ImageEmbedder, how: Preprocessing) -> FolderFeatures:
  """Return the features of the images that can be read."""
  place = images.walk.root
  features, read = _features(images, embedder, how, str(place))
  _refuse_few(place, len(features))
  paths = [path for path, is_read in zip(images.paths, read, strict=True) if is_read]
  return FolderFeatures(
    features, tuple(path.rpartition("/")[0].partition("/")[0] for path in paths)
  )


def _features(
  images: FolderImages, embedder: ImageEmbedder, how: Preprocessing, what: str
) -> tuple[Features, Bool[np.ndarray, "n"]]:
  """Return the features of the readable images, and which are readable."""
  valid: list[np.ndarray] = []

  def pixels() -> Iterator[Float32[np.ndarray, "b h w 3"]]:
    for batch in image_batches(images, how, embedder.batch_size, what=what):
      valid.append(batch.valid)
      yield batch.pixels

  parts: list[Features] = [np.zeros((0, embedder.encoder.width), np.float32)]
  with Progress(what, len(images), "images") as progress:
    for part in embedder.stream(pixels()):
      parts.append(part)
      progress.reach(min(len(images), sum(map(len, parts))))
  read = np.concatenate([*valid, np.zeros(0, bool)])
  return np.concatenate(parts)[read], read[: len(images)]  # the last batch is padded
