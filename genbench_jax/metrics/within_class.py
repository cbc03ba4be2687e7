"""Diversity within the classes: how different the images of one class are, by encoder."""

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
  """Class -> mean cosine distance of two different images of the class; classes with one image are left out.

  From the sum s of the n unit-norm features of a class: 1 - (|s|^2 - n) / (n (n - 1)), without any pair.

  Args:
    x: features, not necessarily unit-norm; labels: class indices or multi-hot.

  Raises:
    UsageError: shapes or values that do not fit, or no class with two images.
  """
  return {c: float(values.mean()) for c, (_, values) in _distances(x, labels).items()}


def _distances(x: Any, labels: Any) -> dict[int, tuple[np.ndarray, np.ndarray]]:
  """Class -> its rows, and of each the mean cosine distance to the others of the class."""
  rows = feature_rows("x", x)
  check_finite("x", rows)
  if len(labels) != len(rows):
    raise UsageError(f"every image needs its label: got {len(labels)} for {len(rows)}")
  unit = host_unit_rows(rows).astype(np.float64)
  found = {}
  for c, own in rows_of_classes(labels).items():
    if len(own) > 1:
      some = unit[own]
      cosines = some @ some.sum(axis=0) - np.sum(some**2, axis=1)
      found[c] = own, 1 - cosines / (len(own) - 1)
  if not found:
    raise UsageError("diversity within classes needs a class with two images")
  return found


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """For the registry: the mean over the classes, each counting once."""
  if not any(len(own) > 1 for own in rows_of_classes(sets.labels).values()):
    return
  found = _distances(sets.external, sets.labels)
  by_class = {c: float(values.mean()) for c, (_, values) in found.items()}
  # An image is in all pairs of its class: to first order it adds twice its mean distance.
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
