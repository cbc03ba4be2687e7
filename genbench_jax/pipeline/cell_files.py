"""The stored results of a recognized cell: its summary and files."""

import dataclasses
import math
from typing import Any

import numpy as np

from genbench_jax.metrics.accuracy import FROM_PREDICTIONS
from genbench_jax.metrics.image_values import paired_values
from genbench_jax.pipeline.rows import (
  DatasetFeatures,
  per_image,
  versions,
)
from genbench_jax.pipeline.tasks import (
  RecognizerResult,
  Task,
)
from genbench_jax.recognizers.results import (
  class_scores,
  confusion_matrix,
  per_class_results,
  save_confusion,
  save_per_class,
  save_predictions,
)
from genbench_jax.store import hits


def summary_of(task: Task, found: RecognizerResult, data: DatasetFeatures) -> dict[str, Any]:
  """Return the results of a cell as plain numbers.

  Args:
    task: the cell.
    found: result of the recognizer.
    data: texts and test images of the dataset.
  """
  about = dataclasses.asdict(task.cell) | {"metric": data.spec.metric, "seconds": found.seconds}
  about |= {"versions": versions(), "encoder": data.encoder}
  plain = {key: _plain(value) for key, value in found.result.items() if not _is_array(value)}
  by_class = class_scores(found.result["scores"], data.test.labels, data.spec.metric)
  return about | plain | {"by_class": _plain(by_class)} | _per_image(found, data)


def _per_image(found: RecognizerResult, data: DatasetFeatures) -> dict[str, Any]:
  """Return the score's values for paired comparisons as JSON, one per test image."""
  scores, labels, metric = found.result["scores"], data.test.labels, data.spec.metric
  judged = scores.argmax(axis=1) == labels if metric in FROM_PREDICTIONS else scores
  values = paired_values(judged, labels, metric)
  return {"per_image": hits.encoded(per_image(values, data))}


def save_cell(
  task: Task, found: RecognizerResult, data: DatasetFeatures, with_predictions: bool
) -> None:
  """Write the files of a cell, the summary last.

  Args:
    task: the cell.
    found: result of the recognizer.
    data: texts and test images of the dataset.
    with_predictions: whether to store the scores of all test images.
  """
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
