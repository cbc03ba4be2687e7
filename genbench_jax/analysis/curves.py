"""Accuracy against images per class: measured points, monotone and power-law fits."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from genbench_jax.analysis.measured import has_value
from genbench_jax.runtime.protocol import NORMAL

EXPONENTS = np.linspace(0.05, 2.0, 40)  # grid of the power law's exponent
DRAWS = 400
FEWEST_FOR_LAW = 4  # points: the law has three parameters


@dataclasses.dataclass(frozen=True)
class Point:
  """Accuracy at one budget.

  Attributes:
    images: images per class that were available; may be fewer than requested.
    value: accuracy.
    error: standard error of the accuracy for this generator.
  """

  images: float
  value: float
  error: float


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """Fit of error(n) = floor + scale n^-exponent, with 95 % intervals.

  Attributes:
    floor: error that remains with infinitely many images.
    scale: reducible error at one image per class.
    exponent, exponent_low, exponent_high: decay of the reducible error, with its interval.
    limit_low, limit_high: interval of 1 - floor, the limiting accuracy.
    reason: why there is no fit; empty if there is one.
  """

  floor: float = math.nan
  scale: float = math.nan
  exponent: float = math.nan
  exponent_low: float = math.nan
  exponent_high: float = math.nan
  limit_low: float = math.nan
  limit_high: float = math.nan
  reason: str = ""

  def accuracy(self, images: float) -> float:
    """Return the fitted accuracy at a number of images per class."""
    return 1 - self.floor - self.scale * images**-self.exponent


def points_of(rows: Iterable[Mapping[str, Any]]) -> list[Point]:
  """Return the points of rows of one quantity, dataset, source and strategy, averaged over seeds.

  Budgets that ended up with the same number of images are merged: they hold the same images.
  """
  seeds: dict[float, dict[Any, Mapping[str, Any]]] = {}
  for row in filter(has_value, rows):
    seeds.setdefault(images_given(row), {}).setdefault(row.get("seed"), row)
  budgets = {images: list(own.values()) for images, own in seeds.items()}
  return [
    Point(
      images,
      float(np.mean([float(row["value"]) for row in own])),
      math.sqrt(sum(_error(row) ** 2 for row in own)) / len(own),
    )
    for images, own in sorted(budgets.items())
  ]


def images_given(row: Mapping[str, Any]) -> float:
  """Return the available images per class; rows of older runs record only the requested number."""
  given = row.get("shots_given")
  return float(row["shots"]) if given in (None, "") else float(given)


def _error(row: Mapping[str, Any]) -> float:
  """Return the standard error for this generator or, if unknown, for these images."""
  for low, high in (("generator_low", "generator_high"), ("ci_low", "ci_high")):
    if row.get(low) not in (None, "") and row.get(high) not in (None, ""):
      return (float(row[high]) - float(row[low])) / (2 * NORMAL)
  return math.nan


def drawn(points: Sequence[Point], random: np.random.Generator) -> Float[np.ndarray, "r b"]:
  """Redraw the values by their standard errors, `DRAWS` times."""
  values, errors = (np.array([getattr(p, key) for p in points]) for key in ("value", "error"))
  return values + np.nan_to_num(errors) * random.normal(size=(DRAWS, len(points)))


def monotone(
  values: Float[np.ndarray, "b"], errors: Float[np.ndarray, "b"]
) -> Float[np.ndarray, "b"]:
  """Return the closest non-decreasing sequence (pool adjacent violators, weights 1 / error^2)."""
  blocks: list[list[float]] = []  # mean, weight, length
  for value, error in zip(values, errors, strict=True):
    blocks.append([float(value), 1 / max(float(error), 1e-6) ** 2, 1])
    # A block that exceeds its successor is merged with it into their weighted mean.
    while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
      mean, weight, length = blocks.pop()
      before = blocks[-1]
      total = before[1] + weight
      before[0] = (before[0] * before[1] + mean * weight) / total
      before[1], before[2] = total, before[2] + length
  return np.concatenate([np.full(int(length), mean) for mean, _, length in blocks])


def power_law(points: Sequence[Point], seed: int = 0) -> PowerLaw:
  """Fit a power law (Hestness et al. 2017); refits of redrawn points give the intervals."""
  if len(points) < FEWEST_FOR_LAW:
    return PowerLaw(reason=f"fewer than {FEWEST_FOR_LAW} budgets")
  images, errors = (np.array([getattr(p, key) for p in points]) for key in ("images", "error"))
  if not np.isfinite(errors).all():
    return PowerLaw(reason="no standard errors")
  values = np.array([p.value for p in points])
  if values[-1] - values[0] < NORMAL * math.hypot(errors[0], errors[-1]):
    return PowerLaw(reason="accuracy does not rise by more than its error")
  floor, scale, exponent = _fit(images, values, errors)
  draws = drawn(points, np.random.default_rng(seed))
  fits = np.array([_fit(images, redrawn, errors) for redrawn in draws[: DRAWS // 4]])
  low, high = np.quantile(fits, [0.025, 0.975], axis=0)
  return PowerLaw(
    floor, scale, exponent, float(low[2]), float(high[2]), float(1 - high[0]), float(1 - low[0])
  )


def _fit(
  images: Num[np.ndarray, "b"], values: Float[np.ndarray, "b"], errors: Float[np.ndarray, "b"]
) -> tuple[float, float, float]:
  """Return the weighted least-squares fit over the grid of exponents, without negative terms.

  For a fixed exponent the law is linear in floor and scale, so `nnls` solves it exactly.
  """
  from scipy.optimize import nnls

  # The floor keeps a point without error from dominating the fit completely.
  weights = 1 / np.maximum(errors, 1e-6)
  best = (np.inf, (0.0, 0.0, 0.0))
  for exponent in EXPONENTS:
    design = np.stack([np.ones_like(images), images**-exponent], axis=1) * weights[:, None]
    found, residual = nnls(design, (1 - values) * weights)
    if residual < best[0]:
      best = (residual, (float(found[0]), float(found[1]), float(exponent)))
  return best[1]
