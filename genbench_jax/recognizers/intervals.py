"""Bootstrap intervals over the test images."""

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.metrics.kinds import Metric

CONFIDENCE = 0.95


def bootstrap_interval(
  scores: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  metric: Metric,
  seed: int = 0,
  num_samples: int = 1000,
) -> tuple[float, float]:
  """The 95 % percentile interval of a recognition score under resampling of the test images.

  The number of hits in a resample of n images is binomial, so accuracy needs no resampling at all;
  mean per class is resampled within each class, so that no class runs empty. The two ranking
  metrics resample the images, a fifth as often: within each of the two classes (ROC area), within
  the images that have a class and those that have none (average precision).
  """
  generator = np.random.default_rng(seed)
  labels = np.asarray(labels)
  if metric in ("accuracy", "mean_per_class"):
    hits = np.asarray(scores).argmax(axis=1) == labels
    groups = labels if metric == "mean_per_class" else np.zeros(len(labels), int)
    samples = _resampled_means(hits, groups, generator, num_samples)
  else:
    samples = _resampled_scores(np.asarray(scores), labels, metric, generator, num_samples // 5)
  tail = (1 - CONFIDENCE) / 2
  low, high = np.quantile(samples, [tail, 1 - tail])
  return float(low), float(high)


def _resampled_means(
  hits: Bool[np.ndarray, "n"],
  groups: Int[np.ndarray, "n"],
  generator: np.random.Generator,
  num_samples: int,
) -> Float[np.ndarray, "s"]:
  """The mean over the groups of the resampled hit rate within each."""
  counts = np.bincount(groups)
  present = counts > 0
  rates = np.bincount(groups, weights=hits)[present] / counts[present]
  draws = generator.binomial(counts[present], rates, size=(num_samples, present.sum()))
  return (draws / counts[present]).mean(axis=1)


def _resampled_scores(
  scores: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  metric: Metric,
  generator: np.random.Generator,
  num_samples: int,
) -> Float[np.ndarray, "s"]:
  """The score of each resample, computed anew."""
  groups = labels if labels.ndim == 1 else labels.any(axis=1)
  members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

  def resampled_score() -> float:
    rows = np.concatenate([generator.choice(rows, size=len(rows)) for rows in members])
    return recognition_score(scores[rows], labels[rows], metric)

  return np.array([resampled_score() for _ in range(num_samples)])
