"""What several seeds say together: the mean of their values, with both intervals.

A seed draws its own external images and trains anew, on the same test images: what differs between seeds is what would differ
for other images of this generator, and needs no resampling.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

NORMAL = 1.959964
KEYS = ("dataset", "source", "generator", "strategy", "shots", "protocol", "encoder", "quantity")


@dataclasses.dataclass(frozen=True)
class OverSeeds:
  """The mean over seeds.

  Attributes:
    about: what it is of: the keys of a row but for the seed.
    seeds: how many there are.
    value: their mean; ci_low, ci_high: for these images, the mean of the seeds' own intervals.
    generator_low, generator_high: for this generator; None with one seed that has no such interval itself.
  """

  about: dict[str, Any]
  seeds: int
  value: float
  ci_low: float | None
  ci_high: float | None
  generator_low: float | None
  generator_high: float | None


def over_seeds(rows: Iterable[Mapping[str, Any]]) -> list[OverSeeds]:
  """One summary for each cell and quantity, in the order of the rows."""
  groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
  for row in rows:
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

  # The test images are the same for all seeds: their part does not shrink with the number of seeds.
  test = (high - low) / (2 * NORMAL) if low is not None and high is not None else 0.0
  spread = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1)) / math.sqrt(len(values))
  half = math.hypot(NORMAL * test, spread)
  return OverSeeds(about, len(rows), value, low, high, value - half, value + half)


def _mean(rows: list[Mapping[str, Any]], key: str) -> float | None:
  ends = [float(end) for row in rows if (end := row.get(key)) not in (None, "")]
  return float(np.mean(ends)) if len(ends) == len(rows) else None
