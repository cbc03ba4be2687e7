"""CLER scores: recognition by class centers of external images and text prototypes."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.accuracy import (
  FROM_PREDICTIONS,
  check_metric,
  check_test_labels,
  eleven_point_precision,
  recognition_score,
  score_from_hits,
)
from genbench_jax.metrics.bootstrap import RESAMPLES, Measurement
from genbench_jax.metrics.class_scores import (
  NO_NEIGHBOR,
  PROTOTYPE_SCORES,
  VOTE_SCORES,
  ClassSums,
  Neighbors,
  softmax_scores,
)
from genbench_jax.metrics.cler_measurements import measurements, over_permutations, per_image
from genbench_jax.metrics.cler_program import fold_program, reduce_program
from genbench_jax.metrics.cler_spread import SPARE, chosen_tests, external_variances
from genbench_jax.metrics.inputs import (
  blocks,
  check_finite,
  feature_rows,
  fetch,
  label_rows,
  named_labels,
  or_default,
  place,
)
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.runtime.mesh import batch_sharding, replicated
from genbench_jax.runtime.protocol import PROTOCOLS, Protocol

# Shuffles of the labels for the control.
PERMUTATIONS = 5


@dataclasses.dataclass(frozen=True)
class ClerResult:
  """Scores of external images as training data, with 95 % intervals.

  Attributes:
    scores: the five scores, and `cler_gain` = cler - zero_shot with a paired interval.
    control: the scores with shuffled labels of the external images; without zero_shot, which does
      not use them.
    per_class: recall (for `map_11_point`, average precision) by score and by class that occurs
      among the test images; empty for `roc_auc`.
    missing_classes: classes without external images.
    per_image: contribution of each test image by score, see `image_values.paired_values`; empty for
      `map_11_point`.
  """

  scores: dict[str, Measurement]
  control: dict[str, Measurement]
  per_class: dict[str, dict[int, float]]
  missing_classes: tuple[int, ...]
  per_image: dict[str, Float[np.ndarray, "m"]] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class _Inputs:
  """Checked inputs, on the host."""

  image_features: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]
  text_features: Float[np.ndarray, "k d"]
  test_features: Float[np.ndarray, "m d"]
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"]


@dataclasses.dataclass(frozen=True)
class _Outcome:
  """Scores for one labeling of the external images.

  Attributes:
    values: value of each score.
    per_class: value of each score by class.
    judged: what the intervals need: correctness [m, v], or scores [m, v, k].
    counts: external images of each class.
  """

  values: list[float]
  per_class: list[dict[int, float]]
  judged: np.ndarray
  counts: Int[np.ndarray, "k"]


def cler(
  image_features: Float[Any, "n d"],
  labels: Any,
  text_features: Float[Any, "k d"],
  test_features: Float[Any, "m d"],
  test_labels: Any,
  metric: str = "accuracy",
  top_k: int | None = 10,
  protocol: Protocol = "strict",
  mesh: Mesh | None = None,
  class_names: Sequence[str] = (),
) -> dict[str, float]:
  """Compute the five CLER scores of external images, without training (arXiv 2307.13697).

  With f the unit-norm feature of a test image, t_c the text prototype of class c and v_c the
  unit-norm mean of the unit-norm features of its external images, the predicted class maximizes

    zero_shot       f . t_c
    cler            f . norm(t_c + v_c)
    cler_image      f . v_c
    topk_vote       share of c among the labels of the `top_k` nearest external images, by cosine
    topk_vote_text  topk_vote + softmax(100 f . t_c)

  Args:
    image_features: features of the external images; no features need to be unit-norm.
    labels: their classes: indices, names (with `class_names`) or multi-hot [n, k].
    text_features: one prototype per class, in label order.
    test_features: features of the images to recognize.
    test_labels: their classes; multi-hot for `map_11_point`.
    metric: see `recognition_score`. Metrics that need scores use softmax scores at temperature 1,
      for zero_shot at 1 / 100, as published.
    top_k: number of neighbors that vote (all images if there are fewer). None skips the votes,
      which dominate the cost of large sets.
    protocol: `strict`, or `reference` for the published treatment of empty classes and ties
      (`class_scores`).
    mesh: devices to compute on; None for all.
    class_names: class names in label order, if labels are names.

  Returns:
    The scores by name, fractions from 0 to 1.

  Raises:
    UsageError: shapes, labels or values do not fit, or no external image is labeled.
  """
  mesh = or_default(mesh)
  labels = named_labels("labels", labels, class_names)
  test_labels = named_labels("test_labels", test_labels, class_names)
  inputs = _checked(
    image_features, labels, text_features, test_features, test_labels, metric, protocol
  )
  outcome = _score(inputs, [inputs.labels], metric, top_k, protocol, mesh)[0]
  return dict(zip(score_names(top_k), outcome.values, strict=True))


def measure_cler(
  image_features: Float[Any, "n d"],
  labels: Any,
  text_features: Float[Any, "k d"],
  test_features: Float[Any, "m d"],
  test_labels: Any,
  metric: str = "accuracy",
  top_k: int | None = 10,
  protocol: Protocol = "strict",
  seed: int = 0,
  resamples: int = RESAMPLES,
  mesh: Mesh | None = None,
  permutations: int = PERMUTATIONS,
) -> ClerResult:
  """Measure `cler` with intervals, gain, control, per-class values and missing classes.

  Args:
    image_features, labels, text_features, test_features, test_labels, metric, top_k, protocol,
    mesh: see `cler`.
    seed: of the control's shuffles and of the halves behind the intervals.
    resamples: maximal number of halves; at most 60 of the external and 100 of the test images are
      used.
    permutations: number of label shuffles. The control is their mean; its second interval predicts
      one more shuffle.

  Raises:
    UsageError: as `cler`.
  """
  mesh = or_default(mesh)
  inputs = _checked(
    image_features, labels, text_features, test_features, test_labels, metric, protocol
  )
  random = np.random.default_rng(seed)
  # Shuffling labels keeps the class sizes: the control differs from the score in the pairing only.
  shuffled = [random.permutation(inputs.labels) for _ in range(permutations)]
  outcomes = _score(inputs, [inputs.labels, *shuffled], metric, top_k, protocol, mesh)
  names = score_names(top_k)
  variances = _external_variances(inputs, metric, top_k, seed, resamples, mesh)
  scores = measurements(
    names,
    outcomes[0].values,
    outcomes[0].judged,
    inputs.test_labels,
    metric,
    variances,
    seed,
    resamples,
  )
  controls = [
    measurements(
      names, outcome.values, outcome.judged, inputs.test_labels, metric, None, seed, resamples
    )
    for outcome in outcomes[1:]
  ]
  control = {
    name: over_permutations(
      [shuffle[name] for shuffle in controls], -1.0 if name == "cler_gain" else 0.0
    )
    for name in scores
    if name != "zero_shot"
  }
  per_class = dict(zip(names, outcomes[0].per_class, strict=True)) if metric != "roc_auc" else {}
  missing = tuple(int(index) for index in np.flatnonzero(outcomes[0].counts == 0))
  images = per_image(names, outcomes[0].judged, inputs.test_labels, metric)
  return ClerResult(scores, control, per_class, missing, images)


def score_names(top_k: int | None) -> tuple[str, ...]:
  """Return the names of the scores in order, with the votes if `top_k` is set."""
  return PROTOTYPE_SCORES if top_k is None else PROTOTYPE_SCORES + VOTE_SCORES


def _checked(
  image_features: Any,
  labels: Any,
  text_features: Any,
  test_features: Any,
  test_labels: Any,
  metric: str,
  protocol: str,
) -> _Inputs:
  check_metric(metric)
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)
  text = feature_rows("text_features", text_features).astype(np.float32)
  check_finite("text_features", text)
  classes, width = text.shape
  images = feature_rows("image_features", image_features, width)
  tests = feature_rows("test_features", test_features, width)
  inputs = _Inputs(
    images,
    label_rows("labels", labels, len(images), classes),
    text,
    tests,
    label_rows("test_labels", test_labels, len(tests), classes),
  )
  check_test_labels(inputs.test_labels, classes, metric)
  if inputs.labels.ndim == 2 and not inputs.labels.any():
    raise UsageError("labels name no class for any external image")
  return inputs


def _external_variances(
  inputs: _Inputs, metric: str, top_k: int | None, seed: int, resamples: int, mesh: Mesh
) -> dict[str, float] | None:
  """Return each score's variance over fresh draws of external images; see `cler_spread`."""
  chosen = chosen_tests(len(inputs.test_features), seed)
  if metric != "accuracy":  # classes count equally: keep all test images, so that no class is lost
    chosen = np.arange(len(inputs.test_features))
  tests, voters = inputs.test_features[chosen], None
  if top_k is not None:
    wanted = min(SPARE * top_k, len(inputs.image_features))
    voters = nearest(tests, inputs.image_features, wanted, mesh=mesh)
  return external_variances(
    inputs.image_features,
    inputs.labels,
    inputs.text_features,
    tests,
    inputs.test_labels[chosen],
    metric,
    voters,
    top_k,
    seed,
    resamples,
  )


