"""The reference's search for learning rate and weight decay, and its two results on test images."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.accuracy import (
  FROM_PREDICTIONS,
  Metric,
  recognition_score,
  score_from_correct,
)
from genbench_jax.metrics.inputs import fetch
from genbench_jax.recognizers.reference_probe import (
  BATCH_SIZE,
  FINAL_EPOCHS,
  NORM_EPSILON,
  TRIAL_EPOCHS,
  Head,
  Norm,
  TrainingRows,
  batch_order,
  class_results,
  head_logits,
  run_final,
  run_trials,
)
from genbench_jax.recognizers.splits import first_fifth
from genbench_jax.recognizers.strict_probe import TrainingSet, bucket_rows
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh, pad_rows, padded_size

LEARNING_RATES = tuple(10.0**power for power in range(-6, 0))
WEIGHT_DECAYS = tuple(float(decay) for decay in np.logspace(-6, 6, 97))
COARSE_STEP = 16
SPANS = (8, 4, 2, 1)
# Cells per program are limited so that the validation logits of a search step stay below this
# count.
MOST_LOGITS = 2**26

Evaluate = Callable[[Int[np.ndarray, "c l w"]], Float[np.ndarray, "c l w"]]


def search_weight_decays(
  evaluate: Evaluate, num_cells: int
) -> tuple[Int[np.ndarray, "c l"], Float[np.ndarray, "c l"]]:
  """Find the best weight decay for each cell and learning rate; return its index and score.

  First every 16th of the 97 decays is tried; then, for spans of 8, 4, 2 and 1, the two at that
  distance from the best so far, clipped to the grid. Only a strictly better score moves the best.
  The initial score to beat is 0; if no trial beats it, the index stays -1.
  """
  shape = (num_cells, len(LEARNING_RATES))
  # [c, l] for cells and learning rates.
  peak, best = np.full(shape, -1), np.zeros(shape)
  coarse = np.arange(0, len(WEIGHT_DECAYS), COARSE_STEP)
  candidates = np.broadcast_to(coarse, (*shape, len(coarse)))
  for span in (*SPANS, None):
    scores = evaluate(candidates)
    for column in range(candidates.shape[-1]):
      better = scores[..., column] > best
      peak = np.where(better, candidates[..., column], peak)
      best = np.where(better, scores[..., column], best)
    if span is not None:
      around = np.stack([peak - span, peak + span], axis=-1)
      candidates = np.clip(around, 0, len(WEIGHT_DECAYS) - 1)
  return peak, best


def best_setting(
  peaks: Int[np.ndarray, "l"], scores: Float[np.ndarray, "l"]
) -> tuple[float, float]:
  """Return learning rate and weight decay of the best score; ties go to the smaller learning rate.

  If every trial scored 0, the reference trains with rate 0 and the largest weight decay.
  """
  first = int(np.argmax(scores))
  learning_rate = LEARNING_RATES[first] if scores[first] > 0 else 0.0
  return learning_rate, WEIGHT_DECAYS[peaks[first]]


def reference_fits(
  cells: list[TrainingSet],
  heads: list[Head],
  test_features: Float[np.ndarray, "m d"],
  test_labels: np.ndarray,
  metric: Metric,
  mesh: Mesh | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Search, train and score every cell; yield (index of the cell, results).

  Args:
    cells: training data of each cell.
    heads: initial head of each cell.
    test_features, test_labels: the test images.
    metric: recognition score.
    mesh: devices to use; None for the first device.
  """
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  multi_label = test_labels.ndim == 2
  for members, at_once in _blocks(cells):
    # Repeat a cell to fill the block, so that all blocks share a program.
    block = [*members, *members[:1] * (at_once - len(members))]
    block_cells, block_heads = [cells[i] for i in block], _stack([heads[i] for i in block])
    settings, scores = search(block_cells, block_heads, metric, multi_label, mesh)
    rows = _training_rows(block_cells, FINAL_EPOCHS)
    rates, decays = jnp.asarray(settings, jnp.float32).T
    states = run_final(rows, block_heads, rates, decays, multi_label=multi_label)
    for place, index in enumerate(members):
      head, norm = jax.tree.map(lambda leaf, place=place: leaf[place], states)
      result = _test_results(head, norm, test_features, test_labels, metric)
      rate, decay = settings[place]
      chosen = {"lr": rate, "weight_decay": decay, "validation_score": float(scores[place])}
      yield index, result | chosen


