"""The five stages in their order. Each reads what earlier ones left on disk and makes what is missing."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax import measure, plan
from genbench_jax.artefacts import (
  classes_path,
  embedded_as_made,
  image_set_path,
  open_image_set,
  rows_path,
  text_path,
)
from genbench_jax.benchmark.input_pipeline import SplitImages
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.clip.features import text_prototypes
from genbench_jax.config import STAGES, Config
from genbench_jax.embedding import StoredImages, refuse_non_finite
from genbench_jax.errors import ModelError, RunError
from genbench_jax.external import external_images
from genbench_jax.failures import Failures
from genbench_jax.features import embedded, encoder_of, load_embeddings, test_path
from genbench_jax.ledger import Ledger
from genbench_jax.making import close_if_whole, is_made, make_shards
from genbench_jax.plan import ImageSetKey
from genbench_jax.progress import Progress, say
from genbench_jax.recognition import recognise_cells
from genbench_jax.run import FeatureSpace, Run
from genbench_jax.sources import inversion
from genbench_jax.sources.folder import left_out
from genbench_jax.sources.prompting import tell_lint
from genbench_jax.sources.retrieval import leak_notes, shortages
from genbench_jax.store import class_values, files
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageSet
from genbench_jax.store.rows import Row, read_rows, write_results, write_rows

MeasureCells = Callable[
  [measure.DatasetFeatures, Sequence[measure.External]],
  Iterator[tuple[ImageSetKey, list[measure.Measured]]],
]


def run_stages(
  config: Config, workdir: Path, stages: Sequence[str], command: str, keep_going: bool = False
) -> None:
  """Runs the given stages in their order and says what each did.

  Every process of the run calls it. The first one alone writes rows and report.

  Raises:
    RunError: at the end, if parts of the run failed; it lists them.
  """
  run = Run(config, workdir, Failures(keep_going))
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
      done = _together(run, stage, functions[stage](run))
      if run.hosts.is_first:
        ledger.add(stage, done, time.monotonic() - began)
        if not done and not run.failures.reasons:
          say(f"{stage}: nothing to do")
  if run.hosts.is_first:
    write_results(workdir, measured_rows(run))
    if "report" in stages:
      report(run, ledger)
  if run.failures.reasons:
    raise RunError(run.failures.summary())


def _together(run: Run, stage: str, done: int) -> int:
  """Waits for the other processes at the end of a stage; how much was done and what failed by all of them."""
  told = run.hosts.gathered([[done, run.failures.reasons]], f"the end of stage {stage}")
  for _, reasons in told:
    run.failures.reasons.update(reasons)
  return sum(count for count, _ in told)


# ---- images -----------------------------------------------------------------------------------


def make_images(run: Run, ledger: Ledger) -> int:
  """Makes this process's missing shards of every image set; returns how many images were made."""
  keys = plan.image_sets(run.config)
  if run.hosts.is_first:
    tell_lint(run)
  # Those last whose tokens are learnt from images that another source makes.
  first = [key for key in keys if key.references != "retrieval"]
  return sum(
    _make_sets(run, ledger, some) for some in (first, [k for k in keys if k not in first]) if some
  )


def _make_sets(run: Run, ledger: Ledger, keys: Sequence[ImageSetKey]) -> int:
  """Makes this process's share of image sets, which don't need each other."""
  made = 0
  _learn_tokens(run, [key for key in keys if key.references])
  for turn, key in enumerate(keys):
    if key.name not in run.failures:
      with run.failures.caught(key.name):
        try:
          made += make_shards(run, key, turn)
        finally:
          if run.hosts.is_first:
            ledger.add_cost(key.name, run.cost(key))
  run.hosts.wait("the images")
  if run.hosts.is_first:
    for key in keys:
      close_if_whole(run, key)
  return made


def _learn_tokens(run: Run, keys: Sequence[ImageSetKey]) -> None:
  """Learns this process's share of the new tokens that image sets still to be made ask for."""
  for key in keys:
    with run.failures.caught(key.name):
      if not is_made(run, key):
        inversion.learn_share(run, key)
  if keys:
    run.hosts.wait("the new tokens")


# ---- embed ------------------------------------------------------------------------------------


def embed(run: Run) -> int:
  """Embeds this process's share of all images and class names not yet embedded; returns how many images."""
  wanted = list(_wanted_features(run))
  count = 0
  for turn, features in enumerate(wanted):
    if features.name not in run.failures and not features.path.exists():
      with run.failures.caught(features.name):
        count += _embed_parts(run, features, turn)
  run.hosts.wait("the features")
  if run.hosts.is_first:
    for features in wanted:
      _join_if_whole(run, features)
  return count


