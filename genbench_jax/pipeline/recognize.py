"""The stage `recognize`: recognizers on the cells of a dataset, and their files.

A recognizer is a function from the cells of a dataset to a result for each; `RECOGNIZERS` names
them. Each cell has a folder with `predictions.npz` (scores, labels and ids of the test images),
`classes.csv`, `confusion.csv` for single-label datasets, `model.safetensors` and, written last,
`summary.json`. A cell with a summary is not trained again.
"""

import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.cells import ImageSetKey, cells_of
from genbench_jax.config import Config
from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.input_pipeline import Images, image_batches
from genbench_jax.embedding.stored import preprocessing_of
from genbench_jax.errors import ModelError
from genbench_jax.metrics.accuracy import FROM_PREDICTIONS
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cautions import with_caution
from genbench_jax.metrics.intervals import image_values
from genbench_jax.pipeline import image_recognizers
from genbench_jax.pipeline.artifacts import results_folder
from genbench_jax.pipeline.external import External, external_images
from genbench_jax.pipeline.rows import (
  About,
  DatasetFeatures,
  MeasuredRow,
  _measure,
  dataset_features,
  make_row,
  per_image,
  versions,
)
from genbench_jax.pipeline.tasks import (
  Recognizer,
  RecognizerResult,
  Task,
  make_task,
  remove_decoded,
  test_images,
  training_images,
)
from genbench_jax.recognizers.linear_probe import (
  ProbeData,
  external_summary,
  linear_probes,
  score_summary,
)
from genbench_jax.recognizers.models import save_model, save_probe
from genbench_jax.recognizers.prompt_tuning import (
  ReadFeatures,
  context_text_features,
  learn_context,
  save_context,
)
from genbench_jax.recognizers.random_views import RandomViews
from genbench_jax.recognizers.results import (
  class_scores,
  confusion_matrix,
  per_class_results,
  save_confusion,
  save_per_class,
  save_predictions,
)
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.tip_adapter import tip_adapter as cache_adapter
from genbench_jax.recognizers.visual_prompts import (
  ReadPixels,
  learn_visual_prompts,
  prompted_scores,
  save_visual_prompts,
)
from genbench_jax.recognizers.zero_shot import zero_shot_scores
from genbench_jax.run import Run
from genbench_jax.store import files, hits

SUMMARY = "summary.json"
# Recognizers have no interval for the generator; `analysis.seeds` computes one over seeds.
ONE_TRAINING = "one training run has no variance over images or seeds: run several seeds"
LAST_EPOCH = "last_epoch_"


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
    summaries[task.folder] = _summary(task, found, data)
    if run.hosts.is_first:
      _save(task, found, data, run.config.recognition.save_predictions)
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


# ---- the recognizers --------------------------------------------------------------------------


def linear_probe(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult]:
  """Train probes on the features; probes of equal shape are trained together.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  began = time.monotonic()
  probes = linear_probes(
    [
      ProbeData(task.images.features, task.images.labels, task.cell.seed, task.weights, task.later)
      for task in tasks
    ],
    data.test.features,
    data.test.labels,
    data.text if run.config.recognition.language_init and data.knows_text else None,
    protocol,
    data.spec.metric,
    num_classes=data.spec.num_classes,
    logit_scale=data.logit_scale,
    mesh=run.mesh,
  )
  seconds = (time.monotonic() - began) / max(1, len(tasks))
  for task, probe in zip(tasks, probes, strict=True):
    strict = protocol == "strict"
    result = probe if strict else _published(probe, data, task.cell.seed)

    def save_model(path: Path, result: dict[str, Any] = result, strict: bool = strict) -> None:
      save_probe(path, result, normalize=strict, multi_label=strict and data.spec.multi_label)

    yield RecognizerResult(result, save_model, seconds)


def _published(probe: dict[str, Any], data: DatasetFeatures, seed: int) -> dict[str, Any]:
  """Return the published score (best epoch on the test images) and that of the last epoch."""
  summary = score_summary(probe["best_epoch_scores"], data.test.labels, data.spec.metric, seed)
  model = {"weights": probe["best_epoch_weights"], "bias": probe["best_epoch_bias"]}
  last = {f"{LAST_EPOCH}{key}": probe[key] for key in ("score", "ci_low", "ci_high")}
  return probe | summary | model | last


def coop(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult]:
  """Learn context vectors for the class names on the features.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings = run.config.recognition
  for task in tasks:
    began = time.monotonic()
    targets = class_targets(task.images.labels, data.spec.num_classes)
    context = learn_context(
      run.clip, data.spec.names, task.images.features, targets, settings.coop, run.mesh,
      task.folder / "checkpoints", settings.save_every, task.cell.seed,
      task.weights, task.later, _views_of(run, data, task) if settings.coop.paper else None,
    )  # fmt: skip
    text = context_text_features(run.clip, data.spec.names, context, run.mesh)
    scores = np.asarray(zero_shot_scores(data.test.features, text, data.logit_scale))
    result = _prompt_result(scores, targets, data, task)
    save_model = lambda path, context=context: save_context(path, context)  # noqa: E731
    yield RecognizerResult(result, save_model, time.monotonic() - began)


