"""Class centers and the five CLER scores of test images (docs/protocol, section 5).

f(x) is the unit-norm feature of image x, t_c the text prototype of class c, and v_c the unit-norm
mean of the unit-norm features of the external images of c. Except for `softmax_scores`, this is
device code on local rows, without collectives.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import HIGHEST, masked_rows, unit_rows

PROTOTYPE_SCORES = ("zero_shot", "cler", "cler_image")
VOTE_SCORES = ("topk_vote", "topk_vote_text")
# CLIP's inverse temperature, used where text prototypes alone form the classifier.
ZERO_SHOT_SCALE = 100.0
# Similarity of a missing neighbor; smaller than every cosine.
NO_NEIGHBOR = -2.0


class ClassSums(NamedTuple):
  """Mergeable state of the class centers: sum of unit-norm features and count, by class.

  `cler_program.reduce_program` adds the states of all devices in one all-reduce of k x (d + 1).

  Attributes:
    sums: [p, k, d + 1] for p devices; the last column is the count.
  """

  sums: Float[Array, "p k width"]

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
    """Return the class centers and image counts; an empty class has a zero center."""
    total = self.sums.sum(0)
    # The norm of the sum is the norm of the mean times n, so normalizing makes the division by n
    # unnecessary.
    return unit_rows(total[:, :-1]), total[:, -1].astype(jnp.int32)


class Neighbors(NamedTuple):
  """Nearest external images of each test image, for the votes; missing ones have NO_NEIGHBOR."""

  similarity: Float[Array, "m j"]
  labels: Int[Array, "m j"] | Bool[Array, "m j k"]


def class_prototypes(
  class_centers: Float[Array, "k d"], counts: Int[Array, "k"], text_features: Float[Array, "k d"]
) -> Float[Array, "3 k d"]:
  """Return the unit-norm prototypes of `PROTOTYPE_SCORES`: t_c, norm(t_c + v_c) and v_c.

  For a class without images, the `cler` prototype is its text and the `cler_image` prototype is
  zero.

  Args:
    class_centers: unit-norm means v_c of the external images.
    counts: external images of each class.
    text_features: unit-norm text prototypes t_c.
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
  """Return the cosine of one test image with each prototype, in the order of `PROTOTYPE_SCORES`.

  In the strict protocol, `cler_image` never predicts an empty class. In the reference protocol, one
  empty class makes `cler` and `cler_image` predict class 0 for every image, as the NaN does in the
  published code.

  Args:
    feature: feature of the image.
    prototypes: see `class_prototypes`.
    counts: external images of each class.
    reference: use the reference protocol.
  """
  cosines = jnp.matmul(prototypes, unit_rows(feature), precision=HIGHEST)
  missing = counts == 0
  if reference:
    return cosines.at[1:].set(jnp.where(missing.any(), 0.0, cosines[1:]))
  return cosines.at[2].set(jnp.where(missing, -jnp.inf, cosines[2]))


def predicted_classes(
  cosines: Float[Array, "3 k"], neighbors: Neighbors | None, reference: bool
) -> Int[Array, "v"]:
  """Return the class that each score predicts for one test image; ties go to the first class.

  In the strict protocol, the summed similarity of the voters breaks ties between equal vote counts.

  Args:
    cosines: see `class_cosines`.
    neighbors: voters of the image; None for no votes.
    reference: use the reference protocol.
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
  """Return each class's share among the neighbors, and the summed similarity of its voters."""
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
  """Turn cosines and vote shares (if any) into the published scores, in float64.

  In float32 the softmax at scale 100 saturates to 1 for many images, which destroys their order.
  """
  cosines, shares = columns[:, :3].astype(np.float64), columns[:, 3:].astype(np.float64)
  scales = np.array([ZERO_SHOT_SCALE, 1.0, 1.0])[:, None]
  logits = cosines * scales
  exponents = np.exp(logits - logits.max(-1, keepdims=True))
  scores = exponents / exponents.sum(-1, keepdims=True)
  if not shares.size:
    return scores
  return np.concatenate([scores, shares, (shares + scores[:, :1]) / 2], axis=1)
