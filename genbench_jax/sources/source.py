"""What a source of images is to the stages: each makes the image sets of its keys, shard by shard."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from genbench_jax.cells import ImageSetKey
from genbench_jax.run import Run
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout

ShardRecords = Iterator[tuple[int, list[ImageRecord]]]


@runtime_checkable
class ImageSource(Protocol):
  """A source of images. Add one by a class in a file of its own and a line in `sources.registry`."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    """Everything that determines the images besides the key, as JSON: it names the image set."""

  def size(self, run: Run, key: ImageSetKey) -> int:
    """How many images the set has, known before the first is made."""

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    """Whether an image may have several labels."""

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """shots -> how many images: the s-shot set is the beginning of the image set."""

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """shots -> how many real images the set of so many shots has seen: its own, references, queries."""

  def records(
    self, run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int]
  ) -> ShardRecords:
    """The records of each of the given shards, in order."""