def vpt(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult]:
  """Learn tokens of the vision tower on the images.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings = run.config.recognition
  for task in tasks:
    began = time.monotonic()
    targets = class_targets(task.images.labels, data.spec.num_classes)
    prompts = learn_visual_prompts(
      run.clip, data.text, _reader(run, data, training_images(run, task)), targets, settings.vpt,
      run.mesh, task.folder / "checkpoints", settings.save_every, task.cell.seed,
      task.weights, task.later, _view_reader(run, data, task, 1.0) if settings.vpt.paper else None,
    )  # fmt: skip
    read_test = _reader(run, data, test_images(run, data))
    scores = prompted_scores(
      run.clip, data.text, prompts, read_test, len(data.test), run.mesh,
      run.config.encoder.batch_per_device,
    )  # fmt: skip
    result = _prompt_result(scores, targets, data, task)
    save_model = lambda path, prompts=prompts: save_visual_prompts(path, prompts)  # noqa: E731
    yield RecognizerResult(result, save_model, time.monotonic() - began)


def _reader(run: Run, data: DatasetFeatures, images: Images) -> ReadPixels:
  """Return a function that reads images by row through the shared input pipeline."""
  preprocessing = preprocessing_of(run.clip, data.spec.resize)

  def read(rows: Int[np.ndarray, "m"], batch_size: int) -> Iterator[Float[np.ndarray, "b h w 3"]]:
    for batch in image_batches(images, preprocessing, batch_size, rows=rows.tolist()):
      yield batch.pixels

  return read


# Smallest share of the area that CoOp's random crops keep.
COOP_CROP = 0.08


def _view_reader(run: Run, data: DatasetFeatures, task: Task, least_area: float) -> ReadPixels:
  """Read random views of the training images of a cell."""
  size = preprocessing_of(run.clip, data.spec.resize).size
  return _reader(
    run, data, RandomViews(training_images(run, task), size, task.cell.seed, least_area)
  )


def _views_of(run: Run, data: DatasetFeatures, task: Task) -> ReadFeatures:
  """Read features of random views of the training images of a cell, as CoOp crops them."""
  read_pixels = _view_reader(run, data, task, COOP_CROP)

  def read(rows: Int[np.ndarray, "m"], size: int) -> Iterator[Float[np.ndarray, "b d"]]:
    embedder = ImageEmbedder(run.clip, run.mesh, -(-size // run.mesh.size))
    yield from embedder.stream(read_pixels(rows, size))

  return read


def _prompt_result(
  scores: Float[np.ndarray, "m k"],
  targets: Float[np.ndarray, "n k"],
  data: DatasetFeatures,
  task: Task,
) -> dict[str, Any]:
  summary = score_summary(scores, data.test.labels, data.spec.metric, task.cell.seed)
  return summary | external_summary(targets)


def tip_adapter(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult]:
  """Combine a cache of the features with the zero-shot classifier.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings = run.config.recognition
  for task in tasks:
    began = time.monotonic()
    targets = class_targets(task.images.labels, data.spec.num_classes)
    labels = targets.astype(bool) if data.spec.multi_label else task.images.labels
    result = cache_adapter(
      task.images.features, labels, data.test.features, data.test.labels, data.text, protocol,
      task.cell.seed, data.spec.metric, settings=settings.tip_adapter, logit_scale=data.logit_scale,
      loss_weights=task.weights, later=task.later, mesh=run.mesh,
      directory=task.folder / "checkpoints", save_every=settings.save_every,
    )  # fmt: skip
    arrays = {name: result[name] for name in ("keys", "values")}
    about = {"kind": "tip_adapter", "alpha": result["alpha"], "beta": result["beta"]}
    save = functools.partial(save_model, arrays=arrays, about=about)
    yield RecognizerResult(result, save, time.monotonic() - began)


