"""From features to rows: code that the stages `score` and `recognize` share."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.cells import Cell, ImageSetKey, cells_of, measured_sets
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.errors import ModelError, NotPreparedError, RunError
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.pipeline.artifacts import classes_path, hits_path, rows_path, test_path, text_path
from genbench_jax.pipeline.external import External, external_images
from genbench_jax.recognizers.linear_probe import CLIP_LOGIT_SCALE
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store import class_values, hits
from genbench_jax.store.embedding_set import EmbeddingSet, load_embeddings
from genbench_jax.store.rows import Row, read_rows, write_rows


@dataclasses.dataclass(frozen=True)
class DatasetFeatures:
  """Data that all cells of a dataset share: text prototypes, test images and the logit scale.

  Quantities that need text are not measured for encoders without text. `test_images` is the digest of the
  test split.
  """

  spec: DatasetSpec
  encoder: str
  logit_scale: float
  text: Float[np.ndarray, "k d"]
  test: EmbeddingSet
  knows_text: bool = True
  test_images: str = ""


@dataclasses.dataclass(frozen=True)
class MeasuredRow:
  """A row with the value of each class (class index -> value) if the quantity has them."""

  row: Row
  by_class: Mapping[int, float] = dataclasses.field(default_factory=dict)
  per_image: hits.PerImage | None = None


@dataclasses.dataclass(frozen=True)
class About:
  """Common values of the rows of a cell; `versions` are those of the process that measured them."""

  data: DatasetFeatures
  cell: Cell
  protocol: str
  n_external: int
  missing_classes: int
  n_real: int
  versions: str = ""


# The last argument is called after each cell, so that a long stage reports its progress.
MeasureCells = Callable[
  [DatasetFeatures, Sequence[External], Callable[[], None]],
  Iterator[tuple[ImageSetKey, list[MeasuredRow]]],
]


def _measure(run: Run, stage: str, function: MeasureCells) -> int:
  """Compute the rows of each dataset's missing image sets, all sets of a dataset together."""
  keys = [key for key in measured_sets(run.config) if key.name not in run.failures]
  gone = run.hosts.agreed((not _is_measured(run, key, stage) for key in keys), stage)
  missing = [key for key, is_gone in zip(keys, gone, strict=True) if is_gone]
  cells = {key: len(cells_of(key, run.config)) for key in missing}
  count, done = sum(cells.values()), 0
  with Progress(stage, count, "cells") as progress:
    for dataset in dict.fromkeys(key.dataset for key in missing):
      group = [key for key in missing if key.dataset == dataset]
      with run.failures.caught([key.name for key in group]):
        for key, measured in _measured(run, function, group, lambda: progress.advance(1)):
          with run.failures.caught(key.name):
            _refuse_non_finite_rows([item.row for item in measured], key)
            if run.hosts.is_first:
              _write_measured(run, key, stage, measured)
          done += cells[key]
          progress.reach(done)
  return count if run.hosts.is_first else 0


def _is_measured(run: Run, key: ImageSetKey, stage: str) -> bool:
  """Return whether the rows exist, together with complete values by class.

  Damaged rows raise an error where they are read. Values by class can be computed again.
  """
  if not rows_path(run, key, stage).exists():
    return False
  beside = (
    (class_values.read, classes_path(run, key, stage)),
    (hits.read, hits_path(run, key, stage)),
  )
  return all(_is_whole(read, path) for read, path in beside)


def _is_whole(read: Callable[[Path], object], path: Path) -> bool:
  try:
    read(path)
  except FileNotFoundError:
    say(f"{path} is missing and is made again")
    return False
  except RunError as error:
    say(f"{error} It is made again")
    return False
  return True


def _measured(
  run: Run, function: MeasureCells, keys: Sequence[ImageSetKey], after_cell: Callable[[], None]
) -> Iterator[tuple[ImageSetKey, list[MeasuredRow]]]:
  """Return the measured rows of the image sets of one dataset."""
  data = dataset_features(run, keys[0].dataset, run.space)
  external = []
  for key in keys:
    with run.failures.caught(key.name):
      external.append(external_images(run, key))
  if external:
    yield from function(data, external, after_cell)


