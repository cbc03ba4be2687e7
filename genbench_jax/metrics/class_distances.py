"""Distances of each class: how far are its external images from its test images?"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import rows_of_classes

# With fewer images of a class on a side, a distance is all bias.
FEWEST = 4
Value = TypeVar("Value")


def distances_by_class(
  x: Float[np.ndarray, "n d"],
  y: Float[np.ndarray, "m d"],
  labels: Any,
  test_labels: Any,
  distance: Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], Value],
  fewest: int = FEWEST,
) -> dict[int, Value]:
  """Return the distance between the images of each class that has enough of them on both sides.

  Such distances are biased upward by few images: compare classes with as many images, not one class
  with the whole.

  Args:
    x, y: features of the external and of the test images.
    labels, test_labels: class indices or multi-hot labels of the two.
    distance: of two sets; a number, or several.
    fewest: images that a class must have on either side.

  Raises:
    UsageError: labels that do not fit the images.
  """
  for rows, images in ((labels, x), (test_labels, y)):
    if len(rows) != len(images):
      raise UsageError(f"every image needs its label: got {len(rows)} for {len(images)}")
  of_y = rows_of_classes(test_labels)
  return {
    c: distance(x[rows], y[of_y[c]])
    for c, rows in rows_of_classes(labels).items()
    if c in of_y and min(len(rows), len(of_y[c])) >= fewest
  }


def means_by_class(
  values: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"], labels: Any
) -> dict[int, float]:
  """Return the mean value of the images of each class."""
  return {c: float(values[rows].mean()) for c, rows in rows_of_classes(labels).items()}


def frechet_of_few(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
  """Return the Fréchet distance of few images of many dimensions, without a covariance.

  With centered rows X and Y, S_x S_y = X' X Y' Y / ((n - 1) (m - 1)) has the eigenvalues of (X Y')
  (X Y')', so tr (S_x S_y)^1/2 is the sum of the singular values of X Y' over sqrt((n - 1) (m - 1)):
  n x m numbers in place of d x d.
  """
  first, second = (np.asarray(rows, np.float64) for rows in (x, y))
  shift = first.mean(axis=0) - second.mean(axis=0)
  centered = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (first, second)]
  traces = sum(float(np.sum(rows**2)) for rows in centered)
  small = [_triangle(rows) if len(rows) > rows.shape[1] else rows for rows in centered]
  cross = np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum()
  return max(float(shift @ shift + traces - 2 * cross), 0.0)


def _triangle(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
  """Return R of rows = Q R, which has the same products R' R and takes their place where n > d."""
  return np.asarray(np.linalg.qr(rows, mode="r"))
