"""Images of the dataset's own training split: the yardstick for all other sources."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from genbench_jax.benchmark.reader import Split
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout


def copy_shards(
  split: Split, layout: ImageSetLayout, shards: Sequence[int], chosen: Int[np.ndarray, "m"]
) -> Iterator[tuple[int, list[ImageRecord]]]:
  """The records of each shard: the chosen images as they are stored, with their name in the dataset."""
  for shard in shards:
    yield shard, [_record(split, int(chosen[index]), index) for index in layout.shard_range(shard)]


def _record(split: Split, position: int, index: int) -> ImageRecord:
  example = split.example(position)
  return ImageRecord(
    _encoded(example["image"]), _label(example["label"]), index, origin=example["id"]
  )


def _label(label: int | Bool[np.ndarray, "k"]) -> int | tuple[int, ...]:
  return int(label) if np.ndim(label) == 0 else tuple(np.flatnonzero(label).tolist())


def _encoded(image: bytes | Image.Image) -> bytes:
  if isinstance(image, bytes):
    return image
  buffer = io.BytesIO()
  image.save(buffer, format="PNG")
  return buffer.getvalue()
