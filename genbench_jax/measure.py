"""From the features of a dataset's image sets to rows: what the stage `score` does."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from genbench_jax import plan
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.config import Config
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cler import ClerResult, measure_cler
from genbench_jax.metrics.clip_score import ClipScoreResult, measure_clip_score
from genbench_jax.metrics.frechet import measure_frechet_distance
from genbench_jax.metrics.kernels import measure_cmmd, measure_kernel_distance
from genbench_jax.metrics.manifold import measure_manifold
from genbench_jax.metrics.proxy import measure_proxy_a_distance
from genbench_jax.metrics.vendi import VendiResult, measure_vendi
from genbench_jax.plan import Cell, ImageSetKey
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.rows import Row

# Rows of another version are not taken over: raise it when a definition changes.
VERSION = 3


@dataclasses.dataclass(frozen=True)
class External:
  """An image set's readable images.

  Attributes:
    shot_sizes: shots -> how many of the first images.
    real_images: shots -> how many real images these have seen, see `ImageSource`.
  """

  key: ImageSetKey
  images: EmbeddingSet
  shot_sizes: Mapping[int, int]
  real_images: Mapping[int, int]

  def of_shots(self, shots: int) -> EmbeddingSet:
    """The images of the first `shots` a class."""
    return self.images.take(np.flatnonzero(self.images.ids < self.shot_sizes[shots]))


@dataclasses.dataclass(frozen=True)
class Mixture(External):
  """Original images together with external ones, `others`; shots are the mixture's in both."""

  others: External

  def of_shots(self, shots: int) -> EmbeddingSet:
    return super().of_shots(shots).joined(self.others.of_shots(shots))


@dataclasses.dataclass(frozen=True)
class DatasetFeatures:
  """What all cells of a dataset share: text prototypes, test images, and the encoder's own logit scale.

  Where an encoder knows no text, what needs it is not measured.
  """

  spec: DatasetSpec
  encoder: str
  logit_scale: float
  text: Float[np.ndarray, "k d"]
  test: EmbeddingSet
  knows_text: bool = True


def without_text(data: DatasetFeatures, encoder: str, test: EmbeddingSet) -> DatasetFeatures:
  """The same dataset in the features of an encoder that knows no text."""
  none = np.zeros((0, test.features.shape[1]), np.float32)
  return dataclasses.replace(data, encoder=encoder, text=none, test=test, knows_text=False)


@dataclasses.dataclass(frozen=True)
class Measured:
  """A row, and the value of each class behind it (class index -> value) where the quantity has them."""

  row: Row
  by_class: Mapping[int, float] = dataclasses.field(default_factory=dict)


MANIFOLD = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5
# Below this many images a metric is not defined: no covariance, no unbiased estimate, no test half.
FEWEST_IMAGES = {"fid": 2, "kid": 2, "cmmd": 2, "proxy_a_distance": 4}
CLER_FAMILY = ("zero_shot", "cler", "cler_gain", "cler_image", "topk_vote", "topk_vote_text")
WITH_TEXT = (*CLER_FAMILY, "clip_score")


def score_cells(
  config: Config, data: DatasetFeatures, external: Sequence[External], mesh: Mesh
) -> Iterator[tuple[ImageSetKey, list[Measured]]]:
  """The metrics of every cell of each image set, under each protocol."""
  for one in external:
    yield (
      one.key,
      [
        measured
        for protocol in config.scoring.protocols
        for cell in plan.cells_of(one.key, config)
        for measured in _score_cell(config, protocol, data, cell, one, mesh)
      ],
    )


@dataclasses.dataclass(frozen=True)
class About:
  """What the rows of a cell have in common."""

  data: DatasetFeatures
  cell: Cell
  protocol: str
  n_external: int
  missing_classes: int
  n_real: int


