"""What a source of images is to the stages: each makes the image sets of its keys, shard by shard."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from genbench_jax.cells import ImageSetKey
from genbench_jax.run import FeatureSpace, Run
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout

ShardRecords = Iterator[tuple[int, list[ImageRecord]]]


class TestFeatures(NamedTuple):
  """The features of a dataset's test images, in the run's own encoder."""

  run: Run
  dataset: str


class Images(NamedTuple):
  """Another image set, whole."""

  run: Run
  key: ImageSetKey


class ImageFeatures(NamedTuple):
  """The features of another image set in some encoder."""

  run: Run
  key: ImageSetKey
  space: FeatureSpace


Need: TypeAlias = TestFeatures | Images | ImageFeatures
# The value of each need, in their order: an EmbeddingSet or an ImageSet.
NeededValues: TypeAlias = Sequence[Any]


@runtime_checkable
class ImageSource(Protocol):
  """A source of images. Add one by a subclass in a file of its own and a line in `sources.registry`.

  Only `prepare` and `records` do work. All else answers from settings, digests, and what `prepare` has left on disk.
  """

  def needs(self, run: Run, key: ImageSetKey) -> tuple[Need, ...]:
    """What other artifacts the stage has to make first; it hands them over as `given`, in this order."""
    return ()

  def prepare(self, run: Run, key: ImageSetKey, given: NeededValues) -> None:
    """Make this process's share of what is kept in the work folder before images are: a choice, tokens, sentences."""
    return

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    """Everything that determines the images besides the key, as JSON: it names the image set.

    Raises:
      NotPreparedError: it depends on what `prepare` makes.
    """
    ...

  def size(self, run: Run, key: ImageSetKey) -> int:
    """How many images the set has, known before the first is made."""
    ...

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    """Whether an image may have several labels."""
    return False

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """shots -> how many images: the s-shot set is the beginning of the image set."""
    ...

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """shots -> how many real images the set of so many shots has seen: its own, references, queries."""
    return dict.fromkeys(run.config.shots, 0)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    """The records of each of the given shards, in order."""
    ...
