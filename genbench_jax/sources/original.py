"""Images of the dataset's own training split, the baseline for all other sources."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.reader import Split
from genbench_jax.cells import ImageSetKey
from genbench_jax.embedding.plain_image import plain_image
from genbench_jax.run import Run
from genbench_jax.sources.source import ImageSource, NeededValues, ShardRecords
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout


class Original(ImageSource):
  """A seeded few-shot subset of the dataset's training images."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    return {"images": run.digest(key.dataset, "train")}

  def size(self, run: Run, key: ImageSetKey) -> int:
    return len(chosen_originals(run, key))

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    return run.config.spec(key.dataset).multi_label

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    labels = run.labels(key.dataset, "train")
    return {shots: len(few_shot(labels, shots, key.seed)) for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return self.shot_sizes(run, key)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    split = run.split(key.dataset, "train")
    return copy_shards(split, layout, shards, chosen_originals(run, key))


def chosen_originals(run: Run, key: ImageSetKey) -> Int[np.ndarray, "m"]:
  """Return the rows of the training images in a set of originals, in its order."""
  return few_shot(run.labels(key.dataset, "train"), run.per_class, key.seed)


def copy_shards(
  split: Split, layout: ImageSetLayout, shards: Sequence[int], chosen: Int[np.ndarray, "m"]
) -> ShardRecords:
  """Yield the records of each shard: the chosen images as stored, with their names in the dataset.

  Args:
    split: split of the dataset.
    layout: layout of the image set.
    shards: shards to make.
    chosen: rows of the split, in the set's order.
  """
  for shard in shards:
    yield shard, [_record(split, int(chosen[index]), index) for index in layout.shard_range(shard)]


def _record(split: Split, position: int, index: int) -> ImageRecord:
  example = split.example(position)
  return ImageRecord(
    plain_image(example["image"]), _label(example["label"]), index, origin=example["id"]
  )


def _label(label: int | Bool[np.ndarray, "k"]) -> int | tuple[int, ...]:
  return int(label) if np.ndim(label) == 0 else tuple(np.flatnonzero(label).tolist())
