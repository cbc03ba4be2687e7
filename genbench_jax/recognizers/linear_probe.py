"""The linear probe: how useful images are as training data for a linear classifier.

There are two protocols. `strict` (the default) solves the convex problem to convergence and chooses
its regularization on held-out external images; test images are used once. `reference` follows the
published evaluation, including its flaws, for comparable numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import ModelError, UsageError, unknown_name
from genbench_jax.metrics.accuracy import check_metric, check_test_labels, recognition_score
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows, label_rows
from genbench_jax.metrics.kinds import Metric
from genbench_jax.recognizers.intervals import bootstrap_interval
from genbench_jax.recognizers.reference_probe import Head
from genbench_jax.recognizers.reference_search import reference_fits
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.strict_probe import PENALTIES, StrictFit, TrainingSet, fit_strict
from genbench_jax.recognizers.training import later_images, mean_one
from genbench_jax.recognizers.zero_shot import CLIP_LOGIT_SCALE
from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import AtLeast


@dataclasses.dataclass(frozen=True)
class ProbeData:
  """External images of one cell.

  Attributes:
    features: image features, [n, d].
    labels: class indices [n], or multi-hot [n, k].
    seed: of the folds and the batches.
    weights: loss weight of each image; None for equal weights. The `reference` protocol ignores
      them.
    later: images of a second phase, whose fit is regularized towards the probe of the others.
  """

  features: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"]
  seed: int = 0
  weights: Float[np.ndarray, "n"] | None = None
  later: Bool[np.ndarray, "n"] | None = None


def linear_probe(
  features: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_features: Float[np.ndarray, "m d"],
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  text_features: Float[np.ndarray, "k d"] | None = None,
  protocol: str = "strict",
  seed: int = 0,
  metric: Metric = "accuracy",
  **options: Any,
) -> dict[str, Any]:
  """Train a linear probe on external features and score it on test features.

  This is `linear_probes` with a single cell; see there for arguments, options, results and errors.
  """
  cell = ProbeData(features, labels, seed)
  return linear_probes(
    [cell], test_features, test_labels, text_features, protocol, metric, **options
  )[0]


def linear_probes(
  cells: Sequence[ProbeData],
  test_features: Float[np.ndarray, "m d"],
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  text_features: Float[np.ndarray, "k d"] | None = None,
  protocol: str = "strict",
  metric: Metric = "accuracy",
  *,
  num_classes: int | None = None,
  normalize: bool = True,
  logit_scale: float = CLIP_LOGIT_SCALE,
  mesh: Mesh | None = None,
) -> list[dict[str, Any]]:
  """Train one probe per cell, all cells of equal shape at once, and score each on test data.

  strict: multinomial (multi-label: binary) logistic regression with the L2 penalty of
  `logistic.py`. With `text_features` the penalty pulls towards the zero-shot classifier instead of
  zero. A single bad image then cannot ruin a class, and a class without images keeps its zero-shot
  weights. Without text, such a class is never predicted. If the zero-shot logits are too large for
  the external images, their scale is first lowered to the most likely one (`prior_scale`). The
  penalty has the smallest mean loss on held-out external images (ties: the strongest): three
  stratified folds up to 2,048 images, one fifth beyond. Penalties are tried from strong to weak
  until that loss rises. At two shots each image is held out once while its classmate trains. At one
  shot nothing can be held out without removing the class, so the penalty is 1 and the prior keeps
  its scale. The chosen model is refitted to all images.

  reference: see `reference_probe.py`. At one shot the search has nothing to train on, so all trials
  tie and the first is taken. Features are used as given, whatever `normalize` says.

  Args:
    cells: external features and labels of each cell.
    test_features: features of the test images.
    test_labels: class indices, or multi-hot for a multi-label set.
    text_features: one text prototype per class, or None.
    protocol: `strict` or `reference`.
    metric: recognition score.
    num_classes: k, if there is no text; None infers it from the labels.
    normalize: whether to scale features to unit norm first.
    logit_scale: scale of the zero-shot logits: CLIP's own, exp of its `logit_scale`.
    mesh: devices to use; None for the first device.

  Returns:
    A dict per cell: `score` (a fraction; reference: at the last epoch), `ci_low` and `ci_high` (95
    % interval over the test images), `scores` (probabilities [m, k]), `predictions` [m], `weights`
    [k, d] and `bias` [k] (logits of the features as used), `lr` (None for strict), `weight_decay`
    (on the scale of the mean loss), `n_external`, `n_test`, `missing_classes` (indices),
    `converged` (reference: whether all scores are finite). strict also has `penalty`,
    `prior_scale`, `validation_losses` by penalty (NaN: not tried) and `iterations`. reference also
    has `best_epoch_score`, `best_epoch` (from 1), `best_epoch_scores`, `best_epoch_weights`,
    `best_epoch_bias`, `epoch_scores` and `validation_score`.

  Raises:
    UsageError: shapes do not match, or protocol or metric is unknown.
  """
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)
  check_metric(metric)
  if not cells:
    return []
  data = checked(cells, test_features, test_labels, text_features, num_classes, metric)
  if protocol == "reference":
    return _reference_probes(data, metric, mesh)
  return _strict_probes(data, metric, normalize, logit_scale, mesh)


@dataclasses.dataclass(frozen=True)
class CheckedData:
  """Checked inputs, with features as float32 and labels as targets."""

  cells: list[TrainingSet]
  test_features: Float[np.ndarray, "m d"]
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"]
  text_features: Float[np.ndarray, "k d"] | None
  num_classes: int
  multi_label: bool
  later: list[Bool[np.ndarray, "n"] | None]


def checked(
  cells: Sequence[ProbeData],
  test_features: Any,
  test_labels: Any,
  text_features: Any,
  num_classes: int | None,
  metric: Metric,
) -> CheckedData:
  """Return the data of all cells as arrays of one width and number of classes.

  Args:
    cells: external features and labels.
    test_features, test_labels: the test images.
    text_features: text prototypes, or None.
    num_classes: number of classes; None to infer it.
    metric: metric of recognition.

  Raises:
    UsageError: shapes, labels or values do not fit.
  """
  test_features = _float_rows("test_features", test_features)
  width = test_features.shape[1]
  if text_features is not None:
    text_features = _float_rows("text_features", text_features, width)
  count = _class_count(cells, test_labels, text_features, num_classes)
  test_labels = label_rows("test_labels", test_labels, len(test_features), count)
  check_test_labels(test_labels, count, metric)
  for cell in cells:
    AtLeast(0).check(cell.seed, "seed")
  features = [_float_rows("features", cell.features, width) for cell in cells]
  labels = [
    label_rows("labels", cell.labels, len(rows), count)
    for cell, rows in zip(cells, features, strict=True)
  ]
  if len({array.ndim for array in labels}) > 1:
    raise UsageError("labels must be class indices in every cell, or multi-hot in every cell")
  training_sets = [
    TrainingSet(rows, class_targets(array, count), cell.seed, _mean_one(cell.weights, len(rows)))
    for rows, array, cell in zip(features, labels, cells, strict=True)
  ]
  multi_label = labels[0].ndim == 2
  later = [_two_phases(cell.later, len(rows)) for cell, rows in zip(cells, features, strict=True)]
  return CheckedData(
    training_sets, test_features, test_labels, text_features, count, multi_label, later
  )


def _float_rows(name: str, values: Any, width: int | None = None) -> Float[np.ndarray, "n d"]:
  array = np.asarray(feature_rows(name, values, width), np.float32)
  check_finite(name, array)
  return array


def _class_count(
  cells: Sequence[ProbeData], test_labels: Any, text_features: Any, num_classes: int | None
) -> int:
  if text_features is not None:
    if num_classes not in (None, len(text_features)):
      raise UsageError(
        f"num_classes is {num_classes}, but there are {len(text_features)} prototypes"
      )
    return len(text_features)
  if num_classes is not None:
    return num_classes
  arrays = [np.asarray(test_labels), *(np.asarray(cell.labels) for cell in cells)]
  return max(a.shape[1] if a.ndim == 2 else int(a.max(initial=0)) + 1 for a in arrays)


def _strict_probes(
  data: CheckedData, metric: Metric, normalize: bool, logit_scale: float, mesh: Mesh | None
) -> list[dict[str, Any]]:
  # Rows of the zero-shot classifier: its logits are scale * cosine, for unit-norm features.
  prior = np.zeros((data.num_classes, data.test_features.shape[1]), np.float32)
  if data.text_features is not None:
    prior = np.float32(logit_scale) * host_unit_rows(data.text_features)
  cells, test_features = data.cells, data.test_features
  if normalize:
    # On the host: every number of images would compile its own program.
    cells = [cell._replace(features=host_unit_rows(cell.features)) for cell in cells]
    test_features = host_unit_rows(test_features)
  placed_tests = jnp.asarray(test_features)
  has_text = data.text_features is not None
  fits = fit_strict(
    [_first_phase(cell, later) for cell, later in zip(cells, data.later, strict=True)],
    jnp.asarray(prior), data.multi_label, has_text, mesh,
  )  # fmt: skip
  fits = [
    fit if later is None else _second_phase(cell, later, fit, data.multi_label, mesh)
    for cell, later, fit in zip(cells, data.later, fits, strict=True)
  ]
  results = []
  for cell, fit in zip(cells, fits, strict=True):
    scores = np.asarray(probe_scores(placed_tests, fit.weights, fit.bias, data.multi_label))
    summary = score_summary(scores, data.test_labels, metric, cell.seed)
    results.append(summary | _fit_summary(fit, cell) | external_summary(cell.targets))
  return results


def _mean_one(weights: Any, count: int) -> Float[np.ndarray, "n"] | None:
  # A mean of 1 keeps the balance of loss and penalty as it is for equal weights.
  return None if weights is None else mean_one(weights, count)


def _two_phases(later: Any, count: int) -> Bool[np.ndarray, "n"] | None:
  """Return the mask of second-phase images; None if all images belong to one phase."""
  later = later_images(later, count)
  return None if later.all() or not later.any() else later


def _taken(cell: TrainingSet, rows: Bool[np.ndarray, "n"]) -> TrainingSet:
  weights = None if cell.weights is None else mean_one(cell.weights[rows], int(rows.sum()))
  return TrainingSet(cell.features[rows], cell.targets[rows], cell.seed, weights)


def _first_phase(cell: TrainingSet, later: Bool[np.ndarray, "n"] | None) -> TrainingSet:
  return cell if later is None else _taken(cell, ~later)


def _second_phase(
  cell: TrainingSet,
  later: Bool[np.ndarray, "n"],
  first: StrictFit,
  multi_label: bool,
  mesh: Mesh | None,
) -> StrictFit:
  """Fit the later images, regularized towards the probe of the others.

  A convex problem does not remember its start, so "first, then" becomes "near". The bias of the
  first probe is the prior weight of an appended constant input.
  """
  own = _taken(cell, later)
  ones = np.ones((len(own.features), 1), np.float32)
  own = own._replace(features=np.append(own.features, ones, axis=1))
  # [k, d + 1]: weights and bias of the first probe as prior.
  prior = jnp.append(jnp.asarray(first.weights), jnp.asarray(first.bias)[:, None], axis=1)
  fit = fit_strict([own], prior, multi_label, True, mesh)[0]
  return fit._replace(weights=fit.weights[:, :-1], bias=fit.bias + fit.weights[:, -1])


def _fit_summary(fit: StrictFit, cell: TrainingSet) -> dict[str, Any]:
  """Return what was chosen and found, as plain numbers and NumPy arrays."""
  return {
    "weights": np.asarray(fit.weights),
    "bias": np.asarray(fit.bias),
    "lr": None,
    "weight_decay": float(fit.penalty) / len(cell.features),
    "penalty": float(fit.penalty),
    "prior_scale": float(fit.prior_scale),
    "validation_losses": dict(zip(PENALTIES, fit.validation_losses.tolist(), strict=True)),
    "iterations": int(fit.iterations),
    "converged": bool(fit.converged),
  }


def _reference_probes(data: CheckedData, metric: Metric, mesh: Mesh | None) -> list[dict[str, Any]]:
  heads = [_first_head(data, cell.seed) for cell in data.cells]
  fits = dict(reference_fits(data.cells, heads, data.test_features, data.test_labels, metric, mesh))
  results = []
  for index, cell in enumerate(data.cells):
    scores = fits[index]["scores"]
    converged = bool(np.isfinite(scores).all())
    # A diverged probe has NaN probabilities. As zeros they are ties, which score about chance.
    summary = score_summary(np.nan_to_num(scores), data.test_labels, metric, cell.seed)
    results.append(
      fits[index] | summary | external_summary(cell.targets) | {"converged": converged}
    )
  return results


def _first_head(data: CheckedData, seed: int) -> Head:
  """Return unit-norm text prototypes with zero bias; without text PyTorch's initialization."""
  if data.text_features is not None:
    return Head(jnp.asarray(host_unit_rows(data.text_features)), jnp.zeros(data.num_classes))
  bound = data.test_features.shape[1] ** -0.5
  generator = np.random.default_rng(seed)
  weights = generator.uniform(-bound, bound, (data.num_classes, data.test_features.shape[1]))
  bias = generator.uniform(-bound, bound, data.num_classes)
  return Head(jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32))


