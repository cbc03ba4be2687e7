"""Details of a recognizer's predictions, and the files that store them."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.errors import RunError
from genbench_jax.metrics.accuracy import eleven_point_precision
from genbench_jax.metrics.kinds import Metric
from genbench_jax.runtime.npz import read_npz
from genbench_jax.store.files import check_arrays_format, write_arrays, write_csv

Labels = Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]
_MOST_BYTES = 1 << 34
PER_CLASS_COLUMNS = ("index", "class_name", "images", "predicted", "recall", "precision")


def confusion_matrix(
  predictions: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "k k"]:
  """Count images by true class (row) and predicted class (column).

  Args:
    predictions: predicted classes.
    labels: true classes.
    num_classes: number of classes.
  """
  # Each pair of true and predicted class has its own number, in row-major order.
  cells = np.asarray(labels) * num_classes + np.asarray(predictions)
  return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_results(
  scores: Float[np.ndarray, "n k"], labels: Labels, class_names: list[str] | tuple[str, ...]
) -> list[dict[str, Any]]:
  """Return images, predictions, recall and precision of each class; None for a division by zero.

  Args:
    scores: class probabilities.
    labels: class indices; or multi-hot, and then a class counts as predicted from 0.5 on.
    class_names: one name per class.
  """
  truth = labels if labels.ndim == 2 else np.eye(len(class_names), dtype=bool)[labels]
  if labels.ndim == 2:
    predicted = scores >= 0.5
  else:
    predicted = np.eye(len(class_names), dtype=bool)[scores.argmax(axis=1)]
  hits = (truth & predicted).sum(axis=0)
  return [
    {
      "index": index,
      "class_name": name,
      "images": int(truth[:, index].sum()),
      "predicted": int(predicted[:, index].sum()),
      "recall": _ratio(hits[index], truth[:, index].sum()),
      "precision": _ratio(hits[index], predicted[:, index].sum()),
    }
    for index, name in enumerate(class_names)
  ]


def class_scores(
  scores: Float[np.ndarray, "n k"], labels: Labels, metric: Metric
) -> dict[int, float]:
  """Return the recall (multi-hot: average precision) of each class; empty for `roc_auc`.

  Args:
    scores: scores of the test images.
    labels: their labels.
    metric: metric of recognition.
  """
  if metric == "roc_auc":
    return {}
  if labels.ndim == 2:
    return {
      int(c): float(eleven_point_precision(scores[:, c], labels[:, c]))
      for c in np.flatnonzero(labels.any(axis=0))
    }
  totals = np.bincount(labels, minlength=scores.shape[1])
  hits = np.bincount(labels[scores.argmax(axis=1) == labels], minlength=scores.shape[1])
  return {int(c): float(hits[c] / totals[c]) for c in np.flatnonzero(totals)}


def _ratio(part: int | np.integer, whole: int | np.integer) -> float | None:
  return float(part / whole) if whole else None


def save_per_class(path: Path, rows: list[dict[str, Any]]) -> None:
  """Write the rows of `per_class_results` as CSV."""
  write_csv(path, rows, PER_CLASS_COLUMNS)


def save_confusion(
  path: Path, counts: Int[np.ndarray, "k k"], class_names: list[str] | tuple[str, ...]
) -> None:
  """Write a confusion matrix as CSV: one row per true class, one column per predicted class.

  Args:
    path: file to write.
    counts: result of `confusion_matrix`.
    class_names: names of the classes.
  """
  columns = [f"{index} {name}" for index, name in enumerate(class_names)]
  rows = [
    {"true class": column, **dict(zip(columns, line.tolist(), strict=True))}
    for column, line in zip(columns, counts, strict=True)
  ]
  write_csv(path, rows, ["true class", *columns])


def save_predictions(
  path: Path,
  scores: Float[np.ndarray, "n k"],
  labels: Labels,
  ids: list[str] | None = None,
) -> None:
  """Write scores, labels and ids of the test images as npz, to recompute any metric from.

  Args:
    path: path of the file.
    scores: stored as `scores`, float32 [n, k].
    labels: stored as `labels`, int32 [n] or bool [n, k].
    ids: stored as `ids`, text [n]; None for the row numbers.
  """
  labels = np.asarray(labels)
  names = [str(row) for row in range(len(scores))] if ids is None else ids
  write_arrays(
    path,
    compressed=True,
    scores=np.asarray(scores, np.float32),
    labels=labels if labels.dtype == bool else labels.astype(np.int32),
    ids=np.asarray(names, dtype=np.str_),
  )


def load_predictions(path: Path) -> tuple[Float[np.ndarray, "n k"], Labels, list[str]]:
  """Read saved scores, labels and ids.

  Raises:
    RunError: the file is missing or damaged, or holds something else.
  """
  try:
    arrays = read_npz(path, _MOST_BYTES)
    check_arrays_format(path, arrays)
    return arrays["scores"], arrays["labels"], arrays["ids"].tolist()
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise RunError(f"the predictions in {path} can't be read: {error}") from error