def _score(
  inputs: _Inputs,
  label_sets: Sequence[np.ndarray],
  metric: str,
  top_k: int | None,
  protocol: str,
  mesh: Mesh,
) -> list[_Outcome]:
  """Return the scores for each labeling of the external images.

  The labelings share the passes over the features and the search for neighbors.
  """
  classes, width = inputs.text_features.shape
  # All blocks but the last are folded into class sums; the last one joins the reduction, so that a
  # small set needs a single program.
  folded = [_no_sums(mesh, classes, width) for _ in label_sets]
  *full, last = blocks(len(inputs.image_features))
  for cut in full:
    features, *block_labels, mask = _external_block(inputs, label_sets, cut, mesh)
    folded = [
      fold_program(mesh)(sums, features, labels, mask)
      for sums, labels in zip(folded, block_labels, strict=True)
    ]
  features, *block_labels, mask = _external_block(inputs, label_sets, last, mesh)
  text = jax.device_put(inputs.text_features, replicated(mesh))
  tests = place("test_features", mesh, inputs.test_features, inputs.test_labels)
  program = reduce_program(mesh, metric in FROM_PREDICTIONS, protocol == "reference")
  voters = _voters(inputs, label_sets, top_k, mesh)
  outputs = [
    program(sums, (features, labels, mask), text, tests, neighbors)
    for sums, labels, neighbors in zip(folded, block_labels, voters, strict=True)
  ]
  return [_outcome(output, inputs, metric, mesh) for output in outputs]


