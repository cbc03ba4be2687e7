"""One training step: augmentation, loss, gradient and update, as a pure function.

A step augments its images on the device, sums the gradients of the parts of its batch, and updates
float32 parameters; the network computes in bfloat16 on accelerators. All randomness is a function
of (seed, step, position in the batch). Restarts therefore change nothing, and the number of devices
changes only rounding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from genbench_jax.errors import unknown_name
from genbench_jax.models import weights
from genbench_jax.recognizers.augment import Examples, augmented_image, mixed
from genbench_jax.recognizers.problem import Batch, Model, Outcome, Params, Problem
from genbench_jax.recognizers.settings import OPTIMIZERS, SCHEDULES, Recipe
from genbench_jax.runtime.mesh import replicated

# vmap axes: cells have their own images, seeds and rates, and share the step number.
AXES = Batch(0, 0, 0, None, 0, 0)


def check_recipe(recipe: Recipe) -> None:
  """Reject an invalid recipe.

  Raises:
    UsageError: optimizer or schedule is unknown, or the batch is not divisible into the parts.
  """
  if recipe.optimizer not in OPTIMIZERS:
    raise unknown_name("optimizer", recipe.optimizer, OPTIMIZERS)
  if recipe.schedule not in SCHEDULES:
    raise unknown_name("schedule", recipe.schedule, SCHEDULES)
  recipe.check("the recipe")


def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
  """Return the recipe's optimizer at a learning rate of one; the step scales its updates."""
  # Biases and norms (one axis) are not decayed.
  decayed = lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)  # noqa: E731
  decay = optax.add_decayed_weights(recipe.weight_decay, decayed)
  limit = optax.clip_by_global_norm(recipe.clip_norm) if recipe.clip_norm else optax.identity()
  if recipe.optimizer == "sgd":
    # As in PyTorch: the decay is part of the gradient that enters the momentum.
    return optax.chain(limit, decay, optax.trace(recipe.momentum))
  return optax.chain(limit, optax.scale_by_adam(), decay)


def image_losses(
  logits: Float[Array, "b k"], targets: Float[Array, "b k"], smoothing: float, multi_label: bool
) -> Float[Array, "b"]:
  """Return the cross-entropy of each image, or the mean of its binary cross-entropies.

  In a softmax, the labels of an image share its weight. Smoothing spreads part of the mass evenly
  over all classes.

  Args:
    logits, targets: [b, k].
    smoothing: mass to spread.
    multi_label: binary cross-entropies instead of the softmax.
  """
  if multi_label:
    # Binary smoothing moves both targets towards 1/2.
    smooth = targets * (1 - smoothing) + smoothing / 2
    return optax.sigmoid_binary_cross_entropy(logits, smooth).mean(axis=-1)
  targets = targets / jnp.maximum(targets.sum(axis=-1, keepdims=True), 1e-6)
  return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def initial_state(model: Model, recipe: Recipe) -> dict[str, Any]:
  """Return the initial state, as copies: the compiled step donates the memory of its state."""
  state = {
    "variables": _copied(model.variables),
    "stats": _copied(model.stats),
    "optimizer": optimizer_of(recipe).init(model.variables),
  }
  return state | ({"average": _copied((model.variables, model.stats))} if recipe.ema else {})


def _copied(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), tree)


@functools.lru_cache(maxsize=16)
def step_program(problem: Problem, recipe: Recipe, mesh: Mesh, lanes: int) -> Callable[..., Any]:
  """Return the compiled step, for one cell or for several side by side; cached.

  Args:
    problem: network and loss.
    recipe: result of `program_recipe`.
    mesh: devices.
    lanes: number of cells side by side; 0 for a single cell without a leading axis.
  """
  step = functools.partial(train_step, problem, recipe)
  if lanes:
    step = jax.vmap(step, in_axes=(0, None, AXES))
  return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def program_recipe(recipe: Recipe) -> Recipe:
  """Reset settings that do not affect a compiled step, so that programs are shared."""
  fixed = Recipe()
  names = (
    "learning_rate",
    "schedule",
    "warmup",
    "epochs",
    "min_steps",
    "search_rates",
    "search_epochs",
  )
  return dataclasses.replace(recipe, **{name: getattr(fixed, name) for name in names})


def train_step(
  problem: Problem, recipe: Recipe, state: dict[str, Any], frozen: Any, batch: Batch
) -> tuple[dict[str, Any], Outcome]:
  """Return the state after a step and its outcome; pure, for `jax.jit` and `jax.vmap`.

  Args:
    problem: network and loss.
    recipe: how to train.
    state: variables, stats, optimizer state and, with EMA, the average of variables and stats.
    frozen: arrays that are only read.
    batch: images of the step.
  """
  gradient, stats, outcome = _summed(problem, recipe, state, frozen, batch)
  factors = _rates(problem, state["variables"])
  # Frozen parameters have no part in the norm of the gradient, and XLA drops what is not used.
  gradient = jax.tree.map(
    lambda leaf, factor: leaf if factor else jnp.zeros_like(leaf), gradient, factors
  )
  updates, optimizer = optimizer_of(recipe).update(gradient, state["optimizer"], state["variables"])
  # w <- w - rate * factor * update; the rate is part of the batch, so schedules do not recompile.
  variables = jax.tree.map(
    lambda leaf, update, factor: leaf - batch.rate * factor * update,
    state["variables"], updates, factors,
  )  # fmt: skip
  new = {"variables": variables, "stats": stats, "optimizer": optimizer}
  if recipe.ema:
    # The average follows quickly at first, so that the random initialization leaves no trace.
    decay = jnp.minimum(recipe.ema, (1 + batch.number) / (10 + batch.number))
    # The running averages of batch norms belong to the weights, so they are averaged with them.
    new["average"] = jax.tree.map(
      lambda old, leaf: decay * old + (1 - decay) * leaf, state["average"], (variables, stats)
    )
  return new, outcome


