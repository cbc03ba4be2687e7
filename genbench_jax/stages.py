"""The five stages in their order. Each reads what earlier ones left on disk and makes what is missing."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax import measure, plan
from genbench_jax.artefacts import (
  classes_path,
  image_folder,
  image_set_path,
  load_embeddings,
  open_image_set,
  rows_path,
  test_path,
  text_path,
)
from genbench_jax.benchmark.input_pipeline import Images, SplitImages
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.clip.features import text_prototypes
from genbench_jax.config import STAGES, Config
from genbench_jax.embedding import embed_stored, refuse_non_finite
from genbench_jax.errors import RunError
from genbench_jax.external import external_images
from genbench_jax.ledger import Ledger
from genbench_jax.making import make_image_set
from genbench_jax.plan import ImageSetKey
from genbench_jax.progress import Progress, say
from genbench_jax.run import Run
from genbench_jax.sources.folder import left_out
from genbench_jax.store import class_values, embedding_set, files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageSet
from genbench_jax.store.rows import read_rows, write_results


def run_stages(config: Config, workdir: Path, stages: Sequence[str], command: str) -> None:
  """Runs the given stages in their order and says what each did."""
  run = Run(config, workdir)
  functions: dict[str, Callable[[Run], int]] = {
    "images": lambda run: make_images(run, ledger),
    "embed": embed,
    "score": score,
    "recognise": recognise,
  }
  ledger = Ledger(workdir, config, command)
  for stage in STAGES:
    if stage in stages and stage in functions:
      began = time.monotonic()
      done = functions[stage](run)
      ledger.add(stage, done, time.monotonic() - began)
      if not done:
        say(f"{stage}: nothing to do")
  write_results(workdir, measured_rows(run))
  if "report" in stages:
    report(run, ledger)


# ---- images -----------------------------------------------------------------------------------


def make_images(run: Run, ledger: Ledger) -> int:
  """Makes the missing shards of every image set; returns how many images were made."""
  return sum(_make_image_set(run, key, ledger) for key in plan.image_sets(run.config))


def _make_image_set(run: Run, key: ImageSetKey, ledger: Ledger) -> int:
  try:
    return make_image_set(run, key)
  finally:
    ledger.add_cost(f"{key.dataset} {key.label}", run.meter(key).cost())


# ---- embed ------------------------------------------------------------------------------------


def embed(run: Run) -> int:
  """Embeds every image set, test split and class name not yet embedded; returns how many images."""
  count = 0
  for dataset in run.config.datasets:
    path = text_path(run, dataset)
    if not path.exists():
      _embed_texts(run, dataset, path)
    path = test_path(run, dataset)
    if not path.exists():
      split = run.split(dataset, "test")
      what = f"embed {dataset} test"
      count += _embed(run, what, path, dataset, SplitImages(split), split.labels())
  for key in plan.image_sets(run.config):
    path = image_set_path(run, key)
    if not path.exists():
      images = open_image_set(run, key)
      images.verify()
      labels = _labels_of(images, dataset_spec(key.dataset))
      what = f"embed {key.dataset} {key.label}"
      count += _embed(run, what, path, key.dataset, _StoredImages(images), labels)
  return count


@dataclasses.dataclass(frozen=True)
class _StoredImages:
  """The images of an image set."""

  images: ImageSet

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> bytes:
    return self.images[index].image


def _labels_of(images: ImageSet, spec: DatasetSpec) -> np.ndarray:
  """Class indices [n]; multi-hot [n, k] for a multi-label dataset, generated images too."""
  labels = images.labels
  if labels.ndim == 2 or not spec.multi_label:
    return labels
  return np.eye(spec.num_classes, dtype=bool)[labels]


def _embed(
  run: Run, what: str, path: Path, dataset: str, images: Images, labels: np.ndarray
) -> int:
  total = len(images)
  with Progress(what, total, "images") as progress:
    resize = dataset_spec(dataset).resize
    features, valid = embed_stored(run.embedder, images, resize, progress, what)
  refuse_non_finite(features, what)
  stored = labels.astype(np.uint8 if labels.ndim == 2 else np.int32)
  found = EmbeddingSet(features, stored, np.arange(total, dtype=np.int64), valid)
  embedding_set.save(path, found, {"clip": run.clip_fingerprint})
  return total


def _embed_texts(run: Run, dataset: str, path: Path) -> None:
  spec = dataset_spec(dataset)
  features = text_prototypes(run.clip, spec.names, spec.templates, run.mesh)
  refuse_non_finite(features, f"text features of {dataset}")
  classes = np.arange(spec.num_classes, dtype=np.int64)
  found = EmbeddingSet(features, classes.astype(np.int32), classes, np.ones(len(classes), np.uint8))
  embedding_set.save(path, found, {"clip": run.clip_fingerprint})


# ---- score and recognise ----------------------------------------------------------------------


def score(run: Run) -> int:
  """Measures every cell not yet measured; returns how many cells."""
  return _measure(run, "score", measure.score_cells)


def recognise(run: Run) -> int:
  """Trains the recognisers of every cell not yet recognised; returns how many cells."""
  return _measure(run, "recognise", measure.recognise_cells)


def _measure(run: Run, stage: str, function: measure.MeasureCells) -> int:
  """Rows of each dataset's missing image sets, the image sets of a dataset together."""
  missing = [
    key for key in plan.measured_sets(run.config) if not rows_path(run, key, stage).exists()
  ]
  cells = {key: len(plan.cells_of(key, run.config)) for key in missing}
  count = sum(cells.values())
  with Progress(stage, count, "cells") as progress:
    for dataset in dict.fromkeys(key.dataset for key in missing):
      keys = [key for key in missing if key.dataset == dataset]
      data = measure.DatasetFeatures(
        spec=dataset_spec(dataset),
        encoder=run.config.encoder.checkpoint,
        logit_scale=float(np.exp(run.clip.params["logit_scale"])),
        text=load_embeddings(text_path(run, dataset)).features,
        test=load_embeddings(test_path(run, dataset)).readable(),
      )
      external = [external_images(run, key) for key in keys]
      for key, measured in function(run.config, data, external, run.mesh):
        _write_measured(run, key, stage, measured)
        progress.advance(cells[key])
  return count


