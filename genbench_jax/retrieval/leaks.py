"""Leak audit: external images that are so similar to a test image that they may be copies of it."""

from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import feature_rows
from genbench_jax.metrics.neighbors import nearest


class Leaks(NamedTuple):
  """Nearest test image of each external image by cosine, and whether it reaches the threshold."""

  cosine: Float[np.ndarray, "n"]
  test_row: Int[np.ndarray, "n"]
  flagged: Bool[np.ndarray, "n"]


def audit(
  features: Float[Any, "n d"],
  test_features: Float[Any, "m d"],
  threshold: float,
  mesh: Mesh | None = None,
) -> Leaks:
  """Compare every external image with every test image.

  Args:
    features, test_features: image features of one encoder, not normalized.
    threshold: cosine from which an image is flagged.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: features are invalid or differ in width, or the threshold is not in [-1, 1].
  """
  if not -1 <= threshold <= 1:
    raise UsageError(f"the leak threshold is {threshold}, expected a cosine: -1 to 1.")
  test = feature_rows("test_features", test_features)
  external = feature_rows("features", features, test.shape[1])
  cosine, row = nearest(external, test, 1, mesh=mesh)
  return Leaks(cosine[:, 0], row[:, 0], cosine[:, 0] >= threshold)
