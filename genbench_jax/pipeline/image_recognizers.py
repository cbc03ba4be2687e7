"""The recognizers that train on images, applied to the cells of a dataset."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genbench_jax.errors import ModelError
from genbench_jax.models import weights
from genbench_jax.pipeline.rows import DatasetFeatures
from genbench_jax.pipeline.tasks import (
  RecognizerResult,
  Task,
  decoded,
  test_images,
  training_images,
)
from genbench_jax.recognizers import (
  fine_tune as fine_tuning,
  from_scratch as scratch,
  lora as low_rank,
)
from genbench_jax.recognizers.fit import Fit, evaluated, fit_cells
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.models import save_model
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.training_set import TrainingSet, make_training_set
from genbench_jax.run import Run

# Task -> training method; settings may depend on the number of shots.
MakeMethod = Callable[[Task], Method]


def from_scratch(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Train a network from scratch on the images of each cell.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings = run.config.recognition.from_scratch
  method = scratch.method(settings, data.spec.num_classes, data.spec.multi_label, protocol)
  at_once = scratch.cells_at_once(settings)
  yield from trained(run, data, tasks, protocol, lambda task: method, at_once)


def fine_tune(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Fine-tune CLIP's vision tower, or another pretrained network, on the images of each cell.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings = run.config.recognition.fine_tune
  encoder = None if settings.checkpoint else run.encoder
  method = fine_tuning.method(
    settings, encoder, data.text, data.spec.num_classes, data.spec.multi_label, protocol
  )
  yield from trained(run, data, tasks, protocol, lambda task: method)


def lora(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Train low-rank updates of both CLIP towers on the images of each cell.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  settings, spec = run.config.recognition.lora, data.spec

  @functools.cache
  def method(shots: int) -> Method:
    return low_rank.method(
      settings, run.encoder, spec.names, spec.templates[0], shots, spec.num_classes, spec.multi_label,
      protocol,
    )  # fmt: skip

  yield from trained(run, data, tasks, protocol, lambda task: method(task.cell.shots))


def trained(
  run: Run,
  data: DatasetFeatures,
  tasks: Sequence[Task],
  protocol: str,
  method_of: MakeMethod,
  at_once: int = 1,
) -> Iterator[RecognizerResult | ModelError]:
  """Return the result of each task: decode its images, train and test.

  Only a few cells are in memory at a time.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
    method_of: function from a task to its training method.
    at_once: maximum number of cells in one program.
  """
  if not tasks:
    return
  size = method_of(tasks[0]).problem.view.stored_size
  tested = decoded(run, data, test_images(run, data), size, f"{data.spec.name} test")
  for start in range(0, len(tasks), at_once):
    members = tasks[start : start + at_once]
    method, began = method_of(members[0]), time.monotonic()
    sets = [_training_set(run, data, task, size) for task in members]
    places = [_place(run, task, at_once) for task in members]
    fits = fit_cells(method, sets, places, protocol)
    for training_set, fit in zip(sets, fits, strict=True):
      if isinstance(fit, ModelError):
        yield fit
        continue
      try:
        result = evaluated(
          method, fit, training_set, tested, data.test.labels, data.spec.metric, run.mesh
        )
      except ModelError as error:
        yield ModelError(f"{method.name}: {error}")
        continue
      save = functools.partial(_save, method.name, fit)
      yield RecognizerResult(result, save, (time.monotonic() - began) / len(members))


def _training_set(run: Run, data: DatasetFeatures, task: Task, size: int) -> TrainingSet:
  images: UInt8[np.ndarray, "n s s 3"] = decoded(
    run, data, training_images(run, task), size, task.name
  )
  targets = class_targets(task.images.labels, data.spec.num_classes)
  return make_training_set(
    images, targets, task.weights, task.later, data.spec.multi_label, task.cell.seed
  )


def _place(run: Run, task: Task, at_once: int) -> Place:
  save_every = run.config.recognition.save_every
  return Place(run.mesh, task.name, task.folder / "checkpoints", save_every, at_once)


def _save(kind: str, fit: Fit, path: Path) -> None:
  """Save the trained weights under their PyTorch names, with what is needed to use them."""
  arrays = weights.to_torch(fit.model.variables) | weights.to_torch(fit.model.stats)
  save_model(path, arrays, {"kind": kind, **fit.about})
