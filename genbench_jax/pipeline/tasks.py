"""Inputs and outputs of recognizers: cells, their images in order, and weights of a mixture."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from genbench_jax.benchmark.reader import SplitImages
from genbench_jax.cells import Cell, mixtures
from genbench_jax.config import Mixture as MixtureSettings
from genbench_jax.embedding.input_pipeline import Images, Preprocessing, image_batches
from genbench_jax.errors import ModelError
from genbench_jax.models.image_input import ImageInput
from genbench_jax.pipeline.artifacts import open_image_set
from genbench_jax.pipeline.external import External, Mixture
from genbench_jax.pipeline.rows import DatasetFeatures
from genbench_jax.recognizers.training_set import source_weights
from genbench_jax.run import Run
from genbench_jax.store import files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import StoredImages

# Larger sets of decoded images are mapped from files without a name in the work folder.
IN_MEMORY_BYTES = 2**29
DECODED_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Task:
  """A cell to recognize.

  Attributes:
    cell: the cell.
    external: its image set or mixture.
    images: its images; for a mixture, originals first.
    folder: folder of its results.
    weights: loss weight of each image; None for equal weights.
    later: images that are trained after the others; None to train all together.
  """

  cell: Cell
  external: External
  images: EmbeddingSet
  folder: Path
  weights: Float[np.ndarray, "n"] | None = None
  later: Bool[np.ndarray, "n"] | None = None

  @property
  def name(self) -> str:
    """Readable name of the cell."""
    return f"{self.external.key.name}, {self.cell.shots} shots"


@dataclasses.dataclass(frozen=True)
class RecognizerResult:
  """Result of a recognizer on a cell.

  Attributes:
    result: `scores` of the test images, `score`, `ci_low`, `ci_high`, `n_external`,
      `missing_classes` and other numbers or lists for the summary.
    save_model: function that writes the trained weights to a file.
    seconds: training time.
  """

  result: dict[str, Any]
  save_model: Callable[[Path], None]
  seconds: float


# The result of each task, in order; a failed cell has its error.
Recognizer = Callable[
  [Run, DatasetFeatures, Sequence[Task], str], Iterator[RecognizerResult | ModelError]
]


def each_alone(
  tasks: Sequence[Task], train: Callable[[Task], RecognizerResult]
) -> Iterator[RecognizerResult | ModelError]:
  """Yield the result of each task, or its error if its training diverged; the others continue."""
  for task in tasks:
    try:
      yield train(task)
    except ModelError as error:
      yield error


def make_task(cell: Cell, external: External, folder: Path, mixture: MixtureSettings) -> Task:
  """Return a cell with its images and, for a mixture, the weights and order of its sources.

  Args:
    cell: the cell.
    external: its image set or mixture.
    folder: folder of its results.
    mixture: weights and order of the sources.
  """
  images = external.of_shots(cell.shots)
  if not isinstance(external, Mixture):
    return Task(cell, external, images, folder)
  real = len(external.originals(cell.shots))
  weights = later = None
  if mixture.loss_weights:
    weights = source_weights((real, len(images) - real), mixture.loss_weights)
  if mixture.order == "real_last":
    later = np.arange(len(images)) < real
  return Task(cell, external, images, folder, weights, later)


@dataclasses.dataclass(frozen=True)
class ChosenImages:
  """Selected images from one or several places, in order."""

  places: Sequence[tuple[Images, Int[np.ndarray, "n"]]]

  def __len__(self) -> int:
    return sum(len(ids) for _, ids in self.places)

  def __getitem__(self, index: int) -> Any:
    for images, ids in self.places:
      if index < len(ids):
        return images[int(ids[index])]
      index -= len(ids)
    raise IndexError(index)


def training_images(run: Run, task: Task) -> ChosenImages:
  """Return the images of a cell in the order of its features; for a mixture, originals first."""
  external, shots = task.external, task.cell.shots
  keys = mixtures(run.config).get(external.key, (external.key,))
  if isinstance(external, Mixture):
    ids = [external.originals(shots).ids, external.added(shots).ids]
  else:
    ids = [task.images.ids]
  sets = [StoredImages(open_image_set(run, key)) for key in keys]
  return ChosenImages(list(zip(sets, ids, strict=True)))


def test_images(run: Run, data: DatasetFeatures) -> ChosenImages:
  """Return the readable test images in the order of their features."""
  return ChosenImages([(SplitImages(run.split(data.spec.name, "test")), data.test.ids)])


def decoded(
  run: Run, data: DatasetFeatures, images: ChosenImages, size: int, what: str
) -> UInt8[np.ndarray, "n s s 3"]:
  """Return square images, decoded once by the shared input pipeline, in memory or memory-mapped.

  Args:
    run: the run; its work folder has room for what is too large for the memory.
    data: the dataset, which determines how images are made square.
    images: the images.
    size: side in pixels.
    what: name of the images, for progress.
  """
  shape = (len(images), size, size, 3)
  if np.prod(shape) <= IN_MEMORY_BYTES:
    return _decode_into(np.empty(shape, np.uint8), data, images, size, what)
  return _decode_into(files.scratch_array(run.workdir, shape), data, images, size, what)


def _decode_into(
  array: UInt8[np.ndarray, "n s s 3"],
  data: DatasetFeatures,
  images: ChosenImages,
  size: int,
  what: str,
) -> UInt8[np.ndarray, "n s s 3"]:
  # Mean 0 and standard deviation 1 / 255 restore values from 0 to 255.
  how = ImageInput(size, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
  plain = Preprocessing(how, data.spec.resize)
  start = 0
  for batch in image_batches(images, plain, min(DECODED_AT_ONCE, max(1, len(images))), what=what):
    count = min(len(batch.pixels), len(images) - start)
    array[start : start + count] = np.rint(batch.pixels[:count])
    start += count
  return array