def _refuse_non_finite_rows(rows: Sequence[Row], key: ImageSetKey) -> None:
  for row in rows:
    if not np.isfinite(row["value"]):
      cell = f"{key.name}, {row['shots']} shots"
      raise ModelError(f"{cell}: {row['quantity']} ({row['protocol']}) is {row['value']}.")


def _write_measured(
  run: Run, key: ImageSetKey, stage: str, measured: Sequence[MeasuredRow]
) -> None:
  """Write the rows last, so that an image set with rows is complete."""
  names = run.config.spec(key.dataset).names
  classes = [
    class_values.of_row(item.row, item.by_class, names) for item in measured if item.by_class
  ]
  class_values.write(classes_path(run, key, stage), classes)
  known = [hits.of_row(item.row, item.per_image) for item in measured if item.per_image]
  hits.write(hits_path(run, key, stage), known)
  path, rows = rows_path(run, key, stage), [item.row for item in measured]
  if any(name.startswith(f"{key.name}, ") for name in run.failures.reasons):
    write_rows(_partial(path), rows)
    return
  write_rows(path, rows)
  _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
  """Return the path of rows with a failed cell; the next run tries that cell again."""
  return path.with_suffix(".partial.jsonl")


def measured_rows(run: Run) -> list[dict[str, Any]]:
  """Yield all rows of the config so far, in the order of its cells."""
  return read_rows(_rows_paths(run))


def _rows_paths(run: Run) -> Iterator[Path]:
  for key in measured_sets(run.config):
    with contextlib.suppress(NotPreparedError):  # artifacts without a name have no rows
      for stage in ("score", "recognize"):
        path = rows_path(run, key, stage)
        yield from [item for item in (path, _partial(path)) if item.exists()][:1]


def dataset_features(run: Run, dataset: str, space: FeatureSpace) -> DatasetFeatures:
  """Return the data that all cells of a dataset share.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: the encoder.
  """
  text = load_embeddings(text_path(run, dataset, space)).features
  encoder = space.embedder.encoder
  return DatasetFeatures(
    spec=run.config.spec(dataset),
    encoder=space.name,
    logit_scale=encoder.logit_scale if isinstance(encoder, TextEncoder) else CLIP_LOGIT_SCALE,
    text=text,
    test=load_embeddings(test_path(run, dataset, space)).readable(),
    knows_text=bool(len(text)),
    test_images=run.digest(dataset, "test"),
  )


def make_row(
  about: About,
  quantity: str,
  measured: Measurement,
  seconds: float,
  floor: float | None = None,
) -> Row:
  """Return one row of a cell with the keys of `store.rows.Row`.

  Args:
    about: the cell.
    quantity: name of the quantity.
    measured: its value and intervals.
    seconds: time of the measurement.
    floor: the same distance of as many real training images, see `metrics.floors`.
  """
  classes = max(about.data.spec.num_classes - about.missing_classes, 1)
  return {
    "dataset": about.cell.dataset,
    "source": about.cell.source,
    "generator": about.cell.generator,
    "strategy": about.cell.strategy,
    "shots": about.cell.shots,
    "seed": about.cell.seed,
    "protocol": about.protocol,
    "encoder": about.data.encoder,
    "quantity": quantity,
    "value": float(measured.value),
    "ci_low": float(measured.ci_low),
    "ci_high": float(measured.ci_high),
    "generator_low": _number(measured.generator_low),
    "generator_high": _number(measured.generator_high),
    "note": measured.note,
    "floor": _number(floor),
    "shots_given": round(about.n_external / classes, 3),
    "n_external": about.n_external,
    "n_test": len(about.data.test),
    "missing_classes": about.missing_classes,
    "seconds": round(seconds, 4),
    "n_real": about.n_real,
    "versions": about.versions or versions(),
  }


def per_image(values: Float[np.ndarray, "n"], data: DatasetFeatures) -> hits.PerImage:
  """Return the contribution of each test image to a score of the dataset's metric."""
  test = data.test
  classes = test.labels if data.spec.metric == "mean_per_class" else np.zeros(0, np.int64)
  return hits.PerImage(values, hits.digest_of(data.test_images, test.ids, test.labels), classes)


def _number(value: float | None) -> float | None:
  return None if value is None else float(value)


@functools.cache
def versions() -> str:
  """Return the versions of the package and of JAX."""
  return f"genbench_jax {version('genbench_jax')}, jax {version('jax')}"
