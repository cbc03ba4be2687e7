"""FID, KID and Inception score as their papers define them, on Inception-v3 features and logits.

References:
  Heusel et al., "GANs trained by a two time-scale update rule", 2017 (arXiv 1706.08500): FID.
  Binkowski et al., "Demystifying MMD GANs", 2018 (arXiv 1801.01401): KID. Salimans et al.,
  "Improved techniques for training GANs", 2016 (arXiv 1606.03498): the Inception score.
"""

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.frechet import distance_of_gaussians
from genbench_jax.metrics.inputs import check_finite, feature_rows
from genbench_jax.metrics.reference_statistics import (
  ReferenceStatistics,
  read_statistics,
  statistics_of,
)

# Features of a set, their statistics, or a file of statistics.
Reference: TypeAlias = Float[Any, "_ d"] | ReferenceStatistics | str | Path
# The KID paper averages over this many random subsets of this many images.
SUBSETS, SUBSET_SIZE = 100, 1000
# The Inception score paper averages over ten parts.
SPLITS = 10


class MeanOverParts(NamedTuple):
  """A score as its paper reports it.

  Attributes:
    mean: mean over the parts or subsets.
    std: standard deviation over them; it is not a confidence interval.
  """

  mean: float
  std: float


def fid_inception(x: Reference, y: Reference, mesh: Mesh | None = None) -> float:
  """Compute the Fréchet inception distance, |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2).

  It is biased upward for few images: with less than a few thousand images per set, compare only
  equal numbers. Published values use 50,000 or 10,000 images.

  Args:
    x: features [n, 2048] of the images, their statistics, or an .npz of pytorch-fid or clean-fid.
    y: the same for the images to compare with.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or a set has a single image.
  """
  first, second = (_statistics(given, mesh) for given in (x, y))
  if first.mean.shape != second.mean.shape:
    raise UsageError(
      f"cannot compare statistics of {len(first.mean)} and of {len(second.mean)} features"
    )
  return distance_of_gaussians(first, second)


def _statistics(given: Reference, mesh: Mesh | None) -> ReferenceStatistics:
  if isinstance(given, ReferenceStatistics):
    return given
  if isinstance(given, str | Path):
    return read_statistics(given)
  return statistics_of(given, mesh)


def kid_inception(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  subsets: int = SUBSETS,
  subset_size: int = SUBSET_SIZE,
  seed: int = 0,
) -> MeanOverParts:
  """Compute the kernel inception distance: MMD^2 under (a . b / d + 1)^3 over random subsets.

  Papers quote this version. `kernel_distance` uses all pairs at once and has less noise.

  Args:
    x: features of the images.
    y: features of the images to compare with.
    subsets: number of pairs of subsets.
    subset_size: images per subset, drawn without replacement; reduced to the size of the smaller
      set.
    seed: of the draws.

  Raises:
    UsageError: shapes or values do not fit, or a set has a single image.
  """
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  for name, features in (("x", x), ("y", y)):
    check_finite(name, features)
  size = min(subset_size, len(x), len(y))
  if size < 2 or subsets < 1:
    raise UsageError(f"a kernel distance needs subsets of at least 2 images, got {size}")
  rng = np.random.default_rng(seed)
  values = [
    _unbiased_mmd(*(rows[rng.choice(len(rows), size, replace=False)] for rows in (x, y)))
    for _ in range(subsets)
  ]
  return MeanOverParts(float(np.mean(values)), float(np.std(values)))


def _unbiased_mmd(x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "m d"]) -> float:
  """Return the unbiased MMD^2 (Binkowski et al. 2018, eq. 4)."""

  def kernel(a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    # Products in float32, like the features. The cube and the sums cancel, so they are in float64.
    return ((a @ b.T).astype(np.float64) / a.shape[1] + 1) ** 3

  count = len(x)
  x, y = (np.asarray(rows, np.float32) for rows in (x, y))
  within = [k.sum() - np.trace(k) for k in (kernel(x, x), kernel(y, y))]
  return sum(within) / (count * (count - 1)) - 2 * kernel(x, y).mean()


def inception_score(logits: Float[Any, "n k"], splits: int = SPLITS) -> MeanOverParts:
  """Compute exp of the mean KL divergence of p(class | image) from p(class), over equal parts.

  Args:
    logits: [n, 1008] logits without bias, see `models.inception_network.InceptionOutput`.
    splits: number of parts; the paper uses 10 parts of 5,000 images.

  Raises:
    UsageError: there are fewer images than parts, or `logits` is not a matrix of finite numbers.
  """
  logits = np.asarray(feature_rows("logits", logits), np.float64)
  check_finite("logits", logits)
  if not 1 <= splits <= len(logits):
    raise UsageError(f"{len(logits)} images can't be split into {splits} parts")
  # Log-softmax; subtracting the maximum avoids overflow.
  log_p = logits - logits.max(axis=1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
  bounds = [len(logits) * part // splits for part in range(splits + 1)]
  scores = [_score(log_p[bounds[part] : bounds[part + 1]]) for part in range(splits)]
  return MeanOverParts(float(np.mean(scores)), float(np.std(scores)))


def _score(log_p: Float[np.ndarray, "m k"]) -> float:
  p = np.exp(log_p)
  # A mean probability of 0 has weight 0: the floor only keeps its logarithm finite.
  log_mean = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
  return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))
