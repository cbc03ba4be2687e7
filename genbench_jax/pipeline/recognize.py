"""The stage `recognize`: recognizers on the cells of a dataset, and their files.

A recognizer is a function from the cells of a dataset to a result for each; `RECOGNIZERS` names
them. Each cell has a folder with `predictions.npz` (scores, labels and ids of the test images),
`classes.csv`, `confusion.csv` for single-label datasets, `model.safetensors` and, written last,
`summary.json`. A cell with a summary is not trained again.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.cells import ImageSetKey, cells_of
from genbench_jax.config import Config
from genbench_jax.errors import ModelError
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cautions import with_caution
from genbench_jax.pipeline import feature_recognizers, image_recognizers, prompt_recognizers
from genbench_jax.pipeline.artifacts import results_folder
from genbench_jax.pipeline.cell_files import save_cell, summary_of
from genbench_jax.pipeline.external import External, external_images
from genbench_jax.pipeline.feature_recognizers import LAST_EPOCH
from genbench_jax.pipeline.rows import (
  About,
  DatasetFeatures,
  MeasuredRow,
  _measure,
  dataset_features,
  make_row,
)
from genbench_jax.pipeline.tasks import (
  Recognizer,
  Task,
  make_task,
)
from genbench_jax.run import Run
from genbench_jax.store import files, hits

SUMMARY = "summary.json"
# Recognizers have no interval for the generator; `analysis.seeds` computes one over seeds.
ONE_TRAINING = "one training run has no variance over images or seeds: run several seeds"
RECOGNIZERS: dict[str, Recognizer] = {
  "linear_probe": feature_recognizers.linear_probe,
  "coop": prompt_recognizers.coop,
  "vpt": prompt_recognizers.vpt,
  "tip_adapter": feature_recognizers.tip_adapter,
  "lora": image_recognizers.lora,
  "fine_tune": image_recognizers.fine_tune,
  "from_scratch": image_recognizers.from_scratch,
}
# Cells of these recognizers are trained in one program. Results are bit-identical only if the same
# cells are trained together.
SIDE_BY_SIDE = ("linear_probe",)
# These recognizers use only features, so they can be trained on those of any encoder.
ON_FEATURES = ("linear_probe",)
# These recognizers insert tokens into the towers of a CLIP.
IN_CLIPS_TOWERS = ("coop", "vpt")


def recognize(run: Run) -> int:
  """Train the recognizers of every cell that has no result; return the number of cells."""
  return _measure(run, "recognize", lambda data, sets, _: recognize_cells(run, data, sets))


def refuse_unsuitable(run: Run) -> None:
  """End a run at its start if the main encoder does not have what a recognizer trains.

  Raises:
    UsageError: the message names the recognizer.
  """
  for name in run.config.recognition.recognizers:
    if name in IN_CLIPS_TOWERS:
      run.refuse_other_than_clip(name)


def recognize_cells(
  run: Run, data: DatasetFeatures, external: Sequence[External]
) -> Iterator[tuple[ImageSetKey, list[MeasuredRow]]]:
  """Return the rows of every cell of each image set, for all recognizers and protocols.

  Encoders other than the run's own have linear probes only.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    external: the image sets of the dataset.
  """
  rows: dict[ImageSetKey, list[MeasuredRow]] = {image_set.key: [] for image_set in external}
  for name, protocol in _trainings(run.config):
    _recognize(run, data, external, (name, protocol), rows)
  for space in run.other_spaces:
    other = dataset_features(run, data.spec.name, space)
    images = [external_images(run, image_set.key, space) for image_set in external]
    for training in _trainings(run.config):
      if training[0] in ON_FEATURES:
        _recognize(run, other, images, training, rows, space.name)
  yield from rows.items()


def _recognize(
  run: Run,
  data: DatasetFeatures,
  external: Sequence[External],
  training: tuple[str, str],
  rows: dict[ImageSetKey, list[MeasuredRow]],
  space: str = "",
) -> None:
  """Add the rows of one recognizer under one protocol.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    external: the image sets of the dataset.
    training: recognizer and protocol.
    rows: dictionary that the rows are added to.
    space: name of the encoder, if it is not the run's own.
  """
  name, protocol = training
  tasks = _tasks(run, external, name, protocol, space)
  summaries = _earlier(run, tasks)
  missing = [task for task in tasks if task.folder not in summaries]
  trained = tasks if missing and name in SIDE_BY_SIDE else missing
  for task, found in zip(trained, RECOGNIZERS[name](run, data, trained, protocol), strict=True):
    if task.folder in summaries:
      continue
    if isinstance(found, ModelError):
      with run.failures.caught(f"{task.name}, {name} ({protocol})"):
        raise found
      continue
    summaries[task.folder] = summary_of(task, found, data)
    if run.hosts.is_first:
      save_cell(task, found, data, run.config.recognition.save_predictions)
      # Checkpoints are deleted once the summary exists, so the summary does not list them.
      listed = {
        name: checksum
        for name, checksum in files.checksums(task.folder).items()
        if not name.startswith("checkpoints/")
      }
      files.write_json(task.folder / SUMMARY, {**summaries[task.folder], "files": listed})
      shutil.rmtree(task.folder / "checkpoints", ignore_errors=True)
  for task in (task for task in tasks if task.folder in summaries):
    rows[task.external.key] += _measured(task, name, protocol, data, summaries[task.folder])


def _tasks(
  run: Run, external: Sequence[External], name: str, protocol: str, space: str
) -> list[Task]:
  """Return the cells that a recognizer trains."""
  shots = run.config.recognition.shots_of(name)
  return [
    make_task(
      cell,
      item,
      results_folder(run, item.key, name, protocol, cell.shots, space),
      run.config.mixture,
    )
    for item in external
    for cell in cells_of(item.key, run.config)
    if not shots or cell.shots in shots
  ]


def _earlier(run: Run, tasks: Sequence[Task]) -> dict[Path, dict[str, Any]]:
  """Return the summaries of cells that were recognized before, as the first process finds them."""
  own = [
    files.read_json(task.folder / SUMMARY)
    if run.hosts.is_first and (task.folder / SUMMARY).exists()
    else None
    for task in tasks
  ]
  summaries = run.hosts.gathered([own], "the recognized cells")[0]
  return {
    task.folder: item for task, item in zip(tasks, summaries, strict=True) if item is not None
  }


def _trainings(config: Config) -> Iterator[tuple[str, str]]:
  """Return recognizers and protocols. Prompt tuning has only the protocol `strict`."""
  for name in config.recognition.recognizers:
    for protocol in ("strict",) if name in ("coop", "vpt") else config.recognition.protocols:
      yield name, protocol


def _measured(
  task: Task, name: str, protocol: str, data: DatasetFeatures, summary: dict[str, Any]
) -> Iterator[MeasuredRow]:
  """Return the row of a recognizer on a cell; the reference probe has two, see `_published`."""
  about = About(
    data, task.cell, protocol, summary["n_external"], len(summary["missing_classes"]),
    task.external.real_images[task.cell.shots], summary.get("versions", ""),
  )  # fmt: skip
  by_class = {int(index): item for index, item in summary["by_class"].items()}
  for quantity, prefix, classes in ((name, "", by_class), (f"{name}_last_epoch", LAST_EPOCH, {})):
    if f"{prefix}score" in summary:
      score, low, high = (summary[f"{prefix}{key}"] for key in ("score", "ci_low", "ci_high"))
      found = Measurement(score, low, high, note=ONE_TRAINING)
      value = with_caution(quantity, found, data.spec.metric, recognition=True)
      kept = hits.decoded(summary["per_image"]) if not prefix and "per_image" in summary else None
      yield MeasuredRow(make_row(about, quantity, value, summary["seconds"]), classes, kept)
