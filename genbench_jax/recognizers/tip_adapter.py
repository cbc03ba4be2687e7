"""Tip-Adapter: a cache of external features next to the zero-shot classifier.

With unit-norm features f, cached features K, their one-hot labels L and text prototypes T:

  logits = scale f T' + alpha exp(-beta (1 - f K')) L

In Tip-Adapter-F, K is a weight matrix that is initialized with the cached features. For images with
several labels, of which the paper has none, the logits minus their mean over the classes are
log-odds, and the loss is the binary cross-entropy.

Reference:
  Zhang et al., "Tip-Adapter", 2022 (arXiv 2111.03930). Features are cached once here; the paper
  averages ten augmentations of each image.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.accuracy import Metric
from genbench_jax.metrics.inputs import host_unit_rows
from genbench_jax.recognizers.arrays import check_protocol
from genbench_jax.recognizers.fit import score_loss
from genbench_jax.recognizers.linear_probe import (
  ProbeData,
  checked,
  external_summary,
  score_summary,
)
from genbench_jax.recognizers.settings import TipAdapterSettings
from genbench_jax.recognizers.splits import can_hold_out, stratified_folds
from genbench_jax.recognizers.train_step import image_losses
from genbench_jax.recognizers.training import (
  Program,
  checksums,
  label_shares,
  later_images,
  learn,
  make_program,
  mean_one,
  mixed_rows,
  warmup_cosine,
)
from genbench_jax.recognizers.zero_shot import CLIP_LOGIT_SCALE, log_odds
from genbench_jax.runtime.mesh import data_mesh, replicated
from genbench_jax.runtime.settings import checked_section
from genbench_jax.store.files import digest

# Cross-validation folds for alpha and beta.
FOLDS = 3
# Epsilon of AdamW in the published code, which runs in half precision.
EPSILON = 1e-4


class Cache(NamedTuple):
  """Unit-norm features of the external images, and the labels for which each one votes."""

  keys: Float[Array, "n d"]
  values: Float[Array, "n k"]


class CacheConstants(NamedTuple):
  """Inputs of every step that do not change."""

  values: Float[Array, "n k"]
  text: Float[Array, "k d"]
  scale: Float[Array, ""]
  alpha: Float[Array, ""]
  beta: Float[Array, ""]


class Batch(NamedTuple):
  """Unit-norm features, one-hot or multi-hot targets, and the weight of each image."""

  features: Float[Array, "b d"]
  targets: Float[Array, "b k"]
  weights: Float[Array, "b"]


@functools.partial(jax.jit, static_argnames="multi_label")
def cache_logits(
  features: Float[Array, "m d"],
  keys: Float[Array, "n d"],
  frozen: CacheConstants,
  multi_label: bool = False,
) -> Float[Array, "m k"]:
  """Compute the zero-shot logits plus those of the cache.

  Args:
    features: unit-norm features of m images.
    keys: unit-norm features in the cache.
    frozen: votes, texts and strength of the cache.
    multi_label: whether the logits are log-odds.
  """
  with jax.default_matmul_precision("highest"):
    # exp(-beta (1 - cos)): 1 for equal features, smaller with distance.
    affinities = jnp.exp(-frozen.beta * (1 - features @ keys.T))
    logits = frozen.scale * features @ frozen.text.T + frozen.alpha * affinities @ frozen.values
  return log_odds(logits) if multi_label else logits


def cache_scores(
  features: Float[Array, "m d"],
  keys: Float[Array, "n d"],
  frozen: CacheConstants,
  multi_label: bool,
) -> Float[np.ndarray, "m k"]:
  """Compute the class probabilities of images; for the arguments see `cache_logits`."""
  logits = cache_logits(features, keys, frozen, multi_label)
  return np.asarray(jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits, axis=-1))


def _loss(
  multi_label: bool, keys: Float[Array, "n d"], frozen: CacheConstants, batch: Batch
) -> Float[Array, ""]:
  logits = cache_logits(batch.features, keys, frozen, multi_label)
  # No smoothing.
  return jnp.mean(batch.weights * image_losses(logits, batch.targets, 0.0, multi_label))


@functools.lru_cache(maxsize=8)
def _program(learning_rate: float, steps: int, multi_label: bool, mesh: Mesh) -> Program:
  schedule = warmup_cosine(learning_rate, steps, 1)
  optimizer = optax.adamw(schedule, eps=EPSILON, weight_decay=1e-2)
  loss_and_gradient = jax.value_and_grad(functools.partial(_loss, multi_label))
  return make_program("tip_adapter", loss_and_gradient, optimizer, mesh)


class CacheStrength(NamedTuple):
  """Weight (alpha) and sharpness (beta) of the cache, and the held-out loss of each tested pair."""

  alpha: float
  beta: float
  losses: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TipData:
  """Data of a cell: unit-norm features, targets, weights, and the zero-shot classifier."""

  features: Float[np.ndarray, "n d"]
  targets: Float[np.ndarray, "n k"]
  weights: Float[np.ndarray, "n"]
  text: Float[np.ndarray, "k d"]
  scale: float
  seed: int
  later: Bool[np.ndarray, "n"] | None = None
  multi_label: bool = False

  def cache(self, rows: Any = slice(None)) -> Cache:
    """Return the cache of some of the images; votes are multiplied by the weights of the images."""
    # An image with several labels splits its vote, so that every image has one.
    values = label_shares(self.targets[rows]) * self.weights[rows, None]
    return Cache(jnp.asarray(self.features[rows]), jnp.asarray(values))

  def frozen(self, values: Float[Array, "n k"], alpha: float, beta: float) -> CacheConstants:
    numbers = (jnp.asarray(value, jnp.float32) for value in (self.scale, alpha, beta))
    return CacheConstants(values, jnp.asarray(self.text), *numbers)


def chosen(data: TipData, settings: TipAdapterSettings, protocol: str) -> CacheStrength:
  """Return the pair with the smallest held-out loss over the folds, or the given pair.

  The given pair is used if nothing can be held out, and by `reference`, because the published
  search uses images that are not external.

  Args:
    data: data of the cell.
    settings: given pair, and candidates.
    protocol: `strict` or `reference`.
  """
  given = CacheStrength(settings.alpha, settings.beta, {})
  pairs = list(itertools.product(settings.search_alphas, settings.search_betas))
  if protocol == "reference" or len(pairs) < 2 or not can_hold_out(data.targets):
    return given
  folds = stratified_folds(data.targets, FOLDS, data.seed)
  totals = np.zeros(len(pairs))
  for fold in range(FOLDS):
    held, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
    if len(held):
      totals += [len(held) * loss for loss in _held_out_losses(data, kept, held, pairs)]
  # Mean over all images that were held out once.
  losses = totals / max(1, (folds >= 0).sum())
  # Ties go to the first pair, the weaker cache if candidates ascend.
  alpha, beta = pairs[int(np.argmin(losses))]
  tried = {
    f"alpha {a:g}, beta {b:g}": float(loss) for (a, b), loss in zip(pairs, losses, strict=True)
  }
  return CacheStrength(alpha, beta, tried)


def _held_out_losses(
  data: TipData,
  kept: Int[np.ndarray, "n"],
  held: Int[np.ndarray, "m"],
  pairs: Sequence[tuple[float, float]],
) -> Iterator[float]:
  cache, features = data.cache(kept), jnp.asarray(data.features[held])
  for alpha, beta in pairs:
    frozen = data.frozen(cache.values, alpha, beta)
    scores = cache_scores(features, cache.keys, frozen, data.multi_label)
    yield score_loss(scores, data.targets[held], data.multi_label)


def trained_keys(
  data: TipData,
  settings: TipAdapterSettings,
  pair: CacheStrength,
  mesh: Mesh,
  directory: Path | None = None,
  save_every: int = 100,
) -> Float[np.ndarray, "n d"]:
  """Train the cached features (Tip-Adapter-F) and return them.

  Args:
    data: data to cache and train on.
    settings: length and rate of the training.
    pair: weight and sharpness of the cache.
    mesh: devices; each computes everything, because features are small.
    directory: folder of checkpoints, or None.
    save_every: steps between checkpoints.
  """
  count, size = len(data.features), min(settings.batch_size, len(data.features))
  # As many images as in `epochs` passes; small sets train for at least `min_steps`.
  steps = max(settings.min_steps, int(np.ceil(settings.epochs * count / size)))
  cache = data.cache()

  def batches(first: int) -> Iterator[Batch]:
    for number in range(first, steps):
      rows = mixed_rows(number, steps, size, data.later, count, data.seed)
      batch = Batch(data.features[rows], data.targets[rows], data.weights[rows])
      yield jax.device_put(batch, replicated(mesh))

  if directory:
    about = [dataclasses.asdict(settings), pair.alpha, pair.beta, int(data.seed), data.multi_label]
    arrays = (cache.keys, cache.values, data.targets, data.weights, later_images(data.later, count))
    directory = directory / digest([*about, checksums((*arrays, data.text)), float(data.scale)])
  frozen = jax.device_put(data.frozen(cache.values, pair.alpha, pair.beta), replicated(mesh))
  program = _program(settings.learning_rate, steps, data.multi_label, mesh)
  start = np.asarray(cache.keys)
  keys, _ = learn(program, start, frozen, batches, steps, mesh, directory, save_every)
  return keys


def tip_adapter(
  features: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_features: Float[np.ndarray, "m d"],
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  text_features: Float[np.ndarray, "k d"],
  protocol: str = "strict",
  seed: int = 0,
  metric: Metric = "accuracy",
  *,
  settings: TipAdapterSettings | None = None,
  logit_scale: float = CLIP_LOGIT_SCALE,
  loss_weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
  mesh: Mesh | None = None,
  directory: Path | None = None,
  save_every: int = 100,
) -> dict[str, Any]:
  """Cache external features, optionally train them, and score test features.

  Args:
    features: image features of the external images, not necessarily unit-norm.
    labels: class indices, or multi-hot; an image with several labels splits its vote.
    test_features: features of the test images; they are used for scoring only.
    test_labels: like `labels`.
    text_features: one text prototype per class.
    protocol: `strict` chooses alpha and beta on held-out external images; `reference` uses the
      given ones.
    seed: of the folds and the batches.
    metric: recognition score.
    settings: alpha, beta, and whether and how long the cache is trained.
    logit_scale: scale of the zero-shot logits, CLIP's own.
    loss_weights: weight of each image.
    later: images that train alone in the second half, if the cache is trained.
    mesh: devices to use; None for the first device.
    directory: folder of checkpoints, or None; each training has its own folder in it.
    save_every: steps between checkpoints.

  Returns:
    `score`, `ci_low`, `ci_high`, `scores`, `predictions`, `n_external`, `n_test`,
    `missing_classes`, `alpha`, `beta`,
    `held_out_losses`, and the cache: `keys` [n, d] and `values` [n, k].

  Raises:
    UsageError: shapes do not match, or protocol, metric or a setting is invalid.
    ModelError: the training diverged.
  """
  check_protocol(protocol)
  settings = checked_section(settings or TipAdapterSettings(), "settings")
  if text_features is None:
    raise UsageError("tip_adapter needs text_features, one text prototype per class.")
  inputs = checked(
    [ProbeData(features, labels, seed)], test_features, test_labels, text_features, None, metric
  )
  assert inputs.text_features is not None  # as given
  count = len(inputs.cells[0].targets)
  weights = mean_one(loss_weights, count)
  data = TipData(
    host_unit_rows(inputs.cells[0].features), inputs.cells[0].targets, weights,
    host_unit_rows(inputs.text_features), logit_scale, seed, later_images(later, count),
    inputs.multi_label,
  )  # fmt: skip
  pair, cache = chosen(data, settings, protocol), data.cache()
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  keys = np.asarray(cache.keys)
  if settings.train:
    keys = trained_keys(data, settings, pair, mesh, directory, save_every)
  frozen = data.frozen(cache.values, pair.alpha, pair.beta)
  tested = jnp.asarray(host_unit_rows(inputs.test_features))
  scores = cache_scores(tested, jnp.asarray(keys), frozen, inputs.multi_label)
  summary = score_summary(scores, inputs.test_labels, metric, seed)
  about = {"alpha": pair.alpha, "beta": pair.beta, "held_out_losses": pair.losses}
  arrays = {"keys": keys, "values": np.asarray(cache.values)}
  return summary | external_summary(data.targets) | about | arrays