def _score_cell(
  config: Config,
  protocol: str,
  data: DatasetFeatures,
  cell: Cell,
  external: External,
  mesh: Mesh,
) -> Iterator[Measured]:
  settings, images = config.scoring, external.of_shots(cell.shots)
  missing = data.spec.num_classes - _classes_present(images.labels)
  about = About(data, cell, protocol, len(images), missing, external.real_images[cell.shots])
  quantities = [name for name in settings.quantities if data.knows_text or name not in WITH_TEXT]
  if wanted := [name for name in quantities if name in CLER_FAMILY]:
    began = time.monotonic()
    result = _cler(config, protocol, data, cell, images, mesh)
    seconds = (time.monotonic() - began) / len(wanted)
    for name in wanted:
      row = make_row(about, name, result.scores[name], seconds)
      yield Measured(row, result.per_class.get(name, {}))
    control = dataclasses.replace(about, cell=_control_of(cell))
    yield from (
      Measured(make_row(control, name, result.control[name], seconds))
      for name in wanted
      if name in result.control
    )
  sets = _Sets(
    _unit_norm(images.features),
    _unit_norm(data.test.features),
    images.labels,
    data.test.labels,
    data.text,
    _protocol(protocol),
    cell.seed,
    {"resamples": settings.resamples, "mesh": mesh},
  )
  began = time.monotonic()
  for name, value, by_class in _data_metrics(sets, quantities):
    yield Measured(make_row(about, name, value, time.monotonic() - began), by_class)
    began = time.monotonic()


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


@dataclasses.dataclass(frozen=True)
class _Sets:
  """What the metrics of two sets of images take: external and test features, unit-norm."""

  external: Float[np.ndarray, "n d"]
  test: Float[np.ndarray, "m d"]
  labels: np.ndarray
  test_labels: np.ndarray
  text: Float[np.ndarray, "k d"]
  protocol: Literal["strict", "reference"]
  seed: int
  options: dict[str, Any]


def _data_metrics(
  sets: _Sets, wanted: Collection[str]
) -> Iterator[tuple[str, Measurement, Mapping[int, float]]]:
  """The wanted metrics that are defined for these sets, each with what it is for single classes; those that need more
  images are left out."""
  x, y, seed, options = sets.external, sets.test, sets.seed, sets.options
  fewest = min(len(x), len(y))
  functions: dict[str, Callable[[], Measurement]] = {
    "fid": lambda: measure_frechet_distance(x, y, sets.protocol, seed=seed, **options),
    "kid": lambda: measure_kernel_distance(x, y, seed=seed, **options),
    "cmmd": lambda: measure_cmmd(x, y, seed, **options),
    "proxy_a_distance": lambda: measure_proxy_a_distance(x, y, seed, sets.protocol).distance,
  }
  by_class: dict[str, Callable[[], ClipScoreResult | VendiResult]] = {
    "clip_score": lambda: measure_clip_score(x, sets.text, sets.labels, seed, **options),
    "vendi": lambda: measure_vendi(x, sets.labels, seed, **options),
  }
  for name in (name for name in wanted if fewest >= FEWEST_IMAGES.get(name, 1)):
    if name in functions:
      yield name, functions[name](), {}
    elif name in by_class:
      result = by_class[name]()
      yield name, result.score, result.per_class
  if set(MANIFOLD) & set(wanted) and fewest > NEIGHBOURS:
    labels = (sets.test_labels, sets.labels)
    found = measure_manifold(y, x, NEIGHBOURS, labels, seed, **options)
    for name in (name for name in MANIFOLD if name in wanted):
      yield name, found.scores[name], found.per_class if name == "coverage" else {}


def _classes_present(labels: np.ndarray) -> int:
  return int(labels.any(axis=0).sum()) if labels.ndim == 2 else len(np.unique(labels))


def _unit_norm(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)


def _protocol(name: str) -> Literal["strict", "reference"]:
  return "reference" if name == "reference" else "strict"


def _control_of(cell: Cell) -> Cell:
  """The cell whose labels are shuffled; its strategy says which images they were."""
  strategy = cell.strategy or cell.source
  if cell.source == "combined":
    strategy = f"combined_{strategy}"
  return dataclasses.replace(cell, source="control", strategy=strategy)


def make_row(about: About, quantity: str, measured: Measurement, seconds: float) -> Row:
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
    "n_real": about.n_real,
  }
