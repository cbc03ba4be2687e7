"""Class centers, and the scores of test images by the five ways to use external images (protocol, section 5).

f(x) is the unit-norm feature of x, t_c the text prototype of class c, v_c the unit-norm mean of the unit-norm features of
the external images of c. But for `softmax_scores` this is device code over the rows one device holds, without collectives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import HIGHEST, masked_rows, unit_rows

PROTOTYPE_SCORES = ("zero_shot", "cler", "cler_image")
VOTE_SCORES = ("topk_vote", "topk_vote_text")
# CLIP's own inverse temperature, used where text prototypes alone are the classifier.
ZERO_SHOT_SCALE = 100.0
# Stands for the similarity of a neighbor that there is not; below every cosine.
NO_NEIGHBOR = -2.0


class ClassSums(NamedTuple):
  """State of the class centers: per device and class, the sum of unit-norm features and, last, how many.

  A device adds what it holds (`from_batch`); states of equal shape add (`merge`); one all-reduce of k x (d + 1)
  over the devices, in `cler_program.reduce_program`, ends it.
  """

  sums: Float[Array, "p k d+1"]

  @classmethod
  def from_batch(
    cls,
    image_features: Float[Array, "n d"],
    labels: Int[Array, "n"] | Bool[Array, "n k"],
    mask: Bool[Array, "n"],
    num_classes: int,
  ) -> "ClassSums":
    ones = jnp.ones((len(mask), 1), image_features.dtype)
    rows = masked_rows(jnp.concatenate([unit_rows(image_features), ones], 1), mask)
    if labels.ndim == 1:
      return cls(jax.ops.segment_sum(rows, labels, num_classes)[None])
    return cls(jnp.matmul(labels.T.astype(rows.dtype), rows, precision=HIGHEST)[None])

  def merge(self, other: "ClassSums") -> "ClassSums":
    return ClassSums(self.sums + other.sums)

  def compute(self) -> tuple[Float[Array, "k d"], Int[Array, "k"]]:
    """`class_centers` and how many images each class has; a class without images has a zero center."""
    total = self.sums.sum(0)
    return unit_rows(total[:, :-1]), total[:, -1].astype(jnp.int32)


class Neighbors(NamedTuple):
  """The nearest external images of each test image, for the votes; NO_NEIGHBOR where there are fewer."""

  similarity: Float[Array, "m j"]
  labels: Int[Array, "m j"] | Bool[Array, "m j k"]


def class_prototypes(
  class_centers: Float[Array, "k d"], counts: Int[Array, "k"], text_features: Float[Array, "k d"]
) -> Float[Array, "3 k d"]:
  """Unit-norm prototypes of `PROTOTYPE_SCORES`: t_c, norm(t_c + v_c) and v_c.

  A class without images is represented by its text alone in `cler`, and by nothing in `cler_image`.
  """
  text = unit_rows(text_features)
  both = jnp.where(counts[:, None] > 0, unit_rows(text + class_centers), text)
  return jnp.stack([text, both, class_centers])


def class_cosines(
  feature: Float[Array, "d"],
  prototypes: Float[Array, "3 k d"],
  counts: Int[Array, "k"],
  reference: bool,
) -> Float[Array, "3 k"]:
  """Cosine of one test image with each prototype, in the order of `PROTOTYPE_SCORES`.

  In the strict protocol a class without images is excluded from `cler_image`. In the reference protocol it makes all
  scores of `cler` and `cler_image` useless, as its NaN does in the published code: class 0 is predicted always.
  """
  cosines = jnp.matmul(prototypes, unit_rows(feature), precision=HIGHEST)
  missing = counts == 0
  if reference:
    return cosines.at[1:].set(jnp.where(missing.any(), 0.0, cosines[1:]))
  return cosines.at[2].set(jnp.where(missing, -jnp.inf, cosines[2]))


def predicted_classes(
  cosines: Float[Array, "3 k"], neighbors: Neighbors | None, reference: bool
) -> Int[Array, "v"]:
  """The class that each way predicts for one test image; of equal scores the first.

  Classes with equally many votes are told apart by the summed similarity of their voters, except in the reference
  protocol.
  """
  predicted = jnp.argmax(cosines, axis=1)
  if neighbors is None:
    return predicted
  shares, similarity = votes(neighbors, cosines.shape[1])
  most = shares == shares.max()
  by_vote = jnp.argmax(most if reference else jnp.where(most, similarity, -jnp.inf))
  by_both = jnp.argmax(shares + jax.nn.softmax(ZERO_SHOT_SCALE * cosines[0]))
  return jnp.concatenate([predicted, jnp.stack([by_vote, by_both])])


def votes(neighbors: Neighbors, num_classes: int) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
  """Share of each class among the neighbors of one image, and the summed similarity of its voters."""
  hot = neighbors.labels
  if hot.ndim == 1:
    hot = hot[:, None] == jnp.arange(num_classes)
  real = neighbors.similarity > NO_NEIGHBOR
  hot = hot & real[:, None]
  similarity = jnp.sum(jnp.where(hot, neighbors.similarity[:, None], 0.0), axis=0)
  return jnp.sum(hot, axis=0) / jnp.maximum(jnp.sum(real), 1), similarity


def softmax_scores(
  columns: Float[np.ndarray, "m c k"],
) -> Float[np.ndarray, "m v k"]:
  """From cosines and, if any, shares of votes: the scores as published, in float64.

  In float32 the softmax at scale 100 gives many images the score 1, and the order among them is lost.
  """
  cosines, shares = columns[:, :3].astype(np.float64), columns[:, 3:].astype(np.float64)
  scales = np.array([ZERO_SHOT_SCALE, 1.0, 1.0])[:, None]
  logits = cosines * scales
  exponents = np.exp(logits - logits.max(-1, keepdims=True))
  scores = exponents / exponents.sum(-1, keepdims=True)
  if not shares.size:
    return scores
  return np.concatenate([scores, shares, (shares + scores[:, :1]) / 2], axis=1)
