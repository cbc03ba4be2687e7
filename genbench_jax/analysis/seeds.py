"""Mean over seeds, with both intervals.

Each seed draws its own external images and trains anew, on the same test images. The spread over
seeds is therefore the variation over images of this generator; it needs no resampling.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from genbench_jax.analysis.measured import has_value
from genbench_jax.runtime.protocol import NORMAL

KEYS = ("dataset", "source", "generator", "strategy", "shots", "protocol", "encoder", "quantity")


@dataclasses.dataclass(frozen=True)
class OverSeeds:
  """Mean of a quantity over seeds.

  Attributes:
    about: keys of the rows, without the seed.
    seeds: number of seeds.
    value: mean of the values.
    ci_low, ci_high: interval for these images: the mean of the seeds' own intervals; None if a seed
      has none.
    generator_low, generator_high: interval for this generator; with a single seed, its own, or
      None.
  """

  about: dict[str, Any]
  seeds: int
  value: float
  ci_low: float | None
  ci_high: float | None
  generator_low: float | None
  generator_high: float | None


def over_seeds(rows: Iterable[Mapping[str, Any]]) -> list[OverSeeds]:
  """Return one summary per cell and quantity, in row order; rows without a finite value are
  skipped."""
  groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
  for row in filter(has_value, rows):
    groups.setdefault(tuple(row.get(key) for key in KEYS), []).append(row)
  return [_summary(dict(zip(KEYS, key, strict=True)), own) for key, own in groups.items()]


def _summary(about: dict[str, Any], rows: list[Mapping[str, Any]]) -> OverSeeds:
  values = np.array([float(row["value"]) for row in rows])
  value = float(values.mean())
  low, high = (_mean(rows, key) for key in ("ci_low", "ci_high"))
  if len(rows) < 2:
    wide = tuple(_mean(rows, key) for key in ("generator_low", "generator_high"))
    return OverSeeds(about, 1, value, low, high, *wide)
  from scipy import stats

  # All seeds share the test images, so their part of the error does not shrink with the number of
  # seeds.
  test = (high - low) / (2 * NORMAL) if low is not None and high is not None else 0.0
  # Student's t, because the standard deviation is estimated from a few seeds.
  spread = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1)) / math.sqrt(len(values))
  half = math.hypot(NORMAL * test, spread)
  return OverSeeds(about, len(rows), value, low, high, value - half, value + half)


def _mean(rows: list[Mapping[str, Any]], key: str) -> float | None:
  ends = [float(end) for row in rows if (end := row.get(key)) not in (None, "")]
  return float(np.mean(ends)) if len(ends) == len(rows) else None
