"""Proxy-A-distance: how well a linear classifier separates two sets of features."""

import dataclasses
import functools
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.inputs import (
  HIGHEST,
  bucket_rows,
  check_finite,
  common_scale,
  feature_rows,
  host_unit_rows,
)
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.runtime.mesh import pad_rows
from genbench_jax.runtime.protocol import PROTOCOLS, Protocol

REPEATS = 10
MOST_IMAGES = 1000
FEWEST_IMAGES = 4
SHARED = "wider than needed: divisions share images, and how much is taken at its worst"
# Ridge penalties relative to the mean eigenvalue, from almost none to almost only the means.
PENALTIES = tuple(10.0**power for power in range(-4, 4))
SVM_COSTS = tuple(10.0**power for power in range(-5, 5))
SVM_ITERATIONS = 20_000


@dataclasses.dataclass(frozen=True)
class ProxyResult:
  """Mean proxy-A-distance over the repeats, and their spread.

  Attributes:
    distance: mean over the repeats with its interval, t s sqrt(1 / r + test / train) clipped to
      [-2, 2]: the corrected interval for r random divisions that share images (Nadeau & Bengio
      2003). The single division of the reference protocol has the binomial interval. Both intervals
      of the measurement are this one, because each division draws test and external images
      together.
    deviation: standard deviation over the repeats; 0 in the reference protocol, which has one.
    repeats: distance of each repeat.
  """

  distance: Measurement
  deviation: float
  repeats: tuple[float, ...]


def proxy_a_distance(
  x: Float[Any, "n d"], y: Float[Any, "m d"], seed: int = 0, protocol: Protocol = "strict"
) -> float:
  """Compute 2 (1 - 2 err): 2 for linearly separable sets, about 0 for one distribution.

  Ben-David et al. 2007. The features are standardized with the statistics of the training half.

  Args:
    x: features of the external images.
    y: features of the images to compare with.
    seed: of the draws and divisions.
    protocol: `strict` draws equally many images of each set, at most 1,000. One half is for
      training, a fifth of which chooses the ridge penalty; the other half is for testing. The
      result is the mean of 10 repeats. `reference` follows the published code: all images in the
      given order, the first half of each set for training, the second for testing; a linear SVM
      with the best of ten costs on the test half; err is at most one half. It gives a nonzero
      distance for sets that differ only in size.

  Raises:
    UsageError: shapes or values do not fit, or a set has fewer than 4 images.
  """
  return measure_proxy_a_distance(x, y, seed, protocol).distance.value


def measure_proxy_a_distance(
  x: Float[Any, "n d"],
  y: Float[Any, "m d"],
  seed: int = 0,
  protocol: Protocol = "strict",
) -> ProxyResult:
  """Measure `proxy_a_distance` with its spread over the repeats.

  Args:
    x, y, seed, protocol: see `proxy_a_distance`.

  Raises:
    UsageError: as `proxy_a_distance`.
  """
  x, y = _checked(x, y, protocol)
  if protocol == "reference":
    distances = np.array([_by_svm(np.asarray(x, np.float64), np.asarray(y, np.float64))])
  else:
    distances = _by_ridge(x, y, seed)
  value, deviation = float(distances.mean()), float(distances.std(ddof=len(distances) > 1))
  half = _half_width(value, deviation, len(distances), min(len(x), len(y)))
  low, high = (float(np.clip(end, -2, 2)) for end in (value - half, value + half))
  return ProxyResult(Measurement(value, low, high, low, high), deviation, tuple(distances.tolist()))


def _half_width(value: float, deviation: float, repeats: int, images: int) -> float:
  from scipy import stats

  if repeats > 1:  # test and training halves are equally large, so test / train = 1
    return float(stats.t.ppf(0.975, repeats - 1) * deviation * np.sqrt(1 / repeats + 1))
  # Invert d = 2 (1 - 2 err); d changes by 4 per unit of err.
  error = (1 - value / 2) / 2
  tested = max(images // 2, 1) * 2
  return float(1.96 * 4 * np.sqrt(max(error * (1 - error), 0.0) / tested))


def _checked(x: Any, y: Any, protocol: str) -> tuple[np.ndarray, np.ndarray]:
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)
  x = feature_rows("x", x)
  y = feature_rows("y", y, x.shape[1])
  if min(len(x), len(y)) < FEWEST_IMAGES:
    raise UsageError(
      f"proxy_a_distance needs at least {FEWEST_IMAGES} images per set, got {len(x)} and {len(y)}"
    )
  scale = common_scale(x, y)
  return (x, y) if scale == 1 else (x / scale, y / scale)


