"""The interface of image sources to the stages. A source makes the image sets of its keys, shard by shard."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from genbench_jax.cells import ImageSetKey
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.run import Run
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout

ShardRecords = Iterator[tuple[int, list[ImageRecord]]]


class TestFeatures(NamedTuple):
  """Need: features of a dataset's test images, by the run's own encoder."""

  run: Run
  dataset: str


class Images(NamedTuple):
  """Need: another complete image set."""

  run: Run
  key: ImageSetKey


class ImageFeatures(NamedTuple):
  """Need: features of another image set, by any encoder."""

  run: Run
  key: ImageSetKey
  space: FeatureSpace


Need: TypeAlias = TestFeatures | Images | ImageFeatures
# The values of the needs, in order: an EmbeddingSet or an ImageSet each.
NeededValues: TypeAlias = Sequence[Any]


@runtime_checkable
class ImageSource(Protocol):
  """A source of images. To add one, subclass it in its own file and add a line to `sources.registry`.

  Only `prepare` and `records` do work. All other methods answer from settings, digests, and what `prepare`
  has stored on disk.
  """

  def needs(self, run: Run, key: ImageSetKey) -> tuple[Need, ...]:
    """Return the artifacts that the stage must make first; it passes them as `given`, in this order."""
    return ()

  def prepare(self, run: Run, key: ImageSetKey, given: NeededValues) -> None:
    """Make this process's share of what precedes the images in the work folder: a choice, tokens, sentences.

    Args:
      run: the run.
      key: the image set.
      given: values of `needs`, in order.
    """
    return

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    """Return everything that determines the images besides the key, as JSON; it names the image set.

    Raises:
      NotPreparedError: it depends on what `prepare` makes.
    """
    ...

  def size(self, run: Run, key: ImageSetKey) -> int:
    """Return the number of images in the set, which is known before the first is made."""
    ...

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    """Return whether an image may have several labels."""
    return False

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """Return shots -> number of images. The s-shot set is the beginning of the image set."""
    ...

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """Return shots -> number of real images used for the s-shot set: its own, references, queries."""
    return dict.fromkeys(run.config.shots, 0)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    """Yield the records of each given shard, in order.

    Args:
      run: the run.
      key: the image set.
      layout: classes, size and shards of the set.
      shards: numbers of the shards to make.
      given: values of `needs`, in order.
    """
    ...