@dataclasses.dataclass(frozen=True)
class _Features:
  """One file of features: what they are of and in, where they stand, and how to read what they are made from."""

  name: str
  path: Path
  open: Callable[[], "_Unembedded"]
  space: FeatureSpace
  are_images: bool = True


@dataclasses.dataclass(frozen=True)
class _Unembedded:
  """What features are made from: how much there is, and how a range of it is embedded."""

  size: int
  embed: Callable[[range, Progress], EmbeddingSet]


def _wanted_features(run: Run) -> Iterator[_Features]:
  for dataset in run.config.datasets:
    texts = functools.partial(_open_texts, run, dataset)
    yield _Features(f"{dataset} text", text_path(run, dataset), texts, run.space, are_images=False)
  for space in filter(None, (run.space, run.other_space)):
    for dataset in run.config.datasets:
      test = functools.partial(_open_test, run, dataset, space)
      yield _Features(f"{dataset} test", test_path(run, dataset, space), test, space)
    for key in plan.image_sets(run.config):
      images = functools.partial(_open_images, run, key, space)
      yield _Features(key.name, image_set_path(run, key, space), images, space)


def _embed_parts(run: Run, features: _Features, turn: int) -> int:
  """Embeds those missing parts that are this process's; `turn` evens out small sets. Returns how many images."""
  unembedded = features.open()
  parts = EmbeddingParts(features.path, unembedded.size, encoder_of(run, features.space))
  own = [part for part in range(len(parts)) if run.hosts.owns(turn + part)]
  missing = [part for part in own if parts.is_missing(part)]
  total = sum(len(parts.ranges[part]) for part in missing)
  other = f" in {features.space.name}" if features.space is run.other_space else ""
  with Progress(f"embed {features.name}{other}", total, "images") as progress:
    for part in missing:
      found = unembedded.embed(parts.ranges[part], progress)
      refuse_non_finite(found, features.name)
      parts.write(part, found)
  if run.hosts.is_first and parts.is_whole():
    parts.join()
  return total if features.are_images else 0


def _join_if_whole(run: Run, features: _Features) -> None:
  """Joins features whose last part was another process's."""
  if features.name in run.failures or features.path.exists():
    return
  parts = EmbeddingParts(features.path, features.open().size, encoder_of(run, features.space))
  if parts.is_whole():
    parts.join()


def _open_texts(run: Run, dataset: str) -> _Unembedded:
  spec = dataset_spec(dataset)

  def embed_texts(rows: range, progress: Progress) -> EmbeddingSet:
    features = text_prototypes(run.clip, spec.names, spec.templates, run.local_mesh)
    classes = np.arange(spec.num_classes, dtype=np.int64)
    return EmbeddingSet(
      features, classes.astype(np.int32), classes, np.ones(len(classes), np.uint8)
    )

  return _Unembedded(1, embed_texts)


def _open_test(run: Run, dataset: str, space: FeatureSpace) -> _Unembedded:
  split = run.split(dataset, "test")

  def embed_test(rows: range, progress: Progress) -> EmbeddingSet:
    labels = run.labels(dataset, "test")[rows.start : rows.stop]
    images, name = SplitImages(split), f"{dataset} test"
    return embedded(run, name, dataset, images, labels, rows, progress, space)

  return _Unembedded(len(split), embed_test)


def _open_images(run: Run, key: ImageSetKey, space: FeatureSpace) -> _Unembedded:
  if embedded_as_made(run, key):
    raise RunError(
      f"there are no features of {key.name}: they are made with its images. Run the stage `images` first."
    )
  images = open_image_set(run, key)

  def embed_images(rows: range, progress: Progress) -> EmbeddingSet:
    images.verify(rows)
    labels = _labels_of(images, rows, dataset_spec(key.dataset))
    stored = StoredImages(images)
    return embedded(run, key.name, key.dataset, stored, labels, rows, progress, space)

  return _Unembedded(len(images), embed_images)


def _labels_of(images: ImageSet, rows: range, spec: DatasetSpec) -> np.ndarray:
  """Class indices [n]; multi-hot [n, k] for a multi-label dataset, generated images too."""
  labels = images.labels[rows.start : rows.stop]
  if labels.ndim == 2 or not spec.multi_label:
    return labels
  return np.eye(spec.num_classes, dtype=bool)[labels]


# ---- score and recognise ----------------------------------------------------------------------


