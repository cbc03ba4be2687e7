"""The reference's linear probe, including its flaws, for comparable numbers.

Raw features -> BatchNorm without affine parameters -> linear head, initialized with the text
prototypes. SGD with momentum 0.9 and a constant rate; batches of 64, where the last partial batch
is kept and a batch of one image is skipped. Six learning rates, each with a search over 97 weight
decays. A trial trains 10 epochs and scores its best epoch on the first fifth of each class. The
chosen
pair trains 50 epochs on all images. There are two results: the last epoch, which no data selected,
and the best epoch on the test images, which is the published number.

Source: the evaluation that GenBench uses, Li et al., "ELEVATER", 2022. The order of batches cannot
be reproduced (the reference uses PyTorch's generator); it is a seeded permutation per epoch here. A
trial with a non-finite logit scores 0, as a failed trial does there.

Because the features are frozen, the normalized batches are the same in every trial. All trials of a
search step therefore share one wide matrix product (`vmap`), for all cells of equal shape.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

BATCH_SIZE = 64
MOMENTUM = 0.9
NORM_MOMENTUM = 0.1
NORM_EPSILON = 1e-5
TRIAL_EPOCHS, FINAL_EPOCHS = 10, 50


class Norm(NamedTuple):
  """Running statistics of the batch normalization; the variance is unbiased."""

  mean: Float[Array, "d"]
  variance: Float[Array, "d"]


class Head(NamedTuple):
  """Linear head on normalized features."""

  weights: Float[Array, "k d"]
  bias: Float[Array, "k"]


class TrainingRows(NamedTuple):
  """Training data; `order` [epochs, steps, 64] has the rows of each batch, -1 is padding."""

  features: Float[Array, "n d"]
  targets: Float[Array, "n k"]
  order: Int[Array, "e s b"]


def batch_order(num_rows: int, epochs: int, steps: int, seed: int) -> Int[np.ndarray, "e s b"]:
  """Return each epoch's permutation of the rows, cut into batches of 64 and padded with -1.

  Args:
    num_rows: number of images.
    epochs: number of epochs.
    steps: batches per epoch.
    seed: of the permutations.
  """
  order = np.full((epochs, steps * BATCH_SIZE), -1, np.int32)
  for epoch in range(epochs):
    order[epoch, :num_rows] = np.random.default_rng([seed, epoch]).permutation(num_rows)
  return order.reshape(epochs, steps, BATCH_SIZE)


def head_logits(head: Head, norm: Norm, features: Float[Array, "n d"]) -> Float[Array, "n k"]:
  """Compute logits in evaluation mode, normalized by the running statistics.

  Args:
    head: linear head.
    norm: running statistics.
    features: rows.
  """
  normalized = (features - norm.mean) * jax.lax.rsqrt(norm.variance + NORM_EPSILON)
  return normalized @ head.weights.T + head.bias


def train(
  rows: TrainingRows,
  head: Head,
  learning_rate: Float[Array, ""],
  weight_decay: Float[Array, ""],
  multi_label: bool,
  steps: Int[Array, ""],
  report: Callable[[Head, Norm], Any],
) -> Any:
  """Train over all epochs of the order; return the stacked `report` of the state after each epoch.

  Gradient and update are written out, as in PyTorch's SGD: v = 0.9 v + (g + decay w), w = w - rate
  v. One pass over the weights instead of several halves the time. A skipped batch changes nothing.

  Args:
    rows: training data.
    head: initial head.
    learning_rate, weight_decay: of SGD.
    multi_label: binary cross-entropies instead of the softmax.
    steps: batches per epoch.
    report: maps head and norm to the result of an epoch.
  """

  def step(number: Int[Array, ""], carry: tuple, order: Int[Array, "s b"]) -> tuple:
    head, norm, velocity = carry
    members = order[number]
    mask = members >= 0
    trains = mask.sum() > 1
    batch, new_norm = _normalize(rows.features[members], mask, norm)
    logits = batch @ head.weights.T + head.bias
    errors = _loss_gradients(logits, rows.targets[members], multi_label)
    # d (mean loss) / d logits; padding and skipped batches contribute nothing.
    errors = jnp.where((mask & trains)[:, None], errors / mask.sum(), 0)
    gradients = Head(errors.T @ batch, errors.sum(axis=0))
    # A skipped batch keeps velocity, weights and statistics: momentum 1 and rate 0 below.
    momentum = jnp.where(trains, MOMENTUM, 1.0)
    rate, decay = (jnp.where(trains, value, 0.0) for value in (learning_rate, weight_decay))
    velocity = jax.tree.map(
      lambda v, w, g: momentum * v + (decay * w + g), velocity, head, gradients
    )
    head = jax.tree.map(lambda w, v: w - rate * v, head, velocity)
    norm = jax.tree.map(lambda new, old: jnp.where(trains, new, old), new_norm, norm)
    return head, norm, velocity

  def epoch(carry: tuple, order: Int[Array, "s b"]) -> tuple[tuple, Any]:
    carry = jax.lax.fori_loop(0, steps, functools.partial(step, order=order), carry)
    return carry, report(carry[0], carry[1])

  width = rows.features.shape[1]
  start = (head, Norm(jnp.zeros(width), jnp.ones(width)), jax.tree.map(jnp.zeros_like, head))
  return jax.lax.scan(epoch, start, rows.order)[1]


def _most_steps(order: Int[Array, "c e s b"]) -> Int[Array, ""]:
  """Return the largest number of batches that any cell fills in an epoch."""
  return jnp.sum(jnp.any(order[..., 0] >= 0, axis=(0, 1)))


def _loss_gradients(
  logits: Float[Array, "b k"], targets: Float[Array, "b k"], multi_label: bool
) -> Float[Array, "b k"]:
  """Return the gradient, by the logits, of each row's cross-entropy or mean binary cross-entropy."""
  if multi_label:
    return (jax.nn.sigmoid(logits) - targets) / logits.shape[-1]
  # PyTorch's cross-entropy with soft targets: the targets of a row need not sum to one.
  return jax.nn.softmax(logits, axis=-1) * targets.sum(axis=-1, keepdims=True) - targets