def _by_ridge(
  x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], seed: int
) -> Float[np.ndarray, "r"]:
  """Return one distance per repeat; all repeats and penalties run in one program on one device."""
  size = min(len(x), len(y), MOST_IMAGES)
  random = np.random.default_rng(seed)
  drawn = [
    np.stack([random.permutation(len(rows))[:size] for _ in range(REPEATS)]) for rows in (x, y)
  ]
  # Only the drawn rows go to the device, padded to a bucket so that few programs are compiled.
  used, where = zip(*(np.unique(numbers, return_inverse=True) for numbers in drawn), strict=True)
  sets = [np.asarray(rows[numbers], np.float32) for rows, numbers in zip((x, y), used, strict=True)]
  for rows in sets:
    check_finite("features", rows)
  padded = [pad_rows(rows, bucket_rows(len(rows), 1)) for rows in sets]
  order = [numbers.reshape(REPEATS, size).astype(np.int32) for numbers in where]
  errors = _ridge_errors(padded[0], padded[1], order[0], order[1])
  return 2 * (1 - 2 * np.asarray(errors, np.float64))


@jax.jit
def _ridge_errors(
  x: Float[Array, "n d"],
  y: Float[Array, "m d"],
  x_order: Int[Array, "r s"],
  y_order: Int[Array, "r s"],
) -> Float[Array, "r"]:
  def repeat(orders: tuple[Int[Array, "s"], Int[Array, "s"]]) -> Float[Array, ""]:
    return ridge_error(x[orders[0]], y[orders[1]])

  return jax.lax.map(repeat, (x_order, y_order))


def ridge_error(
  x: Float[Array | np.ndarray, "s d"], y: Float[Array | np.ndarray, "s d"]
) -> Float[Array, ""]:
  """Train a ridge classifier on the first halves; return its error on the second halves.

  With equally many images of both sets and targets 1 and -1, ridge regression is Fisher's linear
  discriminant. One eigendecomposition X'X = V diag(l) V' solves it for every penalty: w = V (V' X'y
  / (l + penalty)).
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  half = x.shape[0] // 2
  validating = max(1, half // 5)
  training = half - validating
  both = jnp.concatenate([x[:training], y[:training]])
  # Standardize with training rows only; the test half must not leak into the scale.
  middle, scale = both.mean(0), both.std(0)
  x, y = ((rows - middle) / jnp.where(scale > 0, scale, 1) for rows in (x, y))
  both = jnp.concatenate([x[:training], y[:training]])
  eigenvalues, vectors = jnp.linalg.eigh(jnp.matmul(both.T, both, precision=HIGHEST))
  target = jnp.matmul((x[:training] - y[:training]).sum(0), vectors, precision=HIGHEST)
  penalties = jnp.asarray(PENALTIES)[:, None] * jnp.maximum(eigenvalues.mean(), 1e-6)
  weights = jnp.matmul(
    target / (jnp.maximum(eigenvalues, 0) + penalties), vectors.T, precision=HIGHEST
  )
  chosen = jnp.argmin(_errors(x[training:half], y[training:half], weights))
  return _errors(x[half:], y[half:], weights[chosen][None])[0]


def _errors(
  x: Float[Array, "s d"], y: Float[Array, "s d"], weights: Float[Array, "p d"]
) -> Float[Array, "p"]:
  """Return the error of each classifier; a point on the decision boundary counts one half."""
  sides = [jnp.sign(jnp.matmul(rows, weights.T, precision=HIGHEST)) for rows in (x, y)]
  return (1 - (sides[0].mean(0) - sides[1].mean(0)) / 2) / 2


def _by_svm(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
  """Return the distance by the published procedure, with a cap on the solver's iterations."""
  from sklearn.preprocessing import StandardScaler

  check_finite("x", x)
  check_finite("y", y)
  # The published scaler is part of the classifier's pipeline: it sees the training halves only.
  scaler = StandardScaler().fit(np.concatenate([x[: len(x) // 2], y[: len(y) // 2]]))
  halves = [np.array_split(scaler.transform(rows), [len(rows) // 2]) for rows in (x, y)]
  train, test = (np.concatenate([rows[part] for rows in halves]) for part in (0, 1))
  train_side, test_side = (
    np.repeat([0, 1], [len(rows[part]) for rows in halves]) for part in (0, 1)
  )
  fit = functools.partial(_svm_error, train, train_side, test, test_side)
  errors = [fit(cost) for cost in SVM_COSTS]
  return 2 * (1 - 2 * min(min(error, 1 - error) for error in errors))


def _svm_error(
  train: Float[np.ndarray, "n d"],
  train_side: Int[np.ndarray, "n"],
  test: Float[np.ndarray, "m d"],
  test_side: Int[np.ndarray, "m"],
  cost: float,
) -> float:
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.svm import SVC

  with warnings.catch_warnings():
    # The cap is intended: the solver need not converge on overlapping sets.
    warnings.simplefilter("ignore", ConvergenceWarning)
    model = SVC(C=cost, kernel="linear", max_iter=SVM_ITERATIONS).fit(train, train_side)
  return float(np.mean(model.predict(test) != test_side))


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield `proxy_a_distance` on unit-norm features."""
  x, y = host_unit_rows(sets.external), host_unit_rows(sets.test)
  if min(len(x), len(y)) >= FEWEST_IMAGES:
    found = measure_proxy_a_distance(x, y, sets.seed, sets.protocol)
    yield Result("proxy_a_distance", found.distance)
