"""The recognizers that learn prompts for CLIP's towers, applied to the cells of a dataset."""

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.input_pipeline import Images, image_batches
from genbench_jax.embedding.stored import preprocessing_of
from genbench_jax.errors import ModelError
from genbench_jax.pipeline.rows import (
  DatasetFeatures,
)
from genbench_jax.pipeline.tasks import (
  RecognizerResult,
  Task,
  each_alone,
  test_images,
  training_images,
)
from genbench_jax.recognizers.linear_probe import (
  external_summary,
  score_summary,
)
from genbench_jax.recognizers.prompt_tuning import (
  ReadFeatures,
  context_text_features,
  learn_context,
  save_context,
)
from genbench_jax.recognizers.random_views import RandomViews
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.visual_prompts import learn_visual_prompts
from genbench_jax.recognizers.visual_tokens import ReadPixels, prompted_scores, save_visual_prompts
from genbench_jax.recognizers.zero_shot import zero_shot_scores
from genbench_jax.run import Run

# Smallest fraction of the area that CoOp's random crops keep.
COOP_CROP = 0.08


def coop(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Learn context vectors for the class names on the features.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  return each_alone(tasks, functools.partial(_coop, run, data))


def _coop(run: Run, data: DatasetFeatures, task: Task) -> RecognizerResult:
  settings, began = run.config.recognition, time.monotonic()
  targets = class_targets(task.images.labels, data.spec.num_classes)
  context = learn_context(
    run.clip, data.spec.names, task.images.features, targets, settings.coop,
    *_training(run, task), _views_of(run, data, task) if settings.coop.paper else None,
    data.spec.multi_label,
  )  # fmt: skip
  text = context_text_features(run.clip, data.spec.names, context, run.mesh)
  scores = np.asarray(
    zero_shot_scores(data.test.features, text, data.logit_scale, data.spec.multi_label)
  )
  result = _prompt_result(scores, targets, data, task)
  save_model = functools.partial(save_context, context=context)
  return RecognizerResult(result, save_model, time.monotonic() - began)


def vpt(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Learn tokens of the vision tower on the images.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  return each_alone(tasks, functools.partial(_vpt, run, data))


def _vpt(run: Run, data: DatasetFeatures, task: Task) -> RecognizerResult:
  settings, began = run.config.recognition, time.monotonic()
  targets = class_targets(task.images.labels, data.spec.num_classes)
  prompts = learn_visual_prompts(
    run.clip, data.text, _reader(run, data, training_images(run, task)), targets, settings.vpt,
    *_training(run, task), _view_reader(run, data, task, 1.0) if settings.vpt.paper else None,
    data.spec.multi_label,
  )  # fmt: skip
  read_test = _reader(run, data, test_images(run, data))
  scores = prompted_scores(
    run.clip, data.text, prompts, read_test, len(data.test), run.mesh,
    run.config.encoder.batch_per_device, data.spec.multi_label,
  )  # fmt: skip
  result = _prompt_result(scores, targets, data, task)
  save_model = functools.partial(save_visual_prompts, prompts=prompts)
  return RecognizerResult(result, save_model, time.monotonic() - began)


class Training(NamedTuple):
  """Common arguments of both methods: devices and prompts."""

  mesh: Mesh
  directory: Path
  save_every: int
  seed: int
  loss_weights: Float[np.ndarray, "n"] | None
  later: Bool[np.ndarray, "n"] | None


def _training(run: Run, task: Task) -> Training:
  """Return the arguments of a cell."""
  save_every = run.config.recognition.save_every
  return Training(
    run.mesh, task.folder / "checkpoints", save_every, task.cell.seed, task.weights, task.later
  )


def _reader(run: Run, data: DatasetFeatures, images: Images) -> ReadPixels:
  """Return a function that reads images by row through the shared input pipeline."""
  preprocessing = preprocessing_of(run.clip, data.spec.resize)

  def read(rows: Int[np.ndarray, "m"], batch_size: int) -> Iterator[Float[np.ndarray, "b h w 3"]]:
    for batch in image_batches(images, preprocessing, batch_size, rows=rows.tolist()):
      yield batch.pixels

  return read


def _view_reader(run: Run, data: DatasetFeatures, task: Task, least_area: float) -> ReadPixels:
  """Return a function that reads random views of a cell's training images."""
  size = preprocessing_of(run.clip, data.spec.resize).size
  return _reader(
    run, data, RandomViews(training_images(run, task), size, task.cell.seed, least_area)
  )


def _views_of(run: Run, data: DatasetFeatures, task: Task) -> ReadFeatures:
  """Return a function that reads features of random views, as CoOp crops them."""
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
