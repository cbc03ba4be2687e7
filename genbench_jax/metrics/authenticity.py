"""Authenticity and near copies: are external images copies of training images?

The training images are the real ones with stored features. A generator that has not seen them
cannot have copied them; the metrics then say how close it comes by chance.
"""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from genbench_jax.errors import UsageError
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.class_distances import means_by_class
from genbench_jax.metrics.inputs import common_scale, feature_rows, host_unit_rows, or_default
from genbench_jax.metrics.manifold_spread import squared_distances
from genbench_jax.metrics.neighbors import nearest
from genbench_jax.metrics.registry import Result, Sets
from genbench_jax.metrics.set_spread import OnParts, Prepare, set_measurements
from genbench_jax.metrics.strata import sampled_strata, strata_of

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
  return 100 * float(authentic_images(training, generated, mesh).mean())


def authentic_images(
  training: Float[Any, "n d"], generated: Float[Any, "m d"], mesh: Mesh | None = None
) -> Bool[np.ndarray, "m"]:
  """Return which images are authentic, see `auth_pct`.

  Args:
    training, generated: features of both sets.
    mesh: devices; None for all.
  """
  training, generated = _checked(training, generated)
  mesh = or_default(mesh)
  distance, number = nearest(generated, training, 1, "euclidean", mesh=mesh)
  own = -nearest(training, training, 1, "euclidean", skip_self=True, mesh=mesh)[0][:, 0]
  return own[number[:, 0]] < -distance[:, 0]


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
  return float(copied_images(training, generated, unseen, mesh).mean())


def copied_images(
  training: Float[Any, "n d"],
  generated: Float[Any, "m d"],
  unseen: Float[Any, "u d"],
  mesh: Mesh | None = None,
) -> Bool[np.ndarray, "m"]:
  """Return which images look like copies, see `near_copies`.

  Args:
    training, generated: features of both sets.
    unseen: features of real images that the generator has not seen.
    mesh: devices; None for all.
  """
  training, generated, unseen = _checked(training, generated, unseen)
  mesh = or_default(mesh)
  of_generated, of_unseen = (
    -nearest(rows, training, 1, "euclidean", mesh=mesh)[0][:, 0] for rows in (generated, unseen)
  )
  return of_generated < np.quantile(of_unseen, NEAREST_SHARE)


def _checked(training: Any, generated: Any, unseen: Any | None = None) -> list[np.ndarray]:
  """Return the checked sets, divided by a common scale if their squares would leave float32."""
  training = feature_rows("training", training)
  named = {"generated": generated} if unseen is None else {"generated": generated, "unseen": unseen}
  sets = [training, *(feature_rows(name, rows, training.shape[1]) for name, rows in named.items())]
  if len(training) < 2:
    raise UsageError("authenticity needs at least 2 training images, got 1")
  scale = common_scale(*sets)
  return sets if scale == 1 else [rows / scale for rows in sets]


def on_parts(drawn: Float[np.ndarray, "t d"]) -> Prepare:
  """Return the `prepare` of `set_measurements` for both shares on parts of both sets.

  Args:
    drawn: training images to compare with.
  """
  within = squared_distances(drawn, drawn)
  np.fill_diagonal(within, np.inf)
  own = within.min(axis=1)

  def prepare(generated: Float[np.ndarray, "m d"], unseen: Float[np.ndarray, "u d"]) -> OnParts:
    across = squared_distances(generated, drawn)
    distance = across.min(axis=1)
    authentic = own[across.argmin(axis=1)] < distance
    of_unseen = squared_distances(unseen, drawn).min(axis=1)

    def of(images: Bool[np.ndarray, "m"], tests: Bool[np.ndarray, "u"]) -> Float[np.ndarray, "2"]:
      line = np.quantile(of_unseen[tests], NEAREST_SHARE)
      return np.array([authentic[images].mean(), np.mean(distance[images] < line)])

    return of

  return prepare


def measure(sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
  """Yield both metrics on unit-norm features, if training images have stored features."""
  if sets.training is None or len(sets.training) < 2:
    return
  training, generated, unseen = (
    host_unit_rows(rows) for rows in (sets.training, sets.external, sets.test)
  )
  which = (
    authentic_images(training, generated, sets.mesh),
    copied_images(training, generated, unseen, sets.mesh),
  )
  shares = np.array([images.mean() for images in which])
  strata = strata_of(sets.labels, len(generated)), sampled_strata(sets.test_labels, len(unseen))
  # Training images are fixed; unseen and generated images are resampled.
  drawn = training[np.random.default_rng(sets.seed).permutation(len(training))[:2000]]
  authentic, copies = set_measurements(
    shares, on_parts(drawn), generated, unseen, strata, sets.seed, sets.resamples, proportions=True
  )
  authentic_by_class, copies_by_class = (means_by_class(images, sets.labels) for images in which)
  per_cent = {c: 100 * share for c, share in authentic_by_class.items()}
  yield Result("auth_pct", _per_cent(authentic), per_cent)
  yield Result("near_copies", copies, copies_by_class)


def _per_cent(found: Measurement) -> Measurement:
  ends = ("value", "ci_low", "ci_high", "generator_low", "generator_high")
  known = {end: getattr(found, end) for end in ends}
  return dataclasses.replace(
    found, **{end: 100 * value for end, value in known.items() if value is not None}
  )
