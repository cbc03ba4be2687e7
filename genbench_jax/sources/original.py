"""Images of the dataset's own training split: the yardstick for all other sources."""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.benchmark.reader import Split
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout


def few_shot_order(
  labels: Int[np.ndarray, "n"], per_class: int, seed: int
) -> Int[np.ndarray, "m"]:
  """A seeded choice of at most `per_class` images a class, first all first ones, then all second ones.

  The images of s shots are among those of more shots. A class that has fewer keeps what it has.
  """
  order = np.random.default_rng(seed).permutation(len(labels))
  rank = np.empty(len(labels), np.int64)
  by_class = order[np.argsort(labels[order], kind="stable")]
  counts = np.bincount(labels)
  rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  chosen = np.flatnonzero(rank < per_class)
  return chosen[np.lexsort((labels[chosen], rank[chosen]))]


def copy_shards(
  split: Split, layout: ImageSetLayout, shards: Sequence[int], chosen: Int[np.ndarray, "m"]
) -> Iterator[tuple[int, list[ImageRecord]]]:
  """The records of each shard: the chosen images as they are stored, with their name in the dataset."""
  for shard in shards:
    yield shard, [_record(split, int(chosen[index]), index) for index in layout.shard_range(shard)]


def _record(split: Split, position: int, index: int) -> ImageRecord:
  example = split.example(position)
  return ImageRecord(_encoded(example["image"]), int(example["label"]), index, origin=example["id"])


def _encoded(image: bytes | Image.Image) -> bytes:
  if isinstance(image, bytes):
    return image
  buffer = io.BytesIO()
  image.save(buffer, format="PNG")
  return buffer.getvalue()
