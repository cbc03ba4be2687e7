"""Diversity within classes: mean cosine distance between images of the same class."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import RESAMPLES, own_interval
from genbench_jax.metrics.inputs import (
  check_finite,
  feature_rows,
  host_unit_rows,
  or_default,
  rows_of_classes,
)
from genbench_jax.metrics.registry import Result, Sets


def intra_class_diversity(x: Float[Any, "n d"], labels: Any) -> dict[int, float]:
  """Compute the mean cosine distance between images of each class with at least two images.

  With s the sum of the n unit-norm features of a class, it is 1 - (|s|^2 - n) / (n (n - 1)), which
  needs no pairs.

  Args:
    x: features, not necessarily unit-norm.
    labels: class indices or multi-hot.

  Raises:
    UsageError: shapes or values do not fit, or no class has two images.
  """
  return {c: float(values.mean()) for c, (_, values) in _distances(x, labels).items()}


def _distances(x: Any, labels: Any) -> dict[int, tuple[np.ndarray, np.ndarray]]:
  """Return, by class, its rows and the mean cosine distance of each to the others of the class."""
  rows = feature_rows("x", x)
  check_finite("x", rows)
  if len(labels) != len(rows):
    raise UsageError(f"every image needs its label: got {len(labels)} for {len(rows)}")
  unit = host_unit_rows(rows).astype(np.float64)
  found = {}
  for c, own in rows_of_classes(labels).items():
    if len(own) > 1:
      members = unit[own]
      cosines = members @ members.sum(axis=0) - np.sum(members**2, axis=1)
      found[c] = own, 1 - cosines / (len(own) - 1)
  if not found:
    raise UsageError("diversity within classes needs a class with two images")
  return found


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield the mean over classes, each counted once."""
  if not any(len(own) > 1 for own in rows_of_classes(sets.labels).values()):
    return
  found = _distances(sets.external, sets.labels)
  by_class = {c: float(values.mean()) for c, (_, values) in found.items()}
  # An image is part of two of the n factors in every pair: its influence is twice its mean
  # distance.
  influences = np.concatenate([
    2 * values * len(own_rows) for own_rows, values in found.values()
  ])  # fmt: skip
  strata = np.repeat(np.arange(len(found)), [len(own) for own, _ in found.values()])
  counts = np.bincount(strata)[strata]
  weighed = influences / counts * len(influences) / (len(found) * counts)
  value = own_interval(
    float(np.mean(list(by_class.values()))),
    weighed,
    strata,
    sets.resamples or RESAMPLES,
    sets.seed,
    or_default(sets.mesh),
    lowest=0.0,
  )
  yield Result("intra_class_diversity", value, by_class)
