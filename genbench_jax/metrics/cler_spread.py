"""How CLER and its siblings vary with the external images: their variance over fresh draws, from halves of them.

On the host, on at most `TEST_ROWS` test images: what is wanted is a variance, not a value.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.metrics.class_scores import ZERO_SHOT_SCALE
from genbench_jax.metrics.half_samples import REPEATS, Halves, halves_of, variance_of
from genbench_jax.metrics.inputs import BLOCK_ROWS, host_unit_rows
from genbench_jax.metrics.strata import are_paired, strata_of

TEST_ROWS = 2000
# Neighbors looked at for each that votes, so that half of them are left in almost every half.
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
  """Score -> its variance over fresh draws of the external images; None with one image in most classes.

  Args:
    image_features, labels, text_features, test_features, test_labels, metric: as `cler` takes them.
    voters: similarity and row of the nearest external images of each test image, at least `SPARE * top_k` of them
      where there are so many.
    top_k: how many of these vote; None without votes.
    seed: draws the halves; resamples: how many, 60 at most.
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
  names = list(values[0])
  found = variance_of(np.array([[one[name] for name in names] for one in values]), halves)
  return dict(zip(names, found.tolist(), strict=True))


def chosen_tests(count: int, seed: int) -> Int[np.ndarray, "t"]:
  """The test images that the variance is looked at on."""
  order = np.random.default_rng([seed, 0x7E57]).permutation(count)
  return np.sort(order[:TEST_ROWS])


def _group_sums(
  features: Float[np.ndarray, "n d"], labels: np.ndarray, halves: Halves, classes: int
) -> Float[np.ndarray, "g k d"]:
  """The sum of the unit-norm features of each group and class."""
  groups = halves.kept.shape[2]
  sums = np.zeros((groups * classes, features.shape[1]), np.float32)
  for start in range(0, len(features), BLOCK_ROWS):
    cut = slice(start, start + BLOCK_ROWS)
    unit, group = host_unit_rows(features[cut]), halves.group[cut]
    image, own = _pairs(labels[cut])
    np.add.at(sums, group[image] * classes + own, unit[image])
  return sums.reshape(groups, classes, -1)


def _pairs(labels: np.ndarray) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
  """Image and class of each label."""
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
) -> dict[str, float]:
  """The scores on one half, as the strict protocol has them."""
  kept = _kept_by_class(halves, replicate, labels, len(text))
  centers = host_unit_rows(np.einsum("gkd,kg->kd", sums, kept))
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
      name: _softmax(each) if name in ("cler", "cler_image") else each
      for name, each in columns.items()
    }
  return {name: recognition_score(each, test_labels, metric) for name, each in columns.items()}


def _kept_by_class(
  halves: Halves, replicate: int, labels: np.ndarray, classes: int
) -> Float[np.ndarray, "k g"]:
  """Which groups of each class a replicate keeps; where classes are no strata, the same for all."""
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
  """Votes of the nearest images that were kept, half as many as of all, and a little of their similarity for ties."""
  similarity, row = voters
  counted = kept[row] & (row >= 0)
  count = max(1, round(top_k * float(kept.mean())))
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
