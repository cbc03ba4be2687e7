"""Exchange rates: how many real images per class give the same accuracy as a source's images.

The accuracy of real images is made monotone in their number and interpolated by monotone cubics
over its logarithm. The interval comes from redrawing the accuracies of real images and of the
source by their standard errors.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from genbench_jax.analysis.curves import Point, drawn, monotone
from genbench_jax.runtime.protocol import NORMAL

# Places between the smallest and the largest budget at which curves are looked up.
STEPS = 129
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class ExchangeRate:
  """Worth of a source's images at one budget, in real images per class.

  Attributes:
    images: the source's images per class.
    value: real images per class with equal accuracy; None if unknown.
    low, high: 95 % interval. 0 means fewer than the smallest tested number, infinity more than the
      largest.
    verdict: the rate in words.
  """

  images: float
  value: float | None
  low: float
  high: float
  verdict: str


def exchange_rates(
  source: Sequence[Point], real: Sequence[Point], seed: int = 0
) -> list[ExchangeRate]:
  """Return one rate per budget of the source.

  A rate is unknown if fewer than two numbers of real images were tested, if accuracy does not rise
  with the number by more than its error, or if the interval spans all tested numbers.

  Args:
    source: points of the source, by budget.
    real: points of the real images.
    seed: of the redraws.
  """
  real = sorted(real, key=lambda point: point.images)
  if reason := why_not(real):
    return [ExchangeRate(p.images, None, 0.0, math.inf, f"{UNKNOWN}: {reason}") for p in source]
  random = np.random.default_rng(seed)
  curves = drawn(real, random)
  return [
    _rate(point, real, curves, random)
    if math.isfinite(point.value) and math.isfinite(point.error)
    else ExchangeRate(
      point.images, None, 0.0, math.inf, f"{UNKNOWN}: the source has no standard error"
    )
    for point in source
  ]


def why_not(real: Sequence[Point]) -> str:
  """Return why real images cannot serve as a scale; empty if they can."""
  if len(real) < 2:
    return "real images were tested at a single number per class"
  first, last = real[0], real[-1]
  error = math.hypot(first.error, last.error)
  if not math.isfinite(error):
    return "real images have no standard errors"
  if last.value - first.value < NORMAL * error:
    return "accuracy does not rise with the number of real images by more than its error"
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
  places, smooth = _between(images, np.array([monotone(curve, errors) for curve in curves]))
  crossings = np.array([
    crossing(places, curve, value) for curve, value in zip(smooth, values, strict=True)
  ])  # fmt: skip
  # Nearest rank: interpolating between 0 and infinity would be meaningless.
  low, high = np.quantile(crossings, [0.025, 0.975], method="nearest")
  middle = monotone(np.array([p.value for p in real]), errors)[None]
  best = crossing(places, _between(images, middle)[1][0], point.value)
  return ExchangeRate(
    point.images,
    best if 0 < best < math.inf and not (low == 0 and high == math.inf) else None,
    float(low),
    float(high),
    _words(best, float(low), float(high), float(images[0]), float(images[-1])),
  )


def _between(
  images: Num[np.ndarray, "b"], curves: Float[np.ndarray, "r b"]
) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "r g"]]:
  """Return numbers of images between those tried, and each curve there.

  Monotone cubics over the logarithm of the number (Fritsch & Carlson 1980). Accuracy flattens with
  more images; straight lines would lie below it between two budgets, and overrate the source by up
  to a tenth of an octave, as much as the standard error at errors of .01.
  """
  from scipy.interpolate import PchipInterpolator

  octaves = np.log2(images)
  places = np.union1d(octaves, np.linspace(octaves[0], octaves[-1], STEPS))
  return np.exp2(places), PchipInterpolator(octaves, curves, axis=1)(places)


def crossing(images: Num[np.ndarray, "b"], accuracy: Float[np.ndarray, "b"], value: float) -> float:
  """Return the number of images at which a non-decreasing curve reaches a value.

  Args:
    images: images per class, increasing.
    accuracy: accuracy at these numbers, non-decreasing.
    value: accuracy to reach.

  Returns:
    The number; 0 below the start of the curve, infinity above its end.
  """
  if value < accuracy[0]:
    return 0.0
  if value > accuracy[-1]:
    return math.inf
  # Interpolate in log2 of the number of images: budgets are powers of two.
  return float(np.exp2(np.interp(value, accuracy, np.log2(images))))


def _words(best: float, low: float, high: float, fewest: float, most: float) -> str:
  if low == 0 and high == math.inf:
    return f"{UNKNOWN}: anything from fewer than {fewest:g} to more than {most:g} real images per class is possible"
  if high == 0:
    return f"fewer than {fewest:g} real images per class"
  if low == math.inf:
    return f"more than {most:g} real images per class"
  ends = (
    f"fewer than {fewest:g}" if low == 0 else f"{low:.3g}",
    f"more than {most:g}" if high == math.inf else f"{high:.3g}",
  )
  middle = {0.0: f"fewer than {fewest:g}", math.inf: f"more than {most:g}"}.get(best, f"{best:.3g}")
  return f"{middle} real images per class ({ends[0]} to {ends[1]})"