def _external_block(
  inputs: _Inputs, label_sets: Sequence[np.ndarray], cut: slice, mesh: Mesh
) -> tuple[Array, ...]:
  labels = (labels[cut] for labels in label_sets)
  return place("image_features", mesh, inputs.image_features[cut], *labels)


def _no_sums(mesh: Mesh, classes: int, width: int) -> ClassSums:
  zeros = np.zeros((mesh.size, classes, width + 1), np.float32)
  return ClassSums(jax.device_put(zeros, batch_sharding(mesh)))


def _voters(
  inputs: _Inputs, label_sets: Sequence[np.ndarray], top_k: int | None, mesh: Mesh
) -> list[Neighbors | None]:
  """Return similarity and labels of each test image's nearest external images, per labeling."""
  if top_k is None:
    return [None for _ in label_sets]
  if top_k < 1:
    raise UsageError(f"top_k must be at least 1, or None for no votes, got {top_k}")
  similarity, rows = nearest(inputs.test_features, inputs.image_features, top_k, mesh=mesh)
  # `place` rejects infinite values.
  similarity = np.where(rows < 0, NO_NEIGHBOR, similarity)
  placed = (place("similarities", mesh, similarity, labels[rows])[:2] for labels in label_sets)
  return [Neighbors(*pair) for pair in placed]


def _outcome(output: Any, inputs: _Inputs, metric: str, mesh: Mesh) -> _Outcome:
  judged, hits, counts = fetch(mesh, output)
  # Rows beyond the test images are padding of the mesh.
  judged = judged[: len(inputs.test_features)]
  if metric in FROM_PREDICTIONS:
    *hits, totals = hits.T
    values = [score_from_hits(column, totals, metric) for column in hits]
    per_class = [_where_there_are_images(column, totals) for column in hits]
    return _Outcome(values, per_class, judged, counts)
  judged = softmax_scores(judged)
  columns = judged.swapaxes(0, 1)
  values = [recognition_score(column, inputs.test_labels, metric) for column in columns]
  per_class = [_average_precisions(column, inputs.test_labels) for column in columns]
  return _Outcome(values, per_class, judged, counts)


def _where_there_are_images(
  hits: Int[np.ndarray, "k"], totals: Int[np.ndarray, "k"]
) -> dict[int, float]:
  return {int(index): float(hits[index] / totals[index]) for index in np.flatnonzero(totals)}


def _average_precisions(scores: Float[np.ndarray, "m k"], labels: np.ndarray) -> dict[int, float]:
  hot = labels if labels.ndim == 2 else np.eye(scores.shape[1], dtype=bool)[labels]
  used = np.flatnonzero(hot.any(0))
  return {int(index): eleven_point_precision(scores[:, index], hot[:, index]) for index in used}


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield the whole family at once; neighbors are searched only if votes are requested."""
  votes = any(name in wanted for name in VOTE_SCORES)
  found = measure_cler(
    sets.external,
    sets.labels,
    sets.text,
    sets.test,
    sets.test_labels,
    metric=sets.metric,
    top_k=sets.top_k if votes else None,
    protocol=sets.protocol,
    seed=sets.seed,
    resamples=sets.resamples,
    mesh=sets.mesh,
  )
  for name, value in found.scores.items():
    by_class, control = found.per_class.get(name, {}), found.control.get(name)
    yield Result(name, value, by_class, control, found.per_image.get(name))