def _summed(
  problem: Problem, recipe: Recipe, state: dict[str, Any], frozen: Any, batch: Batch
) -> tuple[Params, Any, Outcome]:
  """Return mean gradient, running averages and outcome of a batch, computed part by part."""
  _, model_key = step_keys(batch)
  parts, size = batch.weights.shape
  differentiated = jax.value_and_grad(_part_loss, has_aux=True)

  def add(sums: Any, part: Any) -> tuple[Any, None]:
    gradient, stats, loss, hits = sums
    index, examples = part
    (more, (stats, found)), own = differentiated(
      state["variables"], stats, frozen, examples, jax.random.fold_in(model_key, index), problem,
      recipe.label_smoothing,
    )  # fmt: skip
    return (jax.tree.map(jnp.add, gradient, own), stats, loss + more, hits + found), None

  start = (jax.tree.map(jnp.zeros_like, state["variables"]), state["stats"], 0.0, 0.0)
  start = jax.tree.map(jnp.asarray, start)
  xs = (jnp.arange(parts), _augmented(problem, recipe, batch))
  gradient, stats, loss, hits = _folded(add, start, xs, parts)
  count = parts * size
  return (
    jax.tree.map(lambda leaf: leaf / count, gradient),
    stats,
    Outcome(loss / count, hits / count),
  )


def _folded(add: Callable[..., Any], start: Any, arrays: Any, parts: int) -> Any:
  """Fold `add` over all parts; as a loop only for several parts on accelerators."""
  # XLA's CPU convolutions are 30 times slower inside a loop.
  if parts > 1 and jax.default_backend() != "cpu":
    return jax.lax.scan(add, start, arrays)[0]
  sums = start
  for part in range(parts):
    sums, _ = add(sums, jax.tree.map(lambda array, part=part: array[part], arrays))
  return sums


def _part_loss(
  variables: Params,
  stats: Any,
  frozen: Any,
  examples: Examples,
  key: Array,
  problem: Problem,
  smoothing: float,
) -> tuple[Float[Array, ""], tuple[Any, Float[Array, ""]]]:
  """Return the sum of the weighted losses; also the running averages and the number of hits."""
  logits, stats = problem.logits(variables, stats, frozen, examples.pixels, key)
  losses = image_losses(logits, examples.targets, smoothing, problem.multi_label)
  if problem.multi_label:
    hits = ((logits > 0) == (examples.targets > 0.5)).mean(axis=-1).sum()
  else:
    hits = (logits.argmax(axis=-1) == examples.targets.argmax(axis=-1)).sum()
  return jnp.sum(examples.weights * losses), (stats, hits.astype(jnp.float32))


def _augmented(problem: Problem, recipe: Recipe, batch: Batch) -> Examples:
  """Return the images of all parts as this step sees them, normalized: [a, b, ...].

  The whole batch is augmented at once, because MixUp and CutMix mix images of different parts. Its
  pixels are small beside the activations of a part.
  """
  key, _ = step_keys(batch)
  # One key per position in the batch, whatever the number of devices or parts.
  places = jnp.arange(batch.weights.size).reshape(batch.weights.shape)
  keys = jax.vmap(jax.vmap(functools.partial(jax.random.fold_in, key)))(places)
  augment = functools.partial(augmented_image, recipe=recipe, size=problem.view.size)
  pixels = jax.vmap(jax.vmap(augment))(keys, batch.images)
  examples = mixed(
    jax.random.fold_in(key, 2**31 - 1), Examples(pixels, batch.targets, batch.weights), recipe.mixup,
    recipe.cutmix,
  )  # fmt: skip
  return examples._replace(pixels=problem.view.normalized(examples.pixels))


def augmented(problem: Problem, recipe: Recipe, batch: Batch) -> Examples:
  """Return all images of a batch as its step sees them.

  Args:
    problem: network and loss.
    recipe: how to train.
    batch: images of the step.
  """
  examples = _augmented(problem, recipe, batch)
  return Examples(*(array.reshape(-1, *array.shape[2:]) for array in examples))


def step_keys(batch: Batch) -> tuple[Array, Array]:
  """Return the keys of a step's augmentation and of its model, from its seed and number alone."""
  keys = jax.random.split(jax.random.fold_in(jax.random.key(batch.seed), batch.number))
  return keys[0], keys[1]


def _rates(problem: Problem, variables: Params) -> Params:
  """Return the learning-rate factor of each parameter."""

  def factor(name: str, leaf: Any) -> float:
    return next((rate for part, rate in problem.layer_rates if part in name), 1.0)

  return weights.tree_of(variables, factor)