def _normalize(
  batch: Float[Array, "b d"], mask: Bool[Array, "b"], norm: Norm
) -> tuple[Float[Array, "b d"], Norm]:
  """Normalize a batch by its biased variance; update running statistics with the unbiased one."""
  count = jnp.maximum(mask.sum(), 1)
  mean = jnp.where(mask[:, None], batch, 0).sum(axis=0) / count
  squares = jnp.where(mask[:, None], (batch - mean) ** 2, 0).sum(axis=0)
  running = Norm(
    norm.mean + NORM_MOMENTUM * (mean - norm.mean),
    norm.variance + NORM_MOMENTUM * (squares / (count - 1) - norm.variance),
  )
  # PyTorch normalizes by the biased variance and accumulates the unbiased one.
  return (batch - mean) * jax.lax.rsqrt(squares / count + NORM_EPSILON), running


def class_results(logits: Float[Array, "n k"], predictions_only: bool) -> Array:
  """Return predicted classes [n], -1 if a logit is not finite; or softmax scores [n, k]."""
  if not predictions_only:
    return jax.nn.softmax(logits, axis=-1)
  finite = jnp.isfinite(logits).all(axis=-1)
  return jnp.where(finite, jnp.argmax(logits, axis=-1), -1)


@functools.partial(jax.jit, static_argnames=("multi_label", "predictions_only"))
def run_trials(
  rows: TrainingRows,
  validation_features: Float[Array, "c v d"],
  heads: Head,
  learning_rates: Float[Array, "c t"],
  weight_decays: Float[Array, "c t"],
  multi_label: bool,
  predictions_only: bool,
) -> Array:
  """Run t trials for each of c cells; return the validation results after each epoch.

  Args:
    rows: training data, with a leading axis c.
    validation_features: [c, v, d].
    heads: initial heads.
    learning_rates, weight_decays: of each trial.
    multi_label: binary cross-entropies instead of the softmax.
    predictions_only: whether the metric needs only predictions.

  Returns:
    Predicted classes [c, t, e, v], -1 if a logit is not finite; or the softmax scores [c, t, e, v,
    k].
  """
  steps = _most_steps(rows.order)

  def trials(
    rows: TrainingRows, validation: Array, head: Head, rates: Array, decays: Array
  ) -> Array:
    def report(head: Head, norm: Norm) -> Array:
      return class_results(head_logits(head, norm, validation), predictions_only)

    return jax.vmap(lambda rate, decay: train(rows, head, rate, decay, multi_label, steps, report))(
      rates, decays
    )

  with jax.default_matmul_precision("highest"):
    return jax.vmap(trials)(rows, validation_features, heads, learning_rates, weight_decays)


@functools.partial(jax.jit, static_argnames="multi_label")
def run_final(
  rows: TrainingRows,
  heads: Head,
  learning_rates: Float[Array, "c"],
  weight_decays: Float[Array, "c"],
  multi_label: bool,
) -> tuple[Head, Norm]:
  """Train the final models; return head and running statistics after each epoch, [c, e].

  Args:
    rows: training data, with a leading axis c.
    heads: initial heads.
    learning_rates, weight_decays: of each cell.
    multi_label: binary cross-entropies instead of the softmax.
  """
  steps = _most_steps(rows.order)

  def final(rows: TrainingRows, head: Head, rate: Array, decay: Array) -> tuple[Head, Norm]:
    return train(rows, head, rate, decay, multi_label, steps, lambda *state: state)

  with jax.default_matmul_precision("highest"):
    return jax.vmap(final)(rows, heads, learning_rates, weight_decays)
