"""Contribution of each test image to a recognition score, for paired comparisons."""

import numpy as np
from jaxtyping import Bool, Float

from genbench_jax.metrics.accuracy import FROM_PREDICTIONS, recognition_score
from genbench_jax.metrics.intervals import HALF_SAMPLES, halved_precision, placements

# Scores on the same test images are compared on the same halves.
SEED = 0


def paired_values(
  judged: Bool[np.ndarray, "n"] | Float[np.ndarray, "n k"], labels: np.ndarray, metric: str
) -> Float[np.ndarray, "n"]:
  """Return values whose weighted mean is the score, and whose difference varies as that of two scores.

  They are `image_values` where the score is a mean over images. 11-point precision is not; its
  values on common random halves of the test images stand for the images, scaled so that the
  variance of their mean is the variance over halves (delete-half jackknife). A single value then
  says nothing about its image, but the mean of the differences of two scores varies as their
  difference over halves.

  Args:
    judged: correctness, or the scores of each class.
    labels: labels of the test images.
    metric: see `recognition_score`.
  """
  values = image_values(judged, labels, metric)
  if values is not None:
    return values
  count = len(judged)
  repeats = min(HALF_SAMPLES, count)
  halves = halved_precision(judged[:, None], labels, SEED, repeats)[:, 0]
  often = count // repeats
  # The variance of the mean of `often` copies of all halves is scale^2 x their variance.
  scale = count / np.sqrt(often * (repeats - 1)) if repeats > 1 else 0.0
  moved = np.zeros(count)
  moved[: often * repeats] = np.tile(scale * (halves - halves.mean()), often)
  return recognition_score(judged, labels, metric) + moved


def image_values(
  judged: Bool[np.ndarray, "n"] | Float[np.ndarray, "n k"], labels: np.ndarray, metric: str
) -> Float[np.ndarray, "n"] | None:
  """Return the contribution of each test image to a score, if it is a mean over them.

  It is correctness, whose mean weighted by `image_weights` is the score. For the ROC area A it is
  the pseudo-value A + (n / n_g) (V_i - A), with V_i the placement of the image and n_g the size of
  its class: the mean is A, and the variance of the mean is DeLong's.

  Args:
    judged: correctness, or the scores of each class.
    labels: labels of the test images.
    metric: see `recognition_score`.

  Returns:
    One value per image; None for 11-point precision, which is not a mean over images.
  """
  if metric in FROM_PREDICTIONS:
    return np.asarray(judged, np.float64)
  if metric != "roc_auc":
    return None
  positive = labels == 1
  values = np.empty(len(labels))
  for own, placed in zip((positive, ~positive), placements(judged[:, 1], positive), strict=True):
    values[own] = placed.mean() + len(labels) / own.sum() * (placed - placed.mean())
  return values
