"""The recognizers that train on features, applied to the cells of a dataset."""

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import ModelError
from genbench_jax.pipeline.rows import (
  DatasetFeatures,
)
from genbench_jax.pipeline.tasks import (
  RecognizerResult,
  Task,
  each_alone,
)
from genbench_jax.recognizers.linear_probe import (
  ProbeData,
  linear_probes,
  score_summary,
)
from genbench_jax.recognizers.models import save_model, save_probe
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.tip_adapter import tip_adapter as cache_adapter
from genbench_jax.run import Run

# Prefix of the results of the last epoch, besides those of the best one.
LAST_EPOCH = "last_epoch_"


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


def tip_adapter(
  run: Run, data: DatasetFeatures, tasks: Sequence[Task], protocol: str
) -> Iterator[RecognizerResult | ModelError]:
  """Combine a cache of the features with the zero-shot classifier.

  Args:
    run: a config on its work folder.
    data: texts and test images of the dataset.
    tasks: the cells.
    protocol: `strict` or `reference`.
  """
  return each_alone(tasks, functools.partial(_tip_adapter, run, data, protocol))


def _tip_adapter(run: Run, data: DatasetFeatures, protocol: str, task: Task) -> RecognizerResult:
  settings, began = run.config.recognition, time.monotonic()
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
  return RecognizerResult(result, save, time.monotonic() - began)
