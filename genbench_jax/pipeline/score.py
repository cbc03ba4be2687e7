"""The stage `score`: from the features of a dataset's image sets to rows."""

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import cast

import numpy as np
from jax.sharding import Mesh

from genbench_jax.cells import Cell, ImageSetKey, cells_of
from genbench_jax.config import Config
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.metrics.floors import draws, floors
from genbench_jax.metrics.registry import Metric, Result, Sets, measured
from genbench_jax.pipeline.artifacts import GUIDED, real_paths
from genbench_jax.pipeline.external import External, external_images
from genbench_jax.pipeline.rows import (
  About,
  DatasetFeatures,
  MeasuredRow,
  _measure,
  dataset_features,
  make_row,
  per_image,
)
from genbench_jax.run import Run
from genbench_jax.runtime.programs import ProgramMemory
from genbench_jax.runtime.protocol import Protocol
from genbench_jax.store.embedding_set import EmbeddingSet, load_embeddings
from genbench_jax.store.hits import PerImage, digest_of


def score(run: Run) -> int:
  """Measure every cell that has no rows; return the number of cells."""
  return _measure(run, "score", functools.partial(_score_cells, run))


def _score_cells(
  run: Run,
  data: DatasetFeatures,
  external: Sequence[External],
  after_cell: Callable[[], None],
) -> Iterator[tuple[ImageSetKey, list[MeasuredRow]]]:
  """Return every metric with the run's encoder, and with the others as far as they have text."""
  dataset = data.spec.name
  others = [
    (space, dataset_features(run, dataset, space), real_images(run, dataset, space))
    for space in run.other_spaces
  ]
  real = real_images(run, dataset)
  for key, found in score_cells(run.config, data, external, run.mesh, real, after_cell):
    for space, other, other_real in others:
      images = [external_images(run, key, space)]
      for _, more in score_cells(run.config, other, images, run.mesh, other_real):
        found += more
    yield key, found


@dataclasses.dataclass(frozen=True)
class RealImages:
  """Real training images of a dataset.

  Attributes:
    training: all that the run has embedded: those of the source `original`, if any.
    guides: images that nothing else uses, if they are needed.
    split: digest of the training split.
    floors: those that have been computed, see `_floors_once`.
  """

  training: EmbeddingSet | None = None
  guides: EmbeddingSet | None = None
  split: str = ""
  floors: dict[Hashable, dict[str, float]] = dataclasses.field(default_factory=dict, compare=False)


def real_images(run: Run, dataset: str, space: FeatureSpace | None = None) -> RealImages:
  """Return the embedded real training images of a dataset.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: the encoder.
  """
  training, guided = (
    load_embeddings(path).readable() if path and path.exists() else None
    for path in real_paths(run, dataset, space)
  )
  # If the training split has no images to spare, there are no guides.
  if guided is None or not len(guided):
    return RealImages(training)
  return RealImages(training, guided, run.digest(dataset, "train"))


def score_cells(
  config: Config,
  data: DatasetFeatures,
  external: Sequence[External],
  mesh: Mesh,
  real: RealImages | None = None,
  after_cell: Callable[[], None] = lambda: None,
) -> Iterator[tuple[ImageSetKey, list[MeasuredRow]]]:
  """Return the metrics of every cell of each image set, under each protocol.

  Args:
    config: metrics and budgets.
    data: texts and test images of the dataset.
    external: the image sets of the dataset.
    mesh: device mesh.
    real: real training images for floors, and guides.
    after_cell: called after each cell of the first protocol.
  """
  programs = ProgramMemory()
  for image_set in external:
    found: list[MeasuredRow] = []
    for protocol in config.scoring.protocols:
      for cell in cells_of(image_set.key, config):
        found += _score_cell(
          config, cast(Protocol, protocol), data, cell, image_set, mesh, real or RealImages()
        )
        if protocol == config.scoring.protocols[0]:
          after_cell()
        # Until the last set, the next one has the same budgets, so most programs are used again.
        if image_set is external[-1]:
          programs.drop_if_large()
    yield image_set.key, found


def _score_cell(
  config: Config,
  protocol: Protocol,
  data: DatasetFeatures,
  cell: Cell,
  external: External,
  mesh: Mesh,
  real: RealImages,
) -> Iterator[MeasuredRow]:
  images = external.of_shots(cell.shots)
  missing = data.spec.num_classes - _classes_present(images.labels)
  about = About(data, cell, protocol, len(images), missing, external.real_images[cell.shots])
  control = dataclasses.replace(about, cell=_control_of(cell))
  sets = _sets(config, protocol, data, cell, images, mesh, real)
  drawn = tuple(rows.tobytes() for rows in draws(sets.labels, sets.training_labels))
  began = time.monotonic()
  controls = []
  for metric, result in measured(sets, config.scoring.quantities):
    key = (metric, protocol, cell.seed, drawn)
    floor = _floors_once(metric, sets, real.floors, key).get(result.name)
    seconds, began = time.monotonic() - began, time.monotonic()
    own = about
    if result.name in GUIDED and real.guides is not None:
      own = dataclasses.replace(about, n_real=about.n_real + len(real.guides))
    row = make_row(own, result.name, result.value, seconds, floor)
    yield MeasuredRow(row, result.by_class, _per_image(result, data, real))
    if result.control is not None:
      controls.append(MeasuredRow(make_row(control, result.name, result.control, seconds)))
  yield from controls


def _per_image(result: Result, data: DatasetFeatures, real: RealImages) -> PerImage | None:
  """Return the contribution of each test image, or guide, to a number that is a mean over them."""
  if result.per_image is None:
    return None
  if not result.on_guides:
    return per_image(result.per_image, data)
  guides = real.guides
  if guides is None:
    return None
  return PerImage(result.per_image, digest_of(real.split, guides.ids, guides.labels))


def _sets(
  config: Config,
  protocol: Protocol,
  data: DatasetFeatures,
  cell: Cell,
  images: EmbeddingSet,
  mesh: Mesh,
  real: RealImages,
) -> Sets:
  training, guides = real.training, real.guides
  return Sets(
    external=images.features,
    test=data.test.features,
    labels=images.labels,
    test_labels=data.test.labels,
    text=data.text if data.knows_text else None,
    num_classes=data.spec.num_classes,
    metric=data.spec.metric,
    training=None if training is None else training.features,
    training_labels=None if training is None else training.labels,
    guides=None if guides is None else guides.features,
    guide_labels=None if guides is None else guides.labels,
    protocol=protocol,
    top_k=config.scoring.top_k,
    seed=cell.seed,
    resamples=config.scoring.resamples,
    mesh=mesh,
  )


def _floors_once(
  metric: Metric, sets: Sets, known: dict[Hashable, dict[str, float]], key: Hashable
) -> dict[str, float]:
  """Return the floors of a metric, computed once for all cells with as many images of each class."""
  if key not in known:
    known[key] = floors(metric, sets) if metric.has_floor else {}
  return known[key]


def _classes_present(labels: np.ndarray) -> int:
  return int(labels.any(axis=0).sum()) if labels.ndim == 2 else len(np.unique(labels))


def _control_of(cell: Cell) -> Cell:
  """Return the cell with shuffled labels; its strategy names the shuffled images."""
  strategy = cell.strategy or cell.source
  if cell.source == "combined":
    strategy = f"combined_{strategy}"
  return dataclasses.replace(cell, source="control", strategy=strategy)
