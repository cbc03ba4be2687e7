"""Export features as NumPy archives, with the moments that Fréchet-distance tools read."""

from pathlib import Path

import numpy as np

from genbench_jax.errors import UsageError
from genbench_jax.store import embedding_set, files


def features(source: Path, out: Path, unit_norm: bool = False) -> int:
  """Write `mu`, `sigma` (divided by n - 1), `features`, `labels` and `ids` to an .npz file.

  Args:
    source: a file of `WORKDIR/embeddings`.
    out: file to write; must not exist.
    unit_norm: whether to scale features to unit norm first, as this package's `fid` does.

  Returns:
    The number of images.

  Raises:
    UsageError: `source` is not a file, or `out` exists.
    RunError: the source is damaged, or `out` can't be written.
  """
  if not source.is_file():
    raise UsageError(
      f"{str(source)!r} is not a file with features. A run writes them to WORKDIR/embeddings."
    )
  if out.exists():
    raise UsageError(f"{str(out)!r} exists. Give another name, or delete it.")
  found = embedding_set.load(source).readable()
  values = found.features.astype(np.float64)
  if unit_norm:
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
  arrays = {
    "mu": values.mean(axis=0),
    "sigma": np.atleast_2d(np.cov(values, rowvar=False)),
    "features": values.astype(np.float32),
    "labels": found.labels,
    "ids": found.ids,
  }
  files.write_arrays(out, **arrays)
  return len(found)