def _blocks(cells: list[TrainingSet]) -> Iterator[tuple[list[int], int]]:
  """Yield cells of equal padded shape, and the number of cells per program."""
  groups: dict[tuple[int, int, int], list[int]] = {}
  for index, cell in enumerate(cells):
    held = int(first_fifth(cell.targets).sum())
    sizes = (len(cell.targets) - held, held, len(cell.targets))
    key = (bucket_rows(sizes[0]), bucket_rows(sizes[1]), bucket_rows(sizes[2]))
    groups.setdefault(key, []).append(index)
  trials = len(LEARNING_RATES) * (len(WEIGHT_DECAYS) // COARSE_STEP + 1)
  for (_, held, _), members in groups.items():
    logits = trials * held * cells[members[0]].targets.shape[1]
    at_once = min(len(members), max(1, MOST_LOGITS // logits))
    for start in range(0, len(members), at_once):
      yield members[start : start + at_once], at_once


def search(
  cells: list[TrainingSet], heads: Head, metric: Metric, multi_label: bool, mesh: Mesh
) -> tuple[list[tuple[float, float]], Float[np.ndarray, "c"]]:
  """Return the chosen (learning rate, weight decay) and the validation score of each cell.

  Args:
    cells: cells of equal padded shape.
    heads: their initial heads.
    metric: recognition score.
    multi_label: whether an image may have several labels.
    mesh: devices over which the trials are split.
  """
  held_out = [first_fifth(cell.targets) for cell in cells]
  validation = [cell.targets[held] for cell, held in zip(cells, held_out, strict=True)]
  held_features = _pad([cell.features[held] for cell, held in zip(cells, held_out, strict=True)])
  training = [
    TrainingSet(cell.features[~held], cell.targets[~held], cell.seed)
    for cell, held in zip(cells, held_out, strict=True)
  ]
  rows = _training_rows(training, TRIAL_EPOCHS)
  split = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
  rows, held_features, heads = jax.device_put(
    (rows, held_features, heads), NamedSharding(mesh, PartitionSpec())
  )

  def evaluate(indices: Int[np.ndarray, "c l w"]) -> Float[np.ndarray, "c l w"]:
    decays = np.asarray(WEIGHT_DECAYS, np.float32)[indices]
    rates = np.broadcast_to(np.asarray(LEARNING_RATES, np.float32)[:, None], decays.shape)
    count = decays[0].size
    padding = ((0, 0), (0, padded_size(count, mesh.size) - count))
    flat = [np.pad(values.reshape(len(cells), count), padding) for values in (rates, decays)]
    results = run_trials(
      rows, held_features, heads, *(jax.device_put(values, split) for values in flat),
      multi_label=multi_label, predictions_only=metric in FROM_PREDICTIONS,
    )  # fmt: skip
    scores = [
      [best_epoch(trial[:, : len(targets)], targets, metric) for trial in result[:count]]
      for result, targets in zip(fetch(mesh, results), validation, strict=True)
    ]
    return np.reshape(scores, indices.shape)

  peaks, scores = search_weight_decays(evaluate, len(cells))
  settings = [best_setting(*pair) for pair in zip(peaks, scores, strict=True)]
  return settings, scores.max(axis=1)


def best_epoch(
  results: Int[np.ndarray, "e v"] | Float[np.ndarray, "e v k"],
  targets: Float[np.ndarray, "v k"],
  metric: Metric,
) -> float:
  """Return the best score over the epochs of a trial; 0 if any logit was not finite.

  Args:
    results: predicted classes or scores of each epoch.
    targets: labels of the validation images.
    metric: metric of recognition.
  """
  return max(epoch_scores(results, targets, metric))


def epoch_scores(
  results: Int[np.ndarray, "e v"] | Float[np.ndarray, "e v k"],
  targets: Float[np.ndarray, "v k"] | Bool[np.ndarray, "v k"],
  metric: Metric,
) -> list[float]:
  """Return the score after each epoch; all 0 if any logit was not finite.

  Args:
    results: predicted classes or scores of each epoch.
    targets: labels of the validation images.
    metric: metric of recognition.
  """
  finite = (results >= 0).all() if results.ndim == 2 else np.isfinite(results).all()
  if not finite:
    return [0.0] * len(results)
  if metric in FROM_PREDICTIONS:
    labels = targets.argmax(axis=1)
    return [score_from_correct(r == labels, labels, targets.shape[1], metric) for r in results]
  labels = targets.argmax(axis=1) if metric == "roc_auc" else targets.astype(bool)
  return [recognition_score(result, labels, metric) for result in results]


def _test_results(
  heads: Head, norms: Norm, features: Float[np.ndarray, "m d"], labels: np.ndarray, metric: Metric
) -> dict[str, Any]:
  """Return the test scores after each epoch, and the models of the last and the best epoch."""
  num_classes = heads.bias.shape[-1]
  targets = labels if labels.ndim == 2 else np.eye(num_classes, dtype=bool)[labels]
  results = _epoch_results(
    heads, norms, jnp.asarray(features), predictions_only=metric in FROM_PREDICTIONS
  )
  scores = epoch_scores(np.asarray(results), targets, metric)
  best = int(np.argmax(scores))
  last, published = (
    folded_head(*jax.tree.map(lambda leaf, at=at: leaf[at], (heads, norms))) for at in (-1, best)
  )
  return {
    "epoch_scores": scores,
    "best_epoch_score": scores[best],
    "best_epoch": best + 1,
    "scores": epoch_probabilities(heads, norms, features, -1),
    "best_epoch_scores": epoch_probabilities(heads, norms, features, best),
    "weights": np.asarray(last[0]),
    "bias": np.asarray(last[1]),
    "best_epoch_weights": np.asarray(published[0]),
    "best_epoch_bias": np.asarray(published[1]),
  }


def epoch_probabilities(
  heads: Head, norms: Norm, features: Float[np.ndarray, "m d"], epoch: int
) -> Float[np.ndarray, "m k"]:
  """Return the softmax of the logits after one epoch, for multi-label sets, too.

  Args:
    heads, norms: states after each epoch.
    features: raw features.
    epoch: index of the epoch.
  """
  head, norm = jax.tree.map(lambda leaf: leaf[epoch], (heads, norms))
  with jax.default_matmul_precision("highest"):
    return np.asarray(jax.nn.softmax(head_logits(head, norm, jnp.asarray(features)), axis=-1))


def folded_head(head: Head, norm: Norm) -> tuple[Float[Array, "k d"], Float[Array, "k"]]:
  """Fold the normalization into weights and bias that act on raw features."""
  weights = head.weights * jax.lax.rsqrt(norm.variance + NORM_EPSILON)
  return weights, head.bias - weights @ norm.mean


@jax.jit(static_argnames="predictions_only")
def _epoch_results(
  heads: Head, norms: Norm, features: Float[Array, "m d"], predictions_only: bool
) -> Array:
  """Return what `run_trials` reports, for the test images."""

  def results(state: tuple[Head, Norm]) -> Array:
    logits = head_logits(*state, features)
    return class_results(logits, predictions_only)

  with jax.default_matmul_precision("highest"):
    return jax.lax.map(results, (heads, norms))


def _training_rows(cells: list[TrainingSet], epochs: int) -> TrainingRows:
  """Return the padded rows of the cells, and the order in which each cell sees its own."""
  size = bucket_rows(max(len(cell.features) for cell in cells))
  steps = -(-size // BATCH_SIZE)
  order = [batch_order(len(cell.features), epochs, steps, cell.seed) for cell in cells]
  features, targets = (_pad([getattr(c, name) for c in cells]) for name in ("features", "targets"))
  return TrainingRows(features, targets, jnp.asarray(np.stack(order)))


def _pad(arrays: list[Float[np.ndarray, "_ d"]]) -> Float[Array, "c m d"]:
  size = bucket_rows(max(len(array) for array in arrays))
  return jnp.asarray(np.stack([pad_rows(array, size) for array in arrays]))


def _stack(heads: list[Head]) -> Head:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *heads)