RECOGNIZERS: dict[str, Recognizer] = {
  "linear_probe": linear_probe,
  "coop": coop,
  "vpt": vpt,
  "tip_adapter": tip_adapter,
  "lora": image_recognizers.lora,
  "fine_tune": image_recognizers.fine_tune,
  "from_scratch": image_recognizers.from_scratch,
}
# Cells of these recognizers are trained in one program. Results are bit-identical only if the same
# cells are trained together.
SIDE_BY_SIDE = ("linear_probe",)
# These recognizers use only features, so they can be trained on those of any encoder.
ON_FEATURES = ("linear_probe",)
# They put tokens into the towers of a CLIP.
IN_CLIPS_TOWERS = ("coop", "vpt")


# ---- the files of a cell ----------------------------------------------------------------------


def _summary(task: Task, found: RecognizerResult, data: DatasetFeatures) -> dict[str, Any]:
  """Return the results of a cell as plain numbers."""
  about = dataclasses.asdict(task.cell) | {"metric": data.spec.metric, "seconds": found.seconds}
  about |= {"versions": versions(), "encoder": data.encoder}
  plain = {key: _plain(value) for key, value in found.result.items() if not _is_array(value)}
  by_class = class_scores(found.result["scores"], data.test.labels, data.spec.metric)
  return about | plain | {"by_class": _plain(by_class)} | _per_image(found, data)


def _per_image(found: RecognizerResult, data: DatasetFeatures) -> dict[str, Any]:
  """Return the contribution of each test image to the score as JSON; empty if it is not a mean."""
  scores, labels, metric = found.result["scores"], data.test.labels, data.spec.metric
  judged = scores.argmax(axis=1) == labels if metric in FROM_PREDICTIONS else scores
  values = image_values(judged, labels, metric)
  return {} if values is None else {"per_image": hits.encoded(per_image(values, data))}


def _save(
  task: Task, found: RecognizerResult, data: DatasetFeatures, with_predictions: bool
) -> None:
  scores, labels, names = found.result["scores"], data.test.labels, data.spec.names
  if with_predictions:
    ids = [str(image) for image in data.test.ids]
    save_predictions(task.folder / "predictions.npz", scores, labels, ids)
  save_per_class(task.folder / "classes.csv", per_class_results(scores, labels, names))
  if labels.ndim == 1:
    counts = confusion_matrix(scores.argmax(axis=1), labels, len(names))
    save_confusion(task.folder / "confusion.csv", counts, names)
  found.save_model(task.folder / "model.safetensors")


def _is_array(value: Any) -> bool:
  return isinstance(value, np.ndarray)


def _plain(value: Any) -> Any:
  """Return the value as JSON, which has no NaN."""
  if isinstance(value, dict):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, float):
    return float(value) if math.isfinite(value) else None
  return value


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


def refuse_unsuitable(run: Run) -> None:
  """Ends a run before anything is made if the main encoder has not what a recognizer trains.

  Raises:
    UsageError: it names the recognizer.
  """
  for name in run.config.recognition.recognizers:
    if name in IN_CLIPS_TOWERS:
      run.refuse_other_than_clip(name)


def recognize(run: Run) -> int:
  """Train the recognizers of every cell that has no result; return the number of cells."""
  try:
    return _measure(run, "recognize", lambda data, sets: recognize_cells(run, data, sets))
  finally:
    remove_decoded(run)
