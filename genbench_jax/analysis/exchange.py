"""Exchange rates: how many real images a class give the accuracy that a source's images give.

The accuracy of real images against their number is made monotone and interpolated over the logarithm of the number; real
images and the source's are drawn again by their standard errors, and the interval is that of the crossings.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.curves import NORMAL, Point, drawn, monotone

UNKNOWN = "can't be told"


@dataclasses.dataclass(frozen=True)
class ExchangeRate:
  """What the images of a source at one budget are worth in real images a class.

  Attributes:
    images: the source's images a class.
    value: real images a class of equal accuracy; None where it can't be told.
    low, high: its 95 % interval; 0: fewer than the smallest number of real images that was tried; infinite: more than
      the largest.
    verdict: in words.
  """

  images: float
  value: float | None
  low: float
  high: float
  verdict: str


def exchange_rates(
  source: Sequence[Point], real: Sequence[Point], seed: int = 0
) -> list[ExchangeRate]:
  """One rate for each budget of the source.

  It can't be told where fewer than two numbers of real images were tried, where more real images do not give more
  accuracy than error alone would, or where all numbers tried are possible.
  """
  real = sorted(real, key=lambda point: point.images)
  if reason := why_not(real):
    return [ExchangeRate(p.images, None, 0.0, math.inf, f"{UNKNOWN}: {reason}") for p in source]
  random = np.random.default_rng(seed)
  curves = drawn(real, random)
  return [_rate(point, real, curves, random) for point in source]


def why_not(real: Sequence[Point]) -> str:
  """Why real images are no scale to measure by; empty where they are."""
  if len(real) < 2:
    return "real images were tried at one number a class only"
  first, last = real[0], real[-1]
  error = math.hypot(first.error, last.error)
  if not math.isfinite(error):
    return "real images have no standard errors"
  if last.value - first.value < NORMAL * error:
    return "more real images do not give more accuracy than error alone would"
  return ""


def _rate(
  point: Point,
  real: Sequence[Point],
  curves: Float[np.ndarray, "r b"],
  random: np.random.Generator,
) -> ExchangeRate:
  images = np.array([p.images for p in real])
  errors = np.array([p.error for p in real])
  values = point.value + np.nan_to_num(point.error) * random.normal(size=len(curves))
  crossings = np.array([
    crossing(images, monotone(curve, errors), value)
    for curve, value in zip(curves, values, strict=True)
  ])  # fmt: skip
  low, high = np.quantile(crossings, [0.025, 0.975], method="nearest")
  best = crossing(images, monotone(np.array([p.value for p in real]), errors), point.value)
  return ExchangeRate(
    point.images,
    best if 0 < best < math.inf and not (low == 0 and high == math.inf) else None,
    float(low),
    float(high),
    _words(best, float(low), float(high), float(images[0]), float(images[-1])),
  )


def crossing(
  images: Float[np.ndarray, "b"], accuracy: Float[np.ndarray, "b"], value: float
) -> float:
  """Images at which a curve that never falls reaches the value; 0 below its start, infinite above its end."""
  if value < accuracy[0]:
    return 0.0
  if value > accuracy[-1]:
    return math.inf
  return float(np.exp2(np.interp(value, accuracy, np.log2(images))))


def _words(best: float, low: float, high: float, fewest: float, most: float) -> str:
  if low == 0 and high == math.inf:
    return f"{UNKNOWN}: anything from fewer than {fewest:g} to more than {most:g} real images a class is possible"
  if high == 0:
    return f"fewer than {fewest:g} real images a class"
  if low == math.inf:
    return f"more than {most:g} real images a class"
  ends = (
    f"fewer than {fewest:g}" if low == 0 else f"{low:.3g}",
    f"more than {most:g}" if high == math.inf else f"{high:.3g}",
  )
  middle = {0.0: f"fewer than {fewest:g}", math.inf: f"more than {most:g}"}.get(best, f"{best:.3g}")
  return f"{middle} real images a class ({ends[0]} to {ends[1]})"