@jax.jit(static_argnames="multi_label")
def probe_scores(
  features: Float[Array, "n d"],
  weights: Float[Array, "k d"],
  bias: Float[Array, "k"],
  multi_label: bool = False,
) -> Float[Array, "n k"]:
  """Compute the class probabilities of a linear probe: softmax, or sigmoid for multi-label sets.

  Args:
    features: image features.
    weights, bias: of the probe.
    multi_label: whether an image may have several labels.
  """
  # By default, TPUs multiply float32 in bfloat16, which would change predictions of close classes.
  logits = jnp.matmul(features, weights.T, precision="highest") + bias
  return jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits, axis=-1)


def score_summary(
  scores: Float[np.ndarray, "m k"], test_labels: np.ndarray, metric: Metric, seed: int
) -> dict[str, Any]:
  """Return the score with its interval, and the predictions.

  Args:
    scores: class probabilities of the test images.
    test_labels: their labels.
    metric: recognition score.
    seed: of the interval's half samples.

  Raises:
    ModelError: a score is NaN or infinite, as of a network whose finite weights overflow.
  """
  if not np.isfinite(scores).all():
    raise ModelError("the scores of the test images are not numbers. A lower rate may help.")
  low, high = bootstrap_interval(scores, test_labels, metric, seed)
  return {
    "score": recognition_score(scores, test_labels, metric),
    "ci_low": low,
    "ci_high": high,
    "scores": scores,
    "predictions": scores.argmax(axis=1),
    "n_test": len(scores),
  }


def external_summary(targets: Float[np.ndarray, "n k"]) -> dict[str, Any]:
  """Return the number of external images and the classes without any."""
  missing = np.flatnonzero(~targets.any(axis=0)).tolist()
  return {"n_external": len(targets), "missing_classes": missing}
