"""From the features of a dataset's image sets to rows: what the stages `score` and `recognise` do."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from genbench_jax import plan
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.config import Config
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cler import ClerResult, measure_cler
from genbench_jax.metrics.clip_score import measure_clip_score
from genbench_jax.metrics.frechet import measure_frechet_distance
from genbench_jax.plan import Cell, ImageSetKey
from genbench_jax.recognizers.linear_probe import ProbeData, linear_probes
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.rows import Row

# Rows of another version are not taken over: raise it when a definition changes.
VERSION = 1
External = Sequence[tuple[ImageSetKey, EmbeddingSet]]


@dataclasses.dataclass(frozen=True)
class DatasetFeatures:
  """What all cells of a dataset share: text prototypes [k, d] and test images."""

  spec: DatasetSpec
  encoder: str
  text: Float[np.ndarray, "k d"]
  test: EmbeddingSet


MeasureCells = Callable[
  [Config, DatasetFeatures, External, Mesh], Iterator[tuple[ImageSetKey, list[Row]]]
]

CLER_FAMILY = ("zero_shot", "cler", "cler_gain", "cler_image", "topk_vote", "topk_vote_text")


def score_cells(
  config: Config, data: DatasetFeatures, external: External, mesh: Mesh
) -> Iterator[tuple[ImageSetKey, list[Row]]]:
  """The metrics of every cell of each image set, under each protocol."""
  for key, images in external:
    yield (
      key,
      [
        row
        for protocol in config.scoring.protocols
        for cell in plan.cells_of(key, config)
        for row in _score_cell(config, protocol, data, cell, _of_cell(images, cell), mesh)
      ],
    )


def recognise_cells(
  config: Config, data: DatasetFeatures, external: External, mesh: Mesh
) -> Iterator[tuple[ImageSetKey, list[Row]]]:
  """The linear probes of every cell of each image set: those of equal shape are trained at once."""
  cells = [(key, cell, images) for key, images in external for cell in plan.cells_of(key, config)]
  probes = [
    ProbeData(few.features, few.labels, cell.seed)
    for _, cell, images in cells
    for few in [_of_cell(images, cell)]
  ]
  rows: dict[ImageSetKey, list[Row]] = {key: [] for key, _ in external}
  for protocol in config.recognition.protocols:
    began = time.monotonic()
    found = linear_probes(
      probes,
      data.test.features,
      data.test.labels,
      data.text,
      protocol,
      data.spec.metric,
      num_classes=data.spec.num_classes,
      mesh=mesh,
    )
    seconds = (time.monotonic() - began) / len(cells)
    for (key, cell, _), probe in zip(cells, found, strict=True):
      about = _About(data, cell, protocol, probe["n_external"], len(probe["missing_classes"]))
      value = Measurement(probe["score"], probe["ci_low"], probe["ci_high"])
      rows[key].append(_row(about, "linear_probe", value, seconds))
  yield from rows.items()


def _of_cell(images: EmbeddingSet, cell: Cell) -> EmbeddingSet:
  return images.take(plan.rows_of_shots(images.labels, cell.shots))


@dataclasses.dataclass(frozen=True)
class _About:
  """What the rows of a cell have in common."""

  data: DatasetFeatures
  cell: Cell
  protocol: str
  n_external: int
  missing_classes: int


def _score_cell(
  config: Config,
  protocol: str,
  data: DatasetFeatures,
  cell: Cell,
  images: EmbeddingSet,
  mesh: Mesh,
) -> Iterator[Row]:
  settings = config.scoring
  present = len(np.unique(images.labels))
  about = _About(data, cell, protocol, len(images), data.spec.num_classes - present)
  if wanted := [name for name in settings.quantities if name in CLER_FAMILY]:
    began = time.monotonic()
    result = _cler(config, protocol, data, cell, images, mesh)
    seconds = (time.monotonic() - began) / len(wanted)
    yield from (_row(about, name, result.scores[name], seconds) for name in wanted)
    control = dataclasses.replace(about, cell=_control_of(cell))
    yield from (
      _row(control, name, result.control[name], seconds) for name in wanted if name in result.control
    )
  for name in settings.quantities:
    if name in DATA_METRICS:
      began = time.monotonic()
      value = DATA_METRICS[name](config, protocol, data, cell, images, mesh)
      yield _row(about, name, value, time.monotonic() - began)


def _cler(
  config: Config,
  protocol: str,
  data: DatasetFeatures,
  cell: Cell,
  images: EmbeddingSet,
  mesh: Mesh,
) -> ClerResult:
  return measure_cler(
    images.features,
    images.labels,
    data.text,
    data.test.features,
    data.test.labels,
    metric=data.spec.metric,
    top_k=config.scoring.top_k,
    protocol=_protocol(protocol),
    seed=cell.seed,
    resamples=config.scoring.resamples,
    mesh=mesh,
  )


def _clip_score(
  config: Config,
  protocol: str,
  data: DatasetFeatures,
  cell: Cell,
  images: EmbeddingSet,
  mesh: Mesh,
) -> Measurement:
  resamples = config.scoring.resamples
  result = measure_clip_score(
    images.features, data.text, images.labels, cell.seed, resamples, mesh
  )
  return result.score


def _frechet(
  config: Config,
  protocol: str,
  data: DatasetFeatures,
  cell: Cell,
  images: EmbeddingSet,
  mesh: Mesh,
) -> Measurement:
  return measure_frechet_distance(
    images.features,
    data.test.features,
    _protocol(protocol),
    normalize=True,
    seed=cell.seed,
    resamples=config.scoring.resamples,
    mesh=mesh,
  )


DATA_METRICS = {"clip_score": _clip_score, "fid": _frechet}


def _protocol(name: str) -> Literal["strict", "reference"]:
  return "reference" if name == "reference" else "strict"


def _control_of(cell: Cell) -> Cell:
  """The cell whose labels are shuffled; its strategy says which images they were."""
  return dataclasses.replace(cell, source="control", strategy=cell.strategy or cell.source)


def _row(about: _About, quantity: str, measured: Measurement, seconds: float) -> Row:
  return {
    "dataset": about.cell.dataset,
    "source": about.cell.source,
    "strategy": about.cell.strategy,
    "shots": about.cell.shots,
    "seed": about.cell.seed,
    "protocol": about.protocol,
    "encoder": about.data.encoder,
    "quantity": quantity,
    "value": float(measured.value),
    "ci_low": float(measured.ci_low),
    "ci_high": float(measured.ci_high),
    "n_external": about.n_external,
    "n_test": len(about.data.test),
    "missing_classes": about.missing_classes,
    "seconds": round(seconds, 4),
  }
