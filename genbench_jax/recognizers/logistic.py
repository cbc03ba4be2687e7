"""L2-regularized logistic regression, solved to convergence.

For inputs x_i with an appended constant 1 (so that the bias is penalized like any other weight and
the optimum is unique even on separable data), one row W_c per class and a prior W0:

  minimize over W:  sum_i w_i loss(W x_i, y_i) + penalty / 2 * |W - W0|^2

`loss` is the cross-entropy or, for multi-label targets, the sum of binary cross-entropies. The
inverse of `penalty` is scikit-learn's C. W0 is zero or the zero-shot classifier; with the latter,
external data must justify every departure from it.

Two exact changes of variables make L-BFGS converge in a few iterations. The inputs are rotated to
their principal axes, under which the penalty is invariant and axes without data drop out. Then each
axis is scaled by (curvature * eigenvalue + penalty / n)^-1/2, which bounds the Hessian by about the
identity (Böhning, "Multinomial logistic regression algorithm", 1992).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

LBFGS_MEMORY = 6
TOLERANCE = 3e-4
MAX_BACKTRACKING_STEPS = 24
# Finite, so that a row without any other class has a zero gradient and not NaN.
NO_LOGIT = -1e9


class Axes(NamedTuple):
  """Inputs on their principal axes, `rotated = inputs @ basis`, with r = min(n, d).

  Attributes:
    rotated: rotated inputs.
    basis: orthonormal columns that span the inputs.
    eigenvalues: mean square of each rotated column.
  """

  rotated: Float[Array, "n r"]
  basis: Float[Array, "d r"]
  eigenvalues: Float[Array, "r"]


class Solution(NamedTuple):
  """Solution on the principal axes, relative to the prior.

  Attributes:
    departure: W - W0 on the principal axes.
    iterations: number of L-BFGS iterations.
    converged: whether the gradient fell below the tolerance.
  """

  departure: Float[Array, "k r"]
  iterations: Int[Array, ""]
  converged: Bool[Array, ""]


def principal_axes(inputs: Float[Array, "n d"], num_rows: Float[Array, ""]) -> Axes:
  """Rotate the inputs to their principal axes. Rows of zeros do not affect the axes."""
  n, d = inputs.shape
  if n < d:  # the SVD of [n, d] is cheaper than the eigenproblem [d, d], and gives only n axes
    left, singular, right = jnp.linalg.svd(inputs, full_matrices=False)
    return Axes(left * singular, right.T, singular**2 / num_rows)
  # n >= d: the eigenvectors of the d x d second moment.
  eigenvalues, basis = jnp.linalg.eigh(inputs.T @ inputs / num_rows)
  return Axes(inputs @ basis, basis, jnp.maximum(eigenvalues, 0.0))


def row_losses(
  logits: Float[Array, "n k"],
  targets: Float[Array, "n k"],
  active: Bool[Array, "k"],
  multi_label: bool,
) -> Float[Array, "n"]:
  """Return each row's cross-entropy over active classes, or summed binary cross-entropies.

  The cross-entropy is written as softplus(logsumexp(other logits) - own logit). Its relative
  accuracy holds for losses so small that the difference logsumexp(all) - own would round to zero.

  Args:
    logits, targets: [n, k].
    active: classes that take part.
    multi_label: binary cross-entropies instead of the softmax.
  """
  if multi_label:
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    return jnp.sum(jnp.where(active, losses, 0.0), axis=-1)
  own = jnp.sum(targets * logits, axis=-1)
  # The log-sum-exp runs over the other classes only.
  others = jnp.where(active & (targets == 0), logits, NO_LOGIT)
  return jax.nn.softplus(jax.nn.logsumexp(others, axis=-1) - own)


def active_classes(targets: Float[Array, "n k"], weights: Float[Array, "n"]) -> Bool[Array, "k"]:
  """Return the classes with at least one image. Others keep their prior."""
  return weights @ targets > 0


def solve(
  axes: Axes,
  offsets: Float[Array, "n k"],
  targets: Float[Array, "n k"],
  weights: Float[Array, "n"],
  penalty: Float[Array, ""],
  start: Float[Array, "k r"],
  multi_label: bool = False,
  tolerance: float = TOLERANCE,
  max_iterations: int = 200,
) -> Solution:
  """Solve the problem for one penalty.

  Args:
    axes: inputs on their principal axes.
    offsets: logits of the prior, W0 x.
    targets: one-hot or multi-hot targets.
    weights: weight of each row; 0 for padding and held-out rows.
    penalty: on the scale of the summed loss.
    start: initial departure, for example that of a stronger penalty.
    multi_label: binary cross-entropies instead of the softmax.
    tolerance: the gradient g of the mean objective f in the scaled variables is small enough if
      |g|^2 <= tolerance^2 f. Because the Hessian is bounded, |g|^2 / f bounds the relative error.
    max_iterations: maximal number of L-BFGS iterations.
  """
  active = active_classes(targets, weights)
  num_rows = jnp.maximum(weights.sum(), 1.0)
  # Bound of the loss's curvature: p (1 - p) <= 1/4 for the sigmoid, Böhning's bound for the
  # softmax.
  curvature = 0.25 if multi_label else 0.5 / jnp.maximum(active.sum(), 2)
  decay = penalty / num_rows
  # In the scaled variables the Hessian is at most about the identity.
  scale = jax.lax.rsqrt(curvature * axes.eigenvalues + decay)

  def objective(variables: Float[Array, "k r"]) -> Float[Array, ""]:
    change = variables * scale
    logits = offsets + axes.rotated @ change.T
    loss = weights @ row_losses(logits, targets, active, multi_label) / num_rows
    return loss + 0.5 * decay * jnp.sum(change**2)

  found, *rest = _minimize(objective, start / scale, tolerance, max_iterations)
  return Solution(found * scale, *rest)


def _minimize(objective, start, tolerance, max_iterations):  # type: ignore[no-untyped-def]
  """Run L-BFGS to a small relative gradient; return (minimizer, iterations, converged)."""
  # Armijo's rule is enough: the objective is strictly convex, so every pair has positive curvature.
  # rtol accepts steps whose decrease is below the resolution of float32.
  line_search = optax.scale_by_backtracking_linesearch(
    MAX_BACKTRACKING_STEPS, decrease_factor=0.5, increase_factor=jnp.inf, rtol=1e-6, store_grad=True
  )
  optimizer = optax.lbfgs(memory_size=LBFGS_MEMORY, linesearch=line_search)

  def solved(value: Float[Array, ""], gradient: Float[Array, "k r"]) -> Bool[Array, ""]:
    return jnp.sum(gradient**2) <= tolerance**2 * value

  def unfinished(carry):  # type: ignore[no-untyped-def]
    _, _, value, gradient, iteration = carry
    return (iteration < max_iterations) & ~solved(value, gradient)

  def step(carry):  # type: ignore[no-untyped-def]
    variables, state, value, gradient, iteration = carry
    updates, state = optimizer.update(
      gradient, state, variables, value=value, grad=gradient, value_fn=objective
    )
    value, gradient = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
    return optax.apply_updates(variables, updates), state, value, gradient, iteration + 1

  value, gradient = jax.value_and_grad(objective)(start)
  carry = (start, optimizer.init(start), value, gradient, jnp.zeros((), jnp.int32))
  variables, _, value, gradient, iterations = jax.lax.while_loop(unfinished, step, carry)
  return variables, iterations, solved(value, gradient)
