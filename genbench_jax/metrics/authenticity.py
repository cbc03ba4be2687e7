"""Authenticity and near copies: are external images copies of training images?

The training images are the real ones with stored features. A generator that has not seen them
cannot have copied them; the metrics then say how close it comes by chance.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import common_scale, feature_rows, host_unit_rows, or_default
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of

NAMES = ("auth_pct", "near_copies")
# An image looks like a copy if it is closer to a training image than all but this share of unseen
# real images.
NEAREST_SHARE = 0.05


def auth_pct(
  training: Float[Any, "n d"], generated: Float[Any, "m d"], mesh: Mesh | None = None
) -> float:
  """Compute the percentage of authentic images (Alaa et al. 2022, as dgm-eval computes it).

  An image is authentic if its nearest training image is closer to another training image than to
  it. Independent images give 50 to 80, copies 0.

  Args:
    training: features of the training images, at least two.
    generated: features of the external images.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or there is a single training image.
  """
  training, generated = _checked(training, generated)
  mesh = or_default(mesh)
  distance, number = nearest(generated, training, 1, "euclidean", mesh=mesh)
  own = -nearest(training, training, 1, "euclidean", skip_self=True, mesh=mesh)[0][:, 0]
  return float(100 * np.mean(own[number[:, 0]] < -distance[:, 0]))


def near_copies(
  training: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  unseen: Float[Any, "u d"],
  mesh: Mesh | None = None,
) -> float:
  """Compute the share of images closer to a training image than 95 % of unseen real images.

  Unseen real images themselves give 0.05.

  Args:
    training, generated: see `auth_pct`.
    unseen: features of real images outside the training set, such as the test images.
    mesh: devices to compute on; None for all.

  Raises:
    UsageError: shapes or values do not fit, or there is a single training image.
  """
  training, generated = _checked(training, generated)
  unseen = feature_rows("unseen", unseen, training.shape[1])
  mesh = or_default(mesh)
  of_generated, of_unseen = (
    -nearest(rows, training, 1, "euclidean", mesh=mesh)[0][:, 0] for rows in (generated, unseen)
  )
  return float(np.mean(of_generated < np.quantile(of_unseen, NEAREST_SHARE)))


def _checked(training: Any, generated: Any) -> tuple[np.ndarray, np.ndarray]:
  training = feature_rows("training", training)
  generated = feature_rows("generated", generated, training.shape[1])
  if len(training) < 2:
    raise UsageError("authenticity needs at least 2 training images, got 1")
  scale = common_scale(training, generated)
  return (training, generated) if scale == 1 else (training / scale, generated / scale)


def few(
  training: Float[np.ndarray, "n d"],
  generated: Float[np.ndarray, "m d"],
  unseen: Float[np.ndarray, "u d"],
) -> Float[np.ndarray, "2"]:
  """Compute both metrics of small sets on the host in float64, from all pairwise distances."""
  within = squared_distances(training, training)
  np.fill_diagonal(within, np.inf)
  across = squared_distances(generated, training)
  closest = across.argmin(axis=1)
  authentic = within.min(axis=1)[closest] < across.min(axis=1)
  line = np.quantile(squared_distances(unseen, training).min(axis=1), NEAREST_SHARE)
  return np.array([100 * authentic.mean(), np.mean(across.min(axis=1) < line)])


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield both metrics on unit-norm features, if training images have stored features."""
  if sets.training is None or len(sets.training) < 2:
    return
  training, generated, unseen = (
    host_unit_rows(rows) for rows in (sets.training, sets.external, sets.test)
  )
  values = np.array([
    auth_pct(training, generated, sets.mesh),
    near_copies(training, generated, unseen, sets.mesh),
  ])  # fmt: skip
  strata = strata_of(sets.labels, len(generated)), sampled_strata(sets.test_labels, len(unseen))
  # Training images are fixed; unseen and generated images are resampled.
  drawn = training[np.random.default_rng(sets.seed).permutation(len(training))[:2000]]
  found = set_measurements(
    values,
    lambda images, tests: few(drawn, images, tests),
    generated,
    unseen,
    strata,
    sets.seed,
    sets.resamples,
    (0.0, 100.0),
  )
  for name, value in zip(NAMES, found, strict=True):
    yield Result(name, value)