def score(run: Run) -> int:
  """Measures every cell not yet measured; returns how many cells."""
  return _measure(run, "score", functools.partial(_score_cells, run))


def _score_cells(
  run: Run, data: measure.DatasetFeatures, external: Sequence[measure.External]
) -> Iterator[tuple[ImageSetKey, list[measure.Measured]]]:
  """Every metric on the run's features, then those without text on the other ones where there are such."""
  space, dataset = run.other_space, data.spec.name
  other = space and measure.without_text(
    data, space.name, load_embeddings(test_path(run, dataset, space)).readable()
  )
  for key, measured in measure.score_cells(run.config, data, external, run.mesh):
    if other:
      others = [external_images(run, key, space)]
      for _, more in measure.score_cells(run.config, other, others, run.mesh):
        measured += more
    yield key, measured


def recognise(run: Run) -> int:
  """Trains the recognisers of every cell not yet recognised; returns how many cells."""
  return _measure(run, "recognise", lambda data, sets: recognise_cells(run, data, sets))


def _measure(run: Run, stage: str, function: MeasureCells) -> int:
  """Rows of each dataset's missing image sets, the image sets of a dataset together."""
  keys = [key for key in plan.measured_sets(run.config) if key.name not in run.failures]
  gone = run.hosts.agreed((not rows_path(run, key, stage).exists() for key in keys), stage)
  missing = [key for key, is_gone in zip(keys, gone, strict=True) if is_gone]
  cells = {key: len(plan.cells_of(key, run.config)) for key in missing}
  count = sum(cells.values())
  with Progress(stage, count, "cells") as progress:
    for dataset in dict.fromkeys(key.dataset for key in missing):
      group = [key for key in missing if key.dataset == dataset]
      with run.failures.caught([key.name for key in group]):
        for key, measured in _measured(run, function, group):
          with run.failures.caught(key.name):
            _refuse_non_finite_rows([one.row for one in measured], key)
            if run.hosts.is_first:
              _write_measured(run, key, stage, measured)
          progress.advance(cells[key])
  return count if run.hosts.is_first else 0


def _measured(
  run: Run, function: MeasureCells, keys: Sequence[ImageSetKey]
) -> Iterator[tuple[ImageSetKey, list[measure.Measured]]]:
  """What is measured of image sets of one dataset."""
  dataset = keys[0].dataset
  data = measure.DatasetFeatures(
    spec=dataset_spec(dataset),
    encoder=run.config.encoder.checkpoint,
    logit_scale=float(np.exp(run.clip.params["logit_scale"])),
    text=load_embeddings(text_path(run, dataset)).features,
    test=load_embeddings(test_path(run, dataset)).readable(),
  )
  external = []
  for key in keys:
    with run.failures.caught(key.name):
      external.append(external_images(run, key))
  if external:
    yield from function(data, external)


def _refuse_non_finite_rows(rows: Sequence[Row], key: ImageSetKey) -> None:
  for row in rows:
    if not np.isfinite(row["value"]):
      cell = f"{key.name}, {row['shots']} shots"
      raise ModelError(f"{cell}: {row['quantity']} ({row['protocol']}) is {row['value']}.")


def _write_measured(
  run: Run, key: ImageSetKey, stage: str, measured: Sequence[measure.Measured]
) -> None:
  """Writes the rows last: what has rows is complete."""
  names = dataset_spec(key.dataset).names
  classes = [class_values.of_row(one.row, one.by_class, names) for one in measured if one.by_class]
  if classes:
    class_values.write(classes_path(run, key, stage), classes)
  write_rows(rows_path(run, key, stage), [one.row for one in measured])


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
  made_from = {
    "rows": [path.name for path in paths if path.exists()],
    "config": run.config.as_json(),
  }
  seal, fingerprint = run.workdir / "report" / ".made_from", files.digest(made_from)
  page = run.workdir / "report" / "index.html"
  if page.exists() and seal.exists() and seal.read_text(encoding="utf-8") == fingerprint:
    say(f"report: nothing to do, see {page}")
    return
  began = time.monotonic()
  # Imported here: what the page takes, no other stage does.
  from genbench_jax.reporting import write_report

  about = {
    **ledger.about(),
    "warnings": [*left_out(run), *shortages(run)],
    "prompt_lint": tell_lint(run),
    "leak_audit": leak_notes(run),
  }
  write_report(run, rows, about)
  files.write_text(seal, fingerprint)
  say(f"report: {page} ({time.monotonic() - began:.1f} s)")
