"""From the features of a dataset's image sets to rows: what the stage `score` does."""

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from genbench_jax.cells import Cell, ImageSetKey, cells_of
from genbench_jax.config import Config
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cler import ClerResult, measure_cler
from genbench_jax.metrics.clip_score import ClipScoreResult, measure_clip_score
from genbench_jax.metrics.frechet import measure_frechet_distance
from genbench_jax.metrics.kernels import measure_cmmd, measure_kernel_distance
from genbench_jax.metrics.manifold import measure_manifold
from genbench_jax.metrics.proxy import measure_proxy_a_distance
from genbench_jax.metrics.strata import has_pairs
from genbench_jax.metrics.vendi import VendiResult, measure_vendi
from genbench_jax.pipeline.external import External, external_images
from genbench_jax.pipeline.features import test_path
from genbench_jax.pipeline.rows import (
  About,
  DatasetFeatures,
  Measured,
  _measure,
  make_row,
  without_text,
)
from genbench_jax.run import Run
from genbench_jax.runtime.protocol import Protocol
from genbench_jax.store.embedding_set import EmbeddingSet, load_embeddings

MANIFOLD = ("precision", "recall", "density", "coverage")
NEIGHBORS = 5
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
        for cell in cells_of(one.key, config)
        for measured in _score_cell(config, protocol, data, cell, one, mesh)
      ],
    )


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
  protocol: Protocol
  seed: int
  options: dict[str, Any]


def _data_metrics(
  sets: _Sets, wanted: Collection[str]
) -> Iterator[tuple[str, Measurement, Mapping[int, float]]]:
  """The wanted metrics that are defined for these sets, each with what it is for single classes; those that need more
  images are left out."""
  x, y, seed, options = sets.external, sets.test, sets.seed, sets.options
  fewest, labels = min(len(x), len(y)), (sets.labels, sets.test_labels)
  functions: dict[str, Callable[[], Measurement]] = {
    "fid": lambda: measure_frechet_distance(
      x, y, sets.protocol, seed=seed, labels=labels, **options
    ),
    "kid": lambda: measure_kernel_distance(
      x, y, seed=seed, labels=labels, standardize=True, **options
    ),
    "cmmd": lambda: measure_cmmd(x, y, seed, labels=labels, **options),
    "proxy_a_distance": lambda: measure_proxy_a_distance(x, y, seed, sets.protocol).distance,
  }
  by_class: dict[str, Callable[[], ClipScoreResult | VendiResult]] = {
    "clip_score": lambda: measure_clip_score(x, sets.text, sets.labels, seed, **options),
    "vendi": lambda: measure_vendi(x, sets.labels, seed, **options),
  }
  for name in (name for name in wanted if fewest >= FEWEST_IMAGES.get(name, 1)):
    if name == "kid" and not all(has_pairs(each) for each in labels):
      continue  # nothing is known about pairs of one class
    if name in functions:
      yield name, functions[name](), {}
    elif name in by_class:
      result = by_class[name]()
      yield name, result.score, result.per_class
  if set(MANIFOLD) & set(wanted) and fewest > NEIGHBORS:
    found = measure_manifold(y, x, NEIGHBORS, labels[::-1], seed, **options)
    for name in (name for name in MANIFOLD if name in wanted):
      yield name, found.scores[name], found.per_class if name == "coverage" else {}


def _classes_present(labels: np.ndarray) -> int:
  return int(labels.any(axis=0).sum()) if labels.ndim == 2 else len(np.unique(labels))


def _unit_norm(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
  return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)


def _protocol(name: str) -> Protocol:
  return "reference" if name == "reference" else "strict"


def _control_of(cell: Cell) -> Cell:
  """The cell whose labels are shuffled; its strategy says which images they were."""
  strategy = cell.strategy or cell.source
  if cell.source == "combined":
    strategy = f"combined_{strategy}"
  return dataclasses.replace(cell, source="control", strategy=strategy)


def score(run: Run) -> int:
  """Measures every cell not yet measured; returns how many cells."""
  return _measure(run, "score", functools.partial(_score_cells, run))


def _score_cells(
  run: Run, data: DatasetFeatures, external: Sequence[External]
) -> Iterator[tuple[ImageSetKey, list[Measured]]]:
  """Every metric on the run's features, then those without text on the other ones where there are such."""
  space, dataset = run.other_space, data.spec.name
  other = space and without_text(
    data, space.name, load_embeddings(test_path(run, dataset, space)).readable()
  )
  for key, measured in score_cells(run.config, data, external, run.mesh):
    if other:
      others = [external_images(run, key, space)]
      for _, more in score_cells(run.config, other, others, run.mesh):
        measured += more
    yield key, measured
