"""Variance of the CLER scores over fresh draws of the external images, from random halves of them.

It is computed on the host from at most `TEST_ROWS` test images: a variance needs fewer of them than
a value.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.accuracy import FROM_PREDICTIONS, recognition_score
from genbench_jax.metrics.class_scores import ZERO_SHOT_SCALE
from genbench_jax.metrics.half_samples import (
  REPEATS,
  Halves,
  common_variance,
  halves_of,
  variance_of,
)
from genbench_jax.metrics.image_values import image_values
from genbench_jax.metrics.inputs import BLOCK_ROWS, host_unit_rows
from genbench_jax.metrics.intervals import image_weights
from genbench_jax.metrics.strata import are_paired, strata_of

TEST_ROWS = 2000
# Neighbors to search per voter, so that almost every half still contains enough of them.
SPARE = 3

Voters = tuple[Float[np.ndarray, "m j"], Int[np.ndarray, "m j"]]


def external_variances(
  image_features: Float[np.ndarray, "n d"],
  labels: np.ndarray,
  text_features: Float[np.ndarray, "k d"],
  test_features: Float[np.ndarray, "m d"],
  test_labels: np.ndarray,
  metric: str,
  voters: Voters | None,
  top_k: int | None,
  seed: int,
  resamples: int = REPEATS,
) -> dict[str, float] | None:
  """Return each score's variance over draws of external images, beyond that over test images.

  Args:
    image_features, labels, text_features, test_features, test_labels, metric: as in `cler.cler`.
    voters: similarity and row of the nearest external images of each test image, `SPARE * top_k` of
      them if available.
    top_k: number of neighbors that vote; None for no votes.
    seed: of the halves.
    resamples: number of halves, at most `REPEATS`.

  Returns:
    Variance by score; None if most classes have a single image.
  """
  strata = strata_of(labels, len(labels))
  if not are_paired(strata):
    return None
  halves = halves_of(strata, seed, min(resamples, REPEATS))
  tests, text = host_unit_rows(test_features), host_unit_rows(text_features)
  sums = _group_sums(image_features, labels, halves, len(text))
  values = [
    _scores(sums, halves, replicate, labels, tests, text, test_labels, metric, voters, top_k)
    for replicate in range(len(halves.kept))
  ]
  weights = image_weights(test_labels, metric) if metric in FROM_PREDICTIONS else np.full(
    len(tests), 1 / len(tests)
  )  # fmt: skip
  return {
    name: _variance(np.array([half[name] for half in values]), weights, halves)
    for name in values[0]
  }


def _variance(
  values: Float[np.ndarray, "r *m"], weights: Float[np.ndarray, "m"], halves: Halves
) -> float:
  """Return the variance of a score from per-image values, or from one value per replicate."""
  if values.ndim == 2:
    return common_variance(values, weights, halves)
  return float(variance_of(values[:, None], halves)[0])


def chosen_tests(count: int, seed: int) -> Int[np.ndarray, "t"]:
  """Return the rows of the test images on which the variance is computed."""
  order = np.random.default_rng([seed, 0x7E57]).permutation(count)
  return np.sort(order[:TEST_ROWS])


def _group_sums(
  features: Float[np.ndarray, "n d"], labels: np.ndarray, halves: Halves, classes: int
) -> Float[np.ndarray, "g k d"]:
  """Return the sum of the unit-norm features of each group and class."""
  groups = halves.kept.shape[2]
  sums = np.zeros((groups * classes, features.shape[1]), np.float32)
  for start in range(0, len(features), BLOCK_ROWS):
    cut = slice(start, start + BLOCK_ROWS)
    unit, group = host_unit_rows(features[cut]), halves.group[cut]
    image, own = _pairs(labels[cut])
    np.add.at(sums, group[image] * classes + own, unit[image])
  return sums.reshape(groups, classes, -1)


def _pairs(labels: np.ndarray) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
  """Return the image and the class of each label."""
  if labels.ndim == 2:
    image, own = np.nonzero(labels)
    return image, own
  return np.arange(len(labels)), labels


def _scores(
  sums: Float[np.ndarray, "g k d"],
  halves: Halves,
  replicate: int,
  labels: np.ndarray,
  tests: Float[np.ndarray, "m d"],
  text: Float[np.ndarray, "k d"],
  test_labels: np.ndarray,
  metric: str,
  voters: Voters | None,
  top_k: int | None,
) -> dict[str, np.ndarray]:
  """Return the scores on one half, by the strict protocol; per test image if they are means."""
  kept = _kept_by_class(halves, replicate, labels, len(text))
  # Class sums of a half are sums over its groups: no pass over the images per replicate.
  centers = host_unit_rows(np.einsum("gkd,kg->kd", sums, kept))
  # An empty class is represented by its text in `cler` and excluded from `cler_image`.
  there = np.linalg.norm(centers, axis=1) > 0
  both = np.where(there[:, None], host_unit_rows(text + centers), text)
  columns = {
    "cler": tests @ both.T,
    "cler_image": np.where(there, tests @ centers.T, -np.inf),
  }
  base = tests @ text.T
  if voters is not None and top_k is not None:
    shares = _shares(voters, halves.rows(replicate), labels, len(text), top_k)
    columns["topk_vote"] = shares
    columns["topk_vote_text"] = shares + _softmax(ZERO_SHOT_SCALE * base)
  if metric not in ("accuracy", "mean_per_class"):
    columns = {
      name: _softmax(scores) if name in ("cler", "cler_image") else scores
      for name, scores in columns.items()
    }
  return {name: _judged(scores, test_labels, metric) for name, scores in columns.items()}


def _judged(scores: Float[np.ndarray, "m k"], test_labels: np.ndarray, metric: str) -> np.ndarray:
  judged = scores.argmax(axis=1) == test_labels if metric in FROM_PREDICTIONS else scores
  values = image_values(judged, test_labels, metric)
  return np.asarray(recognition_score(scores, test_labels, metric)) if values is None else values


def _kept_by_class(
  halves: Halves, replicate: int, labels: np.ndarray, classes: int
) -> Float[np.ndarray, "k g"]:
  """Return which groups of each class a replicate keeps."""
  kept = halves.kept[replicate].astype(np.float32)
  if len(kept) == 1:
    return np.repeat(kept, classes, axis=0)
  every = np.zeros((classes, kept.shape[1]), np.float32)
  present = np.unique(labels.argmax(axis=1) if labels.ndim == 2 else labels)
  every[present] = kept
  return every


def _shares(
  voters: Voters, kept: Bool[np.ndarray, "n"], labels: np.ndarray, classes: int, top_k: int
) -> Float[np.ndarray, "m k"]:
  """Return the vote shares of the nearest kept images.

  A half has half the votes of the full set. A small share of the similarity breaks ties.
  """
  similarity, row = voters
  counted = kept[row] & (row >= 0)
  count = max(1, round(top_k * float(kept.mean())))
  # Neighbors are sorted by similarity: keep the first `count` that belong to the half.
  counted &= np.cumsum(counted, axis=1) <= count
  shares = np.zeros((len(row), classes))
  hot = labels if labels.ndim == 2 else None
  for place in range(row.shape[1]):
    weight = counted[:, place] * (1 + 1e-3 * np.maximum(similarity[:, place], -1))
    if hot is None:
      shares[np.arange(len(row)), labels[row[:, place]]] += weight
    else:
      shares += weight[:, None] * hot[row[:, place]]
  return shares / np.maximum(counted.sum(axis=1), 1)[:, None]


def _softmax(logits: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
  exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
  return exponents / exponents.sum(axis=1, keepdims=True)
