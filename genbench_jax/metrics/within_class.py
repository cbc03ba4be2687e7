"""Diversity within classes: mean cosine distance between images of the same class."""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import RESAMPLES, own_interval
from genbench_jax.metrics.inputs import (
  check_finite,
  feature_rows,
  host_unit_rows,
  rows_of_classes,
)
from genbench_jax.metrics.registry import Result, Sets

TWO_A_CLASS = "with two images per class there is one distance: the interval uses the spread of the classes and is wide"


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
  counts = np.array([len(values) for _, values in found.values()])
  strata = np.repeat(np.arange(len(found)), counts)
  has_spread = np.mean(counts > 2) >= 0.5
  influences = _influences(found, counts) if has_spread else _class_influences(by_class, counts)
  value = own_interval(
    float(np.mean(list(by_class.values()))),
    influences,
    strata if has_spread else np.zeros_like(strata),
    sets.resamples or RESAMPLES,
    sets.seed,
    lowest=0.0,
  )
  if not has_spread:
    value = dataclasses.replace(value, note=TWO_A_CLASS)
  yield Result("intra_class_diversity", value, by_class)


def _influences(
  found: dict[int, tuple[np.ndarray, np.ndarray]], counts: Int[np.ndarray, "k"]
) -> Float[np.ndarray, "n"]:
  """Return the influence of each image: twice its mean distance (it is half of each pair), over k.

  The mean distance h_i of an image to the n - 1 others shares pairs with theirs. The variance of
  the h_i over images understates the first-order part by ((n - 2) / (n - 1))^2 and overstates the
  second-order part by 2 (n - 2) / (n - 1). The factor (n - 1) / (n - 2) on the variance lies
  between both corrections.
  """
  total = int(counts.sum())
  parts = [
    2 * values * total / (len(counts) * count) * np.sqrt((count - 1) / max(count - 2, 1))
    for (_, values), count in zip(found.values(), counts.tolist(), strict=True)
  ]
  return np.concatenate(parts)


def _class_influences(
  by_class: dict[int, float], counts: Int[np.ndarray, "k"]
) -> Float[np.ndarray, "n"]:
  """Return class values as influences, an upper bound: each class is a single observation."""
  values = np.array(list(by_class.values()))
  weights = counts.sum() / (len(counts) * counts) * np.sqrt(counts)
  return np.repeat((values - values.mean()) * weights, counts)