def _write_measured(
  run: Run, key: ImageSetKey, stage: str, measured: Sequence[measure.Measured]
) -> None:
  """Writes the rows last: what has rows is complete."""
  names = dataset_spec(key.dataset).names
  classes = [class_values.of_row(one.row, one.by_class, names) for one in measured if one.by_class]
  if classes:
    class_values.write(classes_path(run, key, stage), classes)
  files.write_json_lines(rows_path(run, key, stage), [one.row for one in measured])


# ---- report -----------------------------------------------------------------------------------


def measured_rows(run: Run) -> list[dict[str, Any]]:
  """All rows of the config so far, in the order of its cells."""
  return read_rows(path for path in _all_rows_paths(run) if path.exists())


def _all_rows_paths(run: Run) -> list[Path]:
  return [
    rows_path(run, key, stage)
    for key in plan.measured_sets(run.config)
    for stage in ("score", "recognise")
  ]


def report(run: Run, ledger: Ledger) -> None:
  """Writes the page, if anything in it has changed."""
  rows = measured_rows(run)
  if not rows:
    raise RunError("there are no rows to report. Run the stages `score` and `recognise` first.")
  paths = _all_rows_paths(run)
  about = {"rows": [path.name for path in paths if path.exists()], "config": run.config.as_json()}
  seal, fingerprint = run.workdir / "report" / ".made_from", files.digest(about)
  page = run.workdir / "report" / "index.html"
  if page.exists() and seal.exists() and seal.read_text(encoding="utf-8") == fingerprint:
    say(f"report: nothing to do, see {page}")
    return
  began = time.monotonic()
  _write_page(run, rows, ledger)
  files.write_text(seal, fingerprint)
  say(f"report: {page} ({time.monotonic() - began:.1f} s)")


def _write_page(run: Run, rows: list[dict[str, Any]], ledger: Ledger) -> None:
  from genbench_jax.report.page import write_report

  galleries = [
    _gallery(open_image_set(run, key), key, run.config.report.gallery_images)
    for key in plan.image_sets(run.config)
    if ImageSet.exists(image_folder(run, key))
  ]
  about = {**ledger.about(), "warnings": left_out(run)}
  write_report(rows, galleries, about, run.workdir / "report", _class_scores(run))


def _class_scores(run: Run) -> Any:
  from genbench_jax.report.class_files import class_scores

  paths = (
    classes_path(run, key, stage)
    for key in plan.image_sets(run.config)
    for stage in ("score", "recognise")
  )
  return class_scores([one for path in paths if path.exists() for one in class_values.read(path)])


def _gallery(images: ImageSet, key: ImageSetKey, per_class: int) -> Any:
  from genbench_jax.report.gallery import Entry, Gallery

  labels = images.labels
  # An image of several classes is shown under its first, and under the first of all if it has none.
  labels = labels.argmax(axis=1) if labels.ndim == 2 else labels
  rows = plan.rows_of_shots(labels, per_class)
  records = [images[int(row)] for row in rows]
  names = images.class_names
  entries = [
    Entry(
      names[label],
      record.image,
      record.prompt or None,
      record.negative_prompt or None,
      record.seed if record.prompt else None,
    )
    for label, record in zip(labels[rows], records, strict=True)
  ]
  return Gallery(key.dataset, key.source, key.strategy, entries)
