"""Correlation coefficients of many bootstrap resamples at once.

A resample is a vector of weights: how often each pair was drawn. With unit weights, the
coefficients equal those of `scipy.stats`. All three are matrix products of weights and n x n
comparisons, suited to a few thousand pairs.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

METHODS = ("pearson", "spearman", "kendall")
Weights = Int[np.ndarray, "r n"]
Values = Float[np.ndarray, "n"]


def bootstrap_weights(count: int, resamples: int, random: np.random.Generator) -> Weights:
  """Draw resamples: how often each of `count` pairs occurs in each of them.

  Args:
    count: number of pairs.
    resamples: number of resamples.
    random: draws them.
  """
  drawn = random.integers(0, count, (resamples, count))
  return np.stack([np.bincount(row, minlength=count) for row in drawn])


def pearson(x: Values, y: Values, weights: Weights) -> Float[np.ndarray, "r"]:
  """Compute the linear correlation in each resample; NaN if one side is constant.

  Args:
    x, y: values of the n pairs.
    weights: how often each pair is in each of r resamples.
  """
  return _weighted_pearson(_scaled(x), _scaled(y), weights)


def _scaled(values: Values) -> Values:
  """Return deviations from the mean of values scaled to at most 1, so that squares do not overflow."""
  largest = np.abs(values).max(initial=0)
  scaled = values / largest if largest > 0 else values
  return scaled - scaled.mean()


def spearman(x: Values, y: Values, weights: Weights) -> Float[np.ndarray, "r"]:
  """Compute the linear correlation of the ranks in each resample; ties share their mean rank.

  Args:
    x, y: values of the n pairs.
    weights: how often each pair is in each of r resamples.
  """
  return _weighted_pearson(_ranks(x, weights), _ranks(y, weights), weights)


def kendall(x: Values, y: Values, weights: Weights) -> Float[np.ndarray, "r"]:
  """Compute tau-b in each resample: concordant minus discordant pairs, corrected for ties.

  With S_x[i, j] = sign(x_i - x_j), tau-b = w'(S_x * S_y)w / sqrt(w'(S_x^2)w w'(S_y^2)w).

  Args:
    x, y: values of the n pairs.
    weights: how often each pair is in each of r resamples.
  """
  signs_x, signs_y = (np.sign(values[:, None] - values) for values in (x, y))
  same, apart_x, apart_y = (
    np.einsum("rn,rn->r", weights @ matrix, weights)
    for matrix in (signs_x * signs_y, signs_x**2, signs_y**2)
  )
  return _ratio(same, np.sqrt(apart_x * apart_y))


COEFFICIENTS: dict[str, Callable[[Values, Values, Weights], Float[np.ndarray, "r"]]] = {
  "pearson": pearson,
  "spearman": spearman,
  "kendall": kendall,
}


def permuted_orders(
  x: Values, y: Values, method: str, orders: Int[np.ndarray, "p n"]
) -> Float[np.ndarray, "p"]:
  """Compute the coefficient of x with y in each order of y; neither side is constant.

  Args:
    x, y: values, [n].
    method: one of `METHODS`.
    orders: permutations of y, [p, n].
  """
  if method == "kendall":
    signs_x, signs_y = (np.sign(values[:, None] - values) for values in (x, y))
    scale = np.sqrt(np.sum(signs_x**2) * np.sum(signs_y**2))
    # [p, n, n]: the sign matrix of each permuted y, without recomputing comparisons.
    exchanged = signs_y[orders[:, :, None], orders[:, None, :]]
    return np.einsum("ij,pij->p", signs_x, exchanged) / scale
  if method == "spearman":
    # Ranks do not change under a permutation, so they are computed once.
    x, y = (_ranks(values, np.ones((1, len(values)), int))[0] for values in (x, y))
  x, y = (_unit_deviations(values) for values in (x, y))
  return y[orders] @ x


def _unit_deviations(values: Values) -> Values:
  """Return deviations from the mean, scaled to unit length."""
  deviations = _scaled(values)
  return deviations / np.linalg.norm(deviations)


def _ranks(values: Values, weights: Weights) -> Float[np.ndarray, "r n"]:
  # The rank in a resample is the weight of smaller values plus half the weight of equal ones.
  below = (values[:, None] > values) + (values[:, None] == values) / 2
  return weights @ below.T


def _weighted_pearson(
  x: Float[np.ndarray, "*r n"], y: Float[np.ndarray, "*r n"], weights: Weights
) -> Float[np.ndarray, "r"]:
  # Weighted means and moments: a pair that was drawn w times counts w times.
  total = weights.sum(1, keepdims=True)
  x, y = (values - (weights * values).sum(1, keepdims=True) / total for values in (x, y))
  variance_x, variance_y = ((weights * values**2).sum(1) for values in (x, y))
  return _ratio((weights * x * y).sum(1), np.sqrt(variance_x * variance_y))


def _ratio(
  numerator: Float[np.ndarray, "r"], denominator: Float[np.ndarray, "r"]
) -> Float[np.ndarray, "r"]:
  """Return the ratio, clipped to [-1, 1]; NaN where the denominator is only rounding error."""
  defined = denominator > 1e-12 * np.max(np.abs(denominator), initial=0)
  ratio = numerator / np.where(defined, denominator, 1)
  return np.where(defined, np.clip(ratio, -1, 1), np.nan)


def holm(p_values: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
  """Correct p-values for their number (Holm 1979), bounding the chance of any false positive."""
  order = np.argsort(p_values)
  # The i-th smallest of m p-values is multiplied by m - i; a larger one must not end up smaller.
  stepped = p_values[order] * np.arange(len(p_values), 0, -1)
  corrected = np.empty(len(p_values))
  corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
  return corrected
