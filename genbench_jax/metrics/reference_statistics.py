"""Mean and covariance of features as an .npz with `mu` and `sigma` (pytorch-fid, clean-fid)."""

import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, or_default
from genbench_jax.metrics.moments import moments
from genbench_jax.runtime.npz import read_npz

# 16,384 columns: the covariance then takes 2 GiB in float64.
MOST_WIDTH = 1 << 14
_MOST_BYTES = 8 * MOST_WIDTH * (MOST_WIDTH + 1)


class ReferenceStatistics(NamedTuple):
  """Gaussian fitted to the features of a set of images.

  Attributes:
    mean: mean of the features.
    covariance: unbiased covariance (divided by n - 1).
  """

  mean: Float[np.ndarray, "d"]
  covariance: Float[np.ndarray, "d d"]


def statistics_of(features: Float[Any, "n d"], mesh: Mesh | None = None) -> ReferenceStatistics:
  """Return the mean and covariance of features, in float64.

  Raises:
    UsageError: there are fewer than two rows, or `features` is not a matrix of finite numbers.
  """
  features = feature_rows("features", features)
  if len(features) < 2:
    raise UsageError(f"a covariance needs at least 2 images, got {len(features)}")
  return ReferenceStatistics(*moments("features", features, or_default(mesh)).compute())


def read_statistics(path: str | Path) -> ReferenceStatistics:
  """Read the statistics from an .npz with `mu` and `sigma`.

  Raises:
    UsageError: the file does not exist or is not such an .npz.
  """
  try:
    arrays = read_npz(Path(path), _MOST_BYTES, {"mu", "sigma"})
    missing = [name for name in ("mu", "sigma") if name not in arrays]
    if missing:
      raise UsageError(
        f"{path} has no {' and no '.join(missing)}: expected an .npz with mu and sigma."
      )
    mean, covariance = (_real(name, arrays[name]) for name in ("mu", "sigma"))
  except UsageError:
    raise
  except (OSError, ValueError, TypeError) as error:
    raise UsageError(f"{path} can't be read as an .npz with mu and sigma ({error}).") from error
  if mean.ndim != 1 or covariance.shape != (len(mean),) * 2 or len(mean) > MOST_WIDTH:
    raise UsageError(
      f"{path} holds mu of shape {mean.shape} and sigma of shape {covariance.shape}: expected [d] and [d, d] with d up to "
      f"{MOST_WIDTH}."
    )
  for name, array in (("mu", mean), ("sigma", covariance)):
    check_finite(f"{name} in {path}", array)
  if np.abs(covariance - covariance.T).max() > 1e-6 * max(np.abs(covariance).max(), 1e-300):
    raise UsageError(f"sigma in {path} is not symmetric, so it is not a covariance.")
  if not _bounded_by_variances(covariance):
    raise UsageError(f"sigma in {path} has entries that its variances rule out: no covariance.")
  return ReferenceStatistics(mean, covariance)


def _real(name: str, array: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
  if array.dtype.kind not in "fiu":
    raise ValueError(f"{name} is {array.dtype}, not real numbers")
  return np.asarray(array, np.float64)


def _bounded_by_variances(covariance: Float[np.ndarray, "d d"]) -> bool:
  """Return whether s_ii >= 0 and |s_ij| <= sqrt(s_ii s_jj), as for every covariance.

  The distance takes the square root of a product of covariances and drops negative eigenvalues as
  rounding errors. For other matrices it would return some number, such as 0.
  """
  if not covariance.size:
    return True
  # Files in float16 have rounding errors of 5e-4.
  slack = 1e-3 * np.abs(covariance).max()
  variances = np.diagonal(covariance)
  deviations = np.sqrt(variances.clip(0))
  bound = np.outer(deviations, deviations) + slack
  return bool(variances.min() >= -slack and (np.abs(covariance) <= bound).all())


def write_statistics(path: str | Path, statistics: ReferenceStatistics) -> None:
  """Write the statistics atomically as an .npz with `mu` and `sigma`."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  # An unpredictable name, created exclusively: a planted link is never followed.
  temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
  descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
  try:
    with os.fdopen(descriptor, "wb") as file:
      np.savez(file, mu=statistics.mean, sigma=statistics.covariance)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
